//! A database has an identity, so that no other one removes what it keeps beside its rows.

const UP: &[&str] = &["alter table canary add column database_id text"];
const DOWN: &[&str] = &["alter table canary drop column database_id"];

step!(UP, DOWN);
