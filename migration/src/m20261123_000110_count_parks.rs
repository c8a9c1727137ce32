//! Stores where a row of counted parks began and which letters belong to it, so that these are redriven when
//! the receiver works again, each by itself once only; and how many changes an app refused before it
//! acknowledged its first one.

const UP: &[&str] = &[
    "alter table dead_letter add column counted boolean not null default false",
    "alter table dead_letter add column self_redriven boolean not null default false",
    "alter table cursor add column refused integer not null default 0",
    "alter table cursor add column streak_round bigint",
    "alter table cursor add column streak_position bigint",
    // For a row that began before this step the letters are unknown: all open letters are sent again.
    "update dead_letter set counted = true where status = 'open' and reason in ('rejected', 'failing')
       and cursor_id in (select id from cursor where streak > 0)",
    "update cursor set streak_round = 0, streak_position = 0 where streak > 0",
];

const DOWN: &[&str] = &[
    "alter table dead_letter drop column counted",
    "alter table dead_letter drop column self_redriven",
    "alter table cursor drop column refused",
    "alter table cursor drop column streak_round",
    "alter table cursor drop column streak_position",
];

step!(UP, DOWN);
