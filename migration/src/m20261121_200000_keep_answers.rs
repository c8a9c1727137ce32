//! Attempts keep the headers and the beginning of the answer that they got; those of before have none.

const UP: &[&str] = &[
    "alter table attempt add column answer_headers text",
    "alter table attempt add column answer_body text",
];

const DOWN: &[&str] =
    &["alter table attempt drop column answer_headers", "alter table attempt drop column answer_body"];

step!(UP, DOWN);
