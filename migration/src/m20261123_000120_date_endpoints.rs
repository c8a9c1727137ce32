//! Since when an app has the endpoint that it has: answers of an endpoint that it had before say nothing of
//! the new one, and neither do attempts that failed there.

use sea_orm_migration::prelude::*;

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 1] = ["alter table app add column endpoint_since bigint not null default 0"];
const DOWN: [&str; 1] = ["alter table app drop column endpoint_since"];

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
