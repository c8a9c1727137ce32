//! Stores the role of each replica, and the address at which other replicas reach it.

const UP: &[&str] = &[
    "alter table replica add column role text not null default 'all'",
    "alter table replica add column address text",
];

const DOWN: &[&str] = &["alter table replica drop column address", "alter table replica drop column role"];

step!(UP, DOWN);
