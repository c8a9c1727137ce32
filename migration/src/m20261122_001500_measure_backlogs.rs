//! Adds indexes that count cursors behind their head and open letters without reading the other rows.

const UP: &[&str] = &[
    "create index cursor_behind on cursor(behind_since) where behind_since is not null",
    "create index dead_letter_reason on dead_letter(reason) where status in ('open', 'redrive_requested')",
];

const DOWN: &[&str] = &["drop index cursor_behind", "drop index dead_letter_reason"];

step!(UP, DOWN);
