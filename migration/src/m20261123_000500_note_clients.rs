//! Rows of the audit log name the address of the request. Existing rows have none.

const UP: &[&str] = &["alter table audit add column address text"];
const DOWN: &[&str] = &["alter table audit drop column address"];

step!(UP, DOWN);
