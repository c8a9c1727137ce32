//! Why the commit that a ref names cannot be taken, if it cannot: the other refs of its source go on, and
//! nothing is concluded from what is here of that commit.

use sea_orm_migration::prelude::*;

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 1] = ["alter table head add column fault text"];
const DOWN: [&str; 1] = ["alter table head drop column fault"];

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
