//! Stores why the commit of a ref cannot be fetched, if so: the other refs of the source go on, and the
//! rounds do not use that commit.

const UP: &[&str] = &["alter table head add column fault text"];
const DOWN: &[&str] = &["alter table head drop column fault"];

step!(UP, DOWN);
