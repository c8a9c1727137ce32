//! Schedules can resync a watch in place of creating a task.

use sea_orm_migration::prelude::*;

/// The step that lets schedules resync watches.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 2] = [
    "alter table schedule add column watch_id text",
    "create index schedule_watch on schedule(watch_id) where watch_id is not null",
];
const DOWN: [&str; 2] = ["drop index schedule_watch", "alter table schedule drop column watch_id"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let used = "select count(*) from schedule where watch_id is not null";
        crate::refuse_while(manager, used, |count| {
            format!(
                "{count} schedules resync a repository, which the version before does not know: remove these \
                 schedules first"
            )
        })
        .await?;
        crate::run(manager, &DOWN).await
    }
}
