//! What requests to an app's endpoint carry beyond their signatures: one sealed value, null for most.

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
        let connection = manager.get_connection();
        let bytes = match connection.get_database_backend() {
            DbBackend::Postgres => "bytea",
            _ => "blob",
        };
        connection.execute_unprepared(&format!("alter table app add column endpoint_access {bytes}")).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("alter table app drop column endpoint_access").await?;
        Ok(())
    }
}
