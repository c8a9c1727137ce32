//! A delivery that failed or was given up is found by its id.

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
        for table in ["attempt", "dead_letter"] {
            let text = format!("create index {table}_delivery on {table}(delivery_id)");
            manager.get_connection().execute_unprepared(&text).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["attempt", "dead_letter"] {
            let text = format!("drop index {table}_delivery");
            manager.get_connection().execute_unprepared(&text).await?;
        }
        Ok(())
    }
}
