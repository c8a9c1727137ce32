//! Schedules, which create tasks at moments of a clock.

use sea_orm_migration::prelude::*;

/// The step that adds schedules.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 3] = [
    "create table schedule (
       app_id text not null references app(id) on delete cascade, name text not null, cron text not null,
       zone text not null, missed text not null, overlap text not null, command text not null,
       payload text not null, priority bigint not null, max_attempts bigint, is_paused boolean not null,
       last_tick bigint not null, wake_at bigint, last_task text, missed_ticks bigint not null,
       skipped_ticks bigint not null, error text, created_at bigint not null, updated_at bigint not null,
       primary key (app_id, name))",
    "create index schedule_wake on schedule(wake_at)",
    "create index schedule_task on schedule(last_task)",
];

const DOWN: [&str; 1] = ["drop table schedule"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::refuse_while(manager, "select count(*) from schedule", |count| {
            format!("there are {count} schedules, which the version before does not know: remove them first")
        })
        .await?;
        crate::run(manager, &DOWN).await
    }
}
