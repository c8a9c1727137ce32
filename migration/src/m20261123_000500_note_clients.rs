//! Rows of the audit log name the address that a request came from. Those that are there have none.

const UP: &[&str] = &["alter table audit add column address text"];
const DOWN: &[&str] = &["alter table audit drop column address"];

step!(UP, DOWN);
