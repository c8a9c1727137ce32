//! Stores since when an app has its present endpoint: answers of an earlier endpoint, and attempts that
//! failed there, say nothing about the present one.

const UP: &[&str] = &["alter table app add column endpoint_since bigint not null default 0"];
const DOWN: &[&str] = &["alter table app drop column endpoint_since"];

step!(UP, DOWN);
