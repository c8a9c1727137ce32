//! Stores when this database was restored from a backup: apps registered before that may be ahead of it.

const UP: &[&str] = &["create table restoration (
        restored_at bigint not null primary key,
        taken_at bigint not null
    )"];

const DOWN: &[&str] = &["drop table restoration"];

step!(UP, DOWN);
