//! A dead letter remembers what the app had before the change that was given up, and claims nothing of what
//! the app has now: a refused or failed attempt may have been applied.

use sea_orm_migration::prelude::*;

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 3] = [
    "alter table dead_letter drop column state_kind",
    "alter table dead_letter rename column state_mode to before_mode",
    "alter table dead_letter rename column state_blob to before_blob",
];

const DOWN: [&str; 3] = [
    "alter table dead_letter add column state_kind text not null default 'unknown'",
    "alter table dead_letter rename column before_mode to state_mode",
    "alter table dead_letter rename column before_blob to state_blob",
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
        crate::run(manager, &DOWN).await
    }
}
