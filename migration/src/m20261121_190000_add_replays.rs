//! A cursor may be asked to go back: to deliver once more what came after a commit that its app held.

use sea_orm_migration::prelude::*;

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// The commit to go back to, and the view under which it was held: both, or neither.
const COLUMNS: &[&str] = &["replay", "replay_view"];

/// Views that nobody needs are looked for often, replays are rare.
const INDEX: &str = "create index cursor_replay_view on cursor(replay_view) where replay_view is not null";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in COLUMNS {
            let text = format!("alter table cursor add column {column} text");
            manager.get_connection().execute_unprepared(&text).await?;
        }
        manager.get_connection().execute_unprepared(INDEX).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("drop index cursor_replay_view").await?;
        for column in COLUMNS {
            let text = format!("alter table cursor drop column {column}");
            manager.get_connection().execute_unprepared(&text).await?;
        }
        Ok(())
    }
}
