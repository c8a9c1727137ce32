//! Adds the access data for an app's endpoint (header fields, credentials, certificates): one sealed value,
//! null for most apps.

const UP: &[&str] = &["alter table app add column endpoint_access {bytes}"];

const DOWN: &[&str] = &["alter table app drop column endpoint_access"];

step!(UP, DOWN);
