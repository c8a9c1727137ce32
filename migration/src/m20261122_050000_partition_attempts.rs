//! On PostgreSQL attempts lie in parts by the number of their round, so that old ones go as a whole. The
//! store makes the parts; here is the one for what belongs to none of them. SQLite keeps its table.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

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

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, DOWN).await
    }
}

async fn run(manager: &SchemaManager<'_>, texts: &[&str]) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    for text in texts {
        connection.execute_unprepared(text).await?;
    }
    Ok(())
}
