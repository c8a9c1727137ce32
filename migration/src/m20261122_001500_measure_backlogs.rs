//! What is behind, and what was given up, is counted without looking at what is not.

use sea_orm_migration::prelude::*;

/// Name and place of each index.
const INDEXES: &[(&str, &str)] = &[
    ("cursor_behind", "cursor(behind_since) where behind_since is not null"),
    ("dead_letter_reason", "dead_letter(reason) where status in ('open', 'redrive_requested')"),
];

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, place) in INDEXES {
            let text = format!("create index {name} on {place}");
            manager.get_connection().execute_unprepared(&text).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in INDEXES {
            manager.get_connection().execute_unprepared(&format!("drop index {name}")).await?;
        }
        Ok(())
    }
}
