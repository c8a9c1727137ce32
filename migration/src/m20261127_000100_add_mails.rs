//! Adds mails of subscriptions: the range of entries of the mail that is being sent, and the moment before
//! which no other mail is sent. The range is written before the mail is sent, so that a repeated attempt
//! sends the same mail.

use sea_orm_migration::prelude::*;

/// The step that adds mails to subscriptions.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 3] = [
    "alter table subscription add column mail_first bigint",
    "alter table subscription add column mail_last bigint",
    "alter table subscription add column quiet_until bigint",
];

const DOWN: [&str; 3] = [
    "alter table subscription drop column quiet_until",
    "alter table subscription drop column mail_last",
    "alter table subscription drop column mail_first",
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
        refuse_while_used(manager).await?;
        crate::run(manager, &DOWN).await
    }
}

/// Refuses the step back while sinks send mails: the older version does not know this kind.
async fn refuse_while_used(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    crate::refuse_while(manager, "select count(*) from sink where kind = 'mail'", |count| {
        format!(
            "there are {count} subscriptions that are sent by mail, which the version before does not know: \
             remove them first"
        )
    })
    .await
}
