//! Why the commit that a ref names cannot be taken, if it cannot: the other refs of its source go on, and
//! nothing is concluded from what is here of that commit.

const UP: &[&str] = &["alter table head add column fault text"];
const DOWN: &[&str] = &["alter table head drop column fault"];

step!(UP, DOWN);
