//! Rows of the audit log name the key that their hash was made with. Those that are there have none.

use sea_orm_migration::prelude::*;

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let text = "alter table audit add column key_id text";
        manager.get_connection().execute_unprepared(text).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let text = "alter table audit drop column key_id";
        manager.get_connection().execute_unprepared(text).await.map(drop)
    }
}
