//! Tasks of a watch know the change that they are about, so that their end can make a dead letter of it.

use sea_orm_migration::prelude::*;

/// The step that adds the changes of tasks.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 1] = ["create table task_change (
       task_id text primary key references task(id) on delete cascade, delivery_id text not null,
       path {bytes} not null, operation text not null, before_mode integer, before_blob text)"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let used = "select count(*) from sink where kind = 'tasks'";
        crate::refuse_while(manager, used, |count| {
            format!(
                "the changes of {count} watches become tasks, which the version before does not know: remove \
                 these watches first"
            )
        })
        .await?;
        crate::run(manager, &["drop table task_change"]).await
    }
}
