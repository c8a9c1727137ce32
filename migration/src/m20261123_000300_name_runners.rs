//! A running keyed request names its process: others wait for the request as long as that process lives.
//! Requests of an older version name none.

const UP: &[&str] = &["alter table idempotency add column runner text"];

const DOWN: &[&str] = &["alter table idempotency drop column runner"];

step!(UP, DOWN);
