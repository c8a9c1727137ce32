//! Adds statuses: a watch shows its result on the commit at the Git host; and the state that each host was
//! told.

use sea_orm_migration::prelude::*;

/// The step that adds statuses of commits.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 7] = [
    "alter table watch add column status_host text",
    "alter table watch add column status_context text",
    // The table references no other: a status must be withdrawn at the host after its watch is removed.
    "create table commit_status (
       watch_id text not null, commit_id text not null, app_id text not null, repository_id text not null,
       cursor_id text not null, kind text not null, host text not null, url text not null,
       context text not null, wanted text not null, description text not null, told text,
       tries bigint not null, count bigint not null, next_at bigint,
       is_claimed boolean not null, ended text, secret {bytes}, until_at bigint,
       updated_at bigint not null, primary key (watch_id, commit_id))",
    "create index commit_status_due on commit_status(next_at) where next_at is not null",
    "create index commit_status_cursor on commit_status(cursor_id, commit_id)",
    "create index commit_status_place on commit_status(commit_id, context)",
    "create index commit_status_old on commit_status(updated_at)",
];

const DOWN: [&str; 3] = [
    "drop table commit_status",
    "alter table watch drop column status_context",
    "alter table watch drop column status_host",
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
        refuse_while_used(manager).await?;
        crate::run(manager, &DOWN).await
    }
}

/// The version before would leave commits pending for ever.
async fn refuse_while_used(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    crate::refuse_while(manager, "select count(*) from watch where status_host is not null", |count| {
        format!(
            "{count} watches show commit statuses, which the version before does not know: switch them off \
             first (tidings repository update ID --status=off)"
        )
    })
    .await
}
