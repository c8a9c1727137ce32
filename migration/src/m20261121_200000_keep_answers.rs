//! Attempts store the headers and the beginning of their answer; older attempts have none.

const UP: &[&str] = &[
    "alter table attempt add column answer_headers text",
    "alter table attempt add column answer_body text",
];

const DOWN: &[&str] =
    &["alter table attempt drop column answer_headers", "alter table attempt drop column answer_body"];

step!(UP, DOWN);
