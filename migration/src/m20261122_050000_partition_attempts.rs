//! On PostgreSQL, attempts are partitioned by the number of their round, so that old ones are dropped as a
//! whole. The store creates the partitions; this step creates the default partition. SQLite keeps its table.

const UP: &[&str] = &[
    "alter table attempt rename to attempt_whole",
    "alter table attempt_whole rename constraint attempt_pkey to attempt_whole_pkey",
    "drop index attempt_delivery",
    "create table attempt (like attempt_whole) partition by range (round)",
    "alter table attempt add primary key (owner_kind, owner_id, round, position, number)",
    "create index attempt_delivery on attempt(delivery_id)",
    "create table attempt_rest partition of attempt default",
    "insert into attempt select * from attempt_whole",
    "drop table attempt_whole",
];

const DOWN: &[&str] = &[
    "alter table attempt rename to attempt_parts",
    "alter table attempt_parts rename constraint attempt_pkey to attempt_parts_pkey",
    "drop index attempt_delivery",
    "create table attempt (like attempt_parts)",
    "alter table attempt add primary key (owner_kind, owner_id, round, position, number)",
    "create index attempt_delivery on attempt(delivery_id)",
    "insert into attempt select * from attempt_parts",
    "drop table attempt_parts",
];

step!(&[], &[], postgres: UP, DOWN);
