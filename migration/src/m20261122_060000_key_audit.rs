//! Rows of the audit log name the key of their hash. Existing rows have no key.

const UP: &[&str] = &["alter table audit add column key_id text"];

const DOWN: &[&str] = &["alter table audit drop column key_id"];

step!(UP, DOWN);
