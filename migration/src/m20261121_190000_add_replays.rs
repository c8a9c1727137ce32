//! Adds replays: a cursor may be asked to send again the changes after a commit that its app held.

const UP: &[&str] = &[
    // The commit to go back to, and the view under which it was held: both, or neither.
    "alter table cursor add column replay text",
    "alter table cursor add column replay_view text",
    // Unused views are searched for often, and replays are rare.
    "create index cursor_replay_view on cursor(replay_view) where replay_view is not null",
];

const DOWN: &[&str] = &[
    "drop index cursor_replay_view",
    "alter table cursor drop column replay",
    "alter table cursor drop column replay_view",
];

step!(UP, DOWN);
