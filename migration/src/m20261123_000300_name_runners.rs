//! A keyed request that runs names the process that runs it: it is waited for as long as that lives, and no
//! longer. Those of a version before name none.

const UP: &[&str] = &["alter table idempotency add column runner text"];

const DOWN: &[&str] = &["alter table idempotency drop column runner"];

step!(UP, DOWN);
