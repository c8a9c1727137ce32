//! Replicas hand on keys of the keyring: which keys were offered, seal, were closed or retired, the new ones
//! sealed with those of before for as long as somebody may need them; and which keys each replica has.

const UP: &[&str] = &[
    "create table key_share (
        id text not null primary key,
        number bigint not null,
        state text not null,
        sealed {bytes},
        offered_at bigint not null,
        active_at bigint
    )",
    "alter table replica add column keys text not null default ''",
];

const DOWN: &[&str] = &["alter table replica drop column keys", "drop table key_share"];

step!(UP, DOWN);
