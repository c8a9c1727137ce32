//! A dead letter stores the file that the app had before the parked change, and nothing about the file that
//! the app has now: a refused or failed attempt may have been applied.

const UP: &[&str] = &[
    "alter table dead_letter drop column state_kind",
    "alter table dead_letter rename column state_mode to before_mode",
    "alter table dead_letter rename column state_blob to before_blob",
];

const DOWN: &[&str] = &[
    "alter table dead_letter add column state_kind text not null default 'unknown'",
    "alter table dead_letter rename column before_mode to state_mode",
    "alter table dead_letter rename column before_blob to state_blob",
];

step!(UP, DOWN);
