//! Adds hooks of apps, each with its own secret; and the bodies of received hooks, sealed and bounded
//! together.
//!
//! Delivery ids are unique for each hook: a host may send one event to several hooks under the same id.

use sea_orm_migration::prelude::*;

/// The step that adds hooks of apps and the bodies of receipts.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 15] = [
    "create table hook (
       id text primary key, app_id text not null references app(id) on delete cascade, name text not null,
       provider text not null, repository_url text, secret {bytes} not null, former_secret {bytes},
       former_until bigint, created_at bigint not null, unique (app_id, name))",
    "alter table receipt add column hook_id text",
    "alter table receipt add column app_id text",
    "alter table receipt add column ring text not null default ''",
    "alter table receipt add column body text",
    "alter table receipt add column body_bytes bigint",
    "drop index receipt_delivery",
    "drop index receipt_ordinal",
    "create unique index receipt_delivery on receipt(provider, delivery_id)
       where not noted and hook_id is null",
    "create unique index receipt_delivery_of_hook on receipt(hook_id, delivery_id)
       where not noted and hook_id is not null",
    "create index receipt_ordinal on receipt(noted, ring, ordinal)",
    "create index receipt_hook on receipt(hook_id, id) where hook_id is not null",
    "create index receipt_app on receipt(app_id, id) where app_id is not null",
    "create table receipt_body (
       receipt_id text primary key references receipt(id) on delete cascade, app_id text,
       sealed {bytes} not null, ring_start bigint not null, app_start bigint)",
    "create index receipt_body_ring on receipt_body(ring_start)",
];

const DOWN: [&str; 15] = [
    "drop table receipt_body",
    "drop index receipt_app",
    "drop index receipt_hook",
    "drop index receipt_ordinal",
    "drop index receipt_delivery_of_hook",
    "drop index receipt_delivery",
    "delete from receipt where hook_id is not null",
    "alter table receipt drop column body_bytes",
    "alter table receipt drop column body",
    "alter table receipt drop column ring",
    "alter table receipt drop column app_id",
    "alter table receipt drop column hook_id",
    "create unique index receipt_delivery on receipt(provider, delivery_id) where not noted",
    "create index receipt_ordinal on receipt(noted, ordinal)",
    "drop table hook",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &UP).await?;
        let of_apps =
            "create index receipt_body_app on receipt_body(app_id, app_start) where app_id is not null";
        crate::run(manager, &[of_apps]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        refuse_while_used(manager).await?;
        crate::run(manager, &DOWN).await
    }
}

/// Refuses the step back while apps have hooks: hosts would go on sending to hooks that no longer exist.
async fn refuse_while_used(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    crate::refuse_while(manager, "select count(*) from hook", |count| {
        format!("there are {count} hooks of apps, which the version before does not know: remove them first")
    })
    .await
}
