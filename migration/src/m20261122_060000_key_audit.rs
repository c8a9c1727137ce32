//! Rows of the audit log name the key that their hash was made with. Those that are there have none.

const UP: &[&str] = &["alter table audit add column key_id text"];

const DOWN: &[&str] = &["alter table audit drop column key_id"];

step!(UP, DOWN);
