//! The audit log becomes a chain: each row holds the hash of the previous row and its own. No version wrote
//! to the old table, so it is created again.

const UP: &[&str] = &[
    "drop table audit",
    // The writer numbers the rows without gaps, so that a gap shows a removed row.
    "create table audit (
        id bigint primary key, at bigint not null, actor text not null, app text not null,
        action text not null, target text not null, result text not null, request text not null,
        previous text not null, hash text not null)",
    "create index audit_app on audit(app, id)",
    "create index audit_actor on audit(actor, id)",
];

const DOWN: &[&str] = &[
    "drop table audit",
    "create table audit (id {rising}, at bigint not null, actor text not null,
        action text not null, target text not null, result text not null)",
];

step!(UP, DOWN);
