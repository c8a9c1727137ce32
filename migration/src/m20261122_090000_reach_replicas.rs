//! What each of several replicas is there for, and where the others reach it.

const UP: &[&str] = &[
    "alter table replica add column role text not null default 'all'",
    "alter table replica add column address text",
];

const DOWN: &[&str] = &["alter table replica drop column address", "alter table replica drop column role"];

step!(UP, DOWN);
