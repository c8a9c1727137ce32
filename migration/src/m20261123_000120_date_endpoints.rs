//! Since when an app has the endpoint that it has: answers of an endpoint that it had before say nothing of
//! the new one, and neither do attempts that failed there.

const UP: &[&str] = &["alter table app add column endpoint_since bigint not null default 0"];
const DOWN: &[&str] = &["alter table app drop column endpoint_since"];

step!(UP, DOWN);
