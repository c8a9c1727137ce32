//! Adds tasks for workers, their queues, and their payloads and results.
//!
//! No foreign key leads out of `task`: SQLite would read the whole table to find the tasks of a removed
//! queue. The columns about watches are for tasks that a watch creates; other tasks leave them empty.

use sea_orm_migration::prelude::*;

/// The step that adds queues and tasks.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 9] = [
    "create table queue (
       id text primary key, app_id text references app(id) on delete cascade, command text not null,
       settings text not null, is_paused boolean not null, waiting bigint not null, ready bigint not null,
       aside bigint not null, claimed bigint not null, succeeded bigint not null, failed bigint not null,
       dead bigint not null, cancelled bigint not null, bytes bigint not null, permits_until bigint not null,
       created_at bigint not null, unique (app_id, command))",
    "create table task (
       id text primary key, queue_id text not null, app_id text not null, state text not null,
       rank bigint not null, wake_at bigint, priority bigint not null, attempts bigint not null,
       abandons bigint not null, max_attempts bigint not null, claim text, worker text, claimed_at bigint,
       flag text, watch_id text, cursor_id text, round bigint, position bigint, origin_kind text not null,
       origin text not null, parent_id text, depth bigint not null, key_hash text, request_hash text,
       callback text, error text, bytes bigint not null, created_at bigint not null,
       updated_at bigint not null, ended_at bigint) {one tree}",
    "create index task_ready on task(queue_id, rank, id) where state = 'ready'",
    // `wake_at` is the moment when a waiting task is due, when a claim runs out, or when an ended task is
    // removed.
    "create index task_wake on task(state, wake_at, id) where wake_at is not null",
    "create index task_list on task(queue_id, id)",
    "create index task_fault on task(queue_id, id) where state in ('failed', 'dead', 'cancelled')",
    "create unique index task_key on task(queue_id, key_hash) where key_hash is not null",
    "create unique index task_place on task(cursor_id, round, position) where cursor_id is not null",
    "create table task_body (
       task_id text primary key references task(id) on delete cascade, payload text not null, result text,
       progress text)",
];

const ON_POSTGRES: [&str; 2] = [
    "alter table task set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01)",
    "alter table queue set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01)",
];

const DOWN: [&str; 3] = ["drop table task_body", "drop table task", "drop table queue"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &UP).await?;
        crate::run_on_postgres(manager, &ON_POSTGRES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let open = "select count(*) from task where state in ('waiting', 'ready', 'claimed', 'aside')";
        crate::refuse_while(manager, open, |count| {
            format!(
                "there are {count} open tasks, which the version before does not know: let workers end them, \
                 or cancel them first"
            )
        })
        .await?;
        crate::run(manager, &DOWN).await
    }
}
