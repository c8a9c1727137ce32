//! A keyed request that runs names the process that runs it: it is waited for as long as that lives, and no
//! longer. Those of a version before name none.

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
        let column = "alter table idempotency add column runner text";
        manager.get_connection().execute_unprepared(column).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = "alter table idempotency drop column runner";
        manager.get_connection().execute_unprepared(column).await.map(drop)
    }
}
