//! Dead letters may be dismissed, and the open ones are found over all apps without looking at closed ones.

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
        let text = "create index dead_letter_open_id on dead_letter(id)
                    where status in ('open', 'redrive_requested')";
        manager.get_connection().execute_unprepared(text).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        connection.execute_unprepared("drop index dead_letter_open_id").await?;
        // An older binary does not know the word; to it, such a letter was made moot.
        let text = "update dead_letter set status = 'superseded' where status = 'dismissed'";
        connection.execute_unprepared(text).await.map(drop)
    }
}
