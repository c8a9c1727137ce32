//! What requests to an app's endpoint carry beyond their signatures: one sealed value, null for most.

const UP: &[&str] = &["alter table app add column endpoint_access {bytes}"];

const DOWN: &[&str] = &["alter table app drop column endpoint_access"];

step!(UP, DOWN);
