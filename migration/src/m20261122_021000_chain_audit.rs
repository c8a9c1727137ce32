//! The audit log becomes a chain: each row holds the hash of the one before it and its own. The
//! table was never written to, so it is made anew.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for text in [
            "drop table audit",
            // Ids are counted by who writes: a hole in them is a row that was removed.
            "create table audit (
                id bigint primary key, at bigint not null, actor text not null, app text not null,
                action text not null, target text not null, result text not null, request text not null,
                previous text not null, hash text not null)",
            "create index audit_app on audit(app, id)",
            "create index audit_actor on audit(actor, id)",
        ] {
            manager.get_connection().execute_unprepared(text).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let rising = match manager.get_connection().get_database_backend() {
            DbBackend::Postgres => "bigint generated always as identity primary key",
            _ => "integer primary key autoincrement",
        };
        let table = format!(
            "create table audit (id {rising}, at bigint not null, actor text not null,
             action text not null, target text not null, result text not null)"
        );
        for text in ["drop table audit", table.as_str()] {
            manager.get_connection().execute_unprepared(text).await?;
        }
        Ok(())
    }
}
