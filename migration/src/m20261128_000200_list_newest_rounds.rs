//! Adds an index for the newest rounds of all apps together, to find what happened to a path in every watch.

const UP: &[&str] = &["create index round_number on round(number, cursor_id)"];
const DOWN: &[&str] = &["drop index round_number"];

step!(UP, DOWN);
