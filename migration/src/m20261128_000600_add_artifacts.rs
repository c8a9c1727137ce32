//! Adds artifacts of tasks: what is known of each; the bytes are objects in an object store.

use sea_orm_migration::prelude::*;

/// The step that adds artifacts.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 2] = [
    "create table artifact (
       id text primary key, task_id text not null references task(id) on delete cascade,
       app_id text not null, name text not null, content_type text not null, bytes bigint not null,
       sha256 text not null, created_at bigint not null, unique (task_id, name)) {one tree}",
    // The sum of an app's bytes is read from this index alone.
    "create index artifact_app on artifact(app_id, id, bytes)",
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
        crate::refuse_while(manager, "select count(*) from artifact", |count| {
            format!(
                "there are {count} artifacts of tasks, which the version before does not know: remove them \
                 first"
            )
        })
        .await?;
        crate::run(manager, &["drop table artifact"]).await
    }
}
