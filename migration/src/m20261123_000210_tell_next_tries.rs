//! A failed attempt stores when the next one was due, and failing sources are counted without reading the
//! others.

const UP: &[&str] = &[
    "alter table attempt add column next_at bigint",
    "create index source_failing on source(id) where last_error is not null",
];

const DOWN: &[&str] = &["drop index source_failing", "alter table attempt drop column next_at"];

step!(UP, DOWN);
