//! Adds callbacks of tasks: subscriptions that tasks make for the address in their `webhook`, and entries
//! that are addressed to one subscription. Adds the moment at which a subscription began to wait. Adds worker
//! subscriptions, which are told that a queue has work.

use sea_orm_migration::prelude::*;

/// The step of the schema; its name is that of this file.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 9] = [
    "alter table subscription add column callback text",
    // A wait that began in the future is over: the clock was set back since.
    "alter table subscription add column waits_since bigint",
    "alter table entry add column recipient text",
    "alter table schedule add column callback text",
    "create index entry_recipient on entry(recipient, number) where recipient is not null",
    // Which addresses have open tasks.
    "create index task_callback on task(app_id, callback) where callback is not null and ended_at is null",
    "create table worker_subscription (
       id text primary key, app_id text not null references app(id) on delete cascade, url text not null,
       commands text not null, group_name text, min_interval_ms bigint not null, ttl_ms bigint not null,
       expires_at bigint not null, created_at bigint not null)",
    "create index worker_subscription_app on worker_subscription(app_id, id)",
    "create index worker_subscription_end on worker_subscription(expires_at)",
];

const DOWN: [&str; 7] = [
    "drop table worker_subscription",
    "drop index task_callback",
    "drop index entry_recipient",
    "alter table schedule drop column callback",
    "alter table entry drop column recipient",
    "alter table subscription drop column waits_since",
    "alter table subscription drop column callback",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let used = "select count(*) from subscription where callback is not null";
        crate::refuse_while(manager, used, |count| {
            format!(
                "{count} subscriptions are callbacks of tasks, which the version before does not know: \
                 remove them first"
            )
        })
        .await?;
        crate::run(manager, &DOWN).await
    }
}
