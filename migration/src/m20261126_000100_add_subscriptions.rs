//! Readers of ledgers, each with a sink of its own; and a second key of a sink, which signs beside a new one
//! for a while.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{Statement, TryGetable},
};

/// The step.
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

/// What the version before has no place for must not be lost.
async fn refuse_while_used(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    let text = "select count(*) from subscription";
    let statement = Statement::from_string(connection.get_database_backend(), text);
    let row = connection.query_one_raw(statement).await?;
    let count = row.map(|row| i64::try_get_by_index(&row, 0)).transpose()?.unwrap_or(0);
    match count {
        0 => Ok(()),
        count => Err(DbErr::Custom(format!(
            "there are {count} subscriptions, which the version before does not know: remove them first"
        ))),
    }
}
