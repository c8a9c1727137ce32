//! Attempts keep the headers and the beginning of the answer that they got; those of before have none.

use sea_orm_migration::prelude::*;

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const COLUMNS: [&str; 2] = ["answer_headers", "answer_body"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in COLUMNS {
            let text = format!("alter table attempt add column {column} text");
            manager.get_connection().execute_unprepared(&text).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in COLUMNS {
            let text = format!("alter table attempt drop column {column}");
            manager.get_connection().execute_unprepared(&text).await?;
        }
        Ok(())
    }
}
