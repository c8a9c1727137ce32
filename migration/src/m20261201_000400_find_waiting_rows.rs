//! Looks that come round every few seconds find the rows that wait through an index: folded changes without
//! an entry, states at rest that are forgotten, and last statuses of removed watches. Before, each look read
//! the states of all sources, and all statuses.

const UP: &[&str] = &[
    "create index entry_fold_waiting on entry_fold(app_id, subject, topic) where folded > 0",
    "create index entry_fold_rest on entry_fold(last, last_at) where folded = 0",
    "create index commit_status_until on commit_status(until_at) where until_at is not null",
];
const DOWN: &[&str] =
    &["drop index commit_status_until", "drop index entry_fold_rest", "drop index entry_fold_waiting"];

step!(UP, DOWN);
