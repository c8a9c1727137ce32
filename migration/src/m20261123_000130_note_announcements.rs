//! Stores whether the app was told that a resync begins: only an app that was told drops files that the
//! resync does not name.

const UP: &[&str] = &["alter table round add column announced boolean not null default false"];
const DOWN: &[&str] = &["alter table round drop column announced"];

step!(UP, DOWN);
