//! Adds subscriptions, which read ledgers and have their own sinks; and a second key of a sink, which signs
//! beside a new key during a rotation.

use sea_orm_migration::prelude::*;

/// The step of the schema; its name is that of this file.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 5] = [
    "create table subscription (
       id text primary key, app_id text not null references app(id) on delete cascade, name text not null,
       filter text not null, reads_rounds boolean not null,
       sink_id text not null references sink(id) on delete cascade, position bigint not null,
       state text not null, reason text, tries bigint not null, skips bigint not null, next_at bigint,
       expires_at bigint, created_at bigint not null, unique (app_id, name))",
    "create index subscription_sink on subscription(sink_id)",
    "create index subscription_rounds on subscription(app_id) where reads_rounds",
    "alter table sink add column former_key {bytes}",
    "alter table sink add column former_until bigint",
];

const DOWN: [&str; 3] = [
    "alter table sink drop column former_until",
    "alter table sink drop column former_key",
    "drop table subscription",
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

/// Refuses the step back while subscriptions exist: the older version would lose their data.
async fn refuse_while_used(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    crate::refuse_while(manager, "select count(*) from subscription", |count| {
        format!("there are {count} subscriptions, which the version before does not know: remove them first")
    })
    .await
}
