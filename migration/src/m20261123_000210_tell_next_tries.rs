//! A failed attempt remembers when the next one was to follow, and sources that fail are counted without
//! looking at the others.

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
        for text in [
            "alter table attempt add column next_at bigint",
            "create index source_failing on source(id) where last_error is not null",
        ] {
            manager.get_connection().execute_unprepared(text).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for text in ["drop index source_failing", "alter table attempt drop column next_at"] {
            manager.get_connection().execute_unprepared(text).await?;
        }
        Ok(())
    }
}
