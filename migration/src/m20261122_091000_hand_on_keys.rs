//! Replicas hand on keys of the keyring: the state of each key (offered, active, closed, retired), new keys
//! sealed with older ones for as long as a replica may need them, and the keys that each replica has.

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
