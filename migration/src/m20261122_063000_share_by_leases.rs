//! Replicas share a PostgreSQL database: a lease for each shard, with its owner and its end by the clock of
//! the database, and a row for each replica. A process of an older version, which would have the database to
//! itself, is fenced off. SQLite keeps its one lease, whose epoch rises at each start.

const UP: &[&str] = &[
    "alter table lease add column owner text",
    "alter table lease add column expires_at bigint not null default 0",
    "create table replica (
        id text not null primary key,
        name text not null,
        version text not null,
        works boolean not null,
        started_at bigint not null,
        seen_at bigint not null,
        life_ms bigint not null
    )",
];

/// Tables that processes of an older version do not know, and the update that fences those processes off.
const SHARDS: &[&str] = &[
    "insert into lease (shard, epoch, taken_at) select cast(n as text), 0, 0 from generate_series(0, 255) n",
    "update lease set epoch = epoch + 1 where shard = 'all'",
];

const DOWN: &[&str] = &[
    "drop table replica",
    "delete from lease where shard <> 'all'",
    "alter table lease drop column expires_at",
    "alter table lease drop column owner",
];

step!(UP, DOWN, postgres: SHARDS, &[]);
