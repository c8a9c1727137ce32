//! Replicas hand on keys of the keyring: which keys were offered, seal, were closed or retired, the new ones
//! sealed with those of before for as long as somebody may need them; and which keys each replica has.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const BLOB_SQLITE: &str = "blob";
const BLOB_POSTGRES: &str = "bytea";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let blob = match manager.get_database_backend() {
            DbBackend::Postgres => BLOB_POSTGRES,
            _ => BLOB_SQLITE,
        };
        let table = format!(
            "create table key_share (
                id text not null primary key,
                number bigint not null,
                state text not null,
                sealed {blob},
                offered_at bigint not null,
                active_at bigint
            )"
        );
        let connection = manager.get_connection();
        connection.execute_unprepared(&table).await?;
        let column = "alter table replica add column keys text not null default ''";
        connection.execute_unprepared(column).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        connection.execute_unprepared("alter table replica drop column keys").await?;
        connection.execute_unprepared("drop table key_share").await.map(drop)
    }
}
