//! Old attempts are found by when they ended, instead of by looking at each.

const UP: &[&str] = &["create index attempt_ended on attempt(ended_at)"];

const DOWN: &[&str] = &["drop index attempt_ended"];

step!(UP, DOWN);
