//! A status has the line that its host shows, so that a changed line is told as well; and the moment until
//! which an earlier request without an answer may still be under way at the host.

const UP: &[&str] = &[
    "alter table commit_status add column told_line text",
    "alter table commit_status add column doubt_until bigint",
];
const DOWN: &[&str] =
    &["alter table commit_status drop column doubt_until", "alter table commit_status drop column told_line"];

step!(UP, DOWN);
