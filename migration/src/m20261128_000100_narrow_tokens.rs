//! Adds narrowed tokens of an app or of the staff, with their own permissions and optional commands.
//!
//! They have a table of their own, so that a replica of the previous version finds no such token: in
//! `access_token` that version would read a narrowed token as a whole token of its owner. For the same reason
//! a session of a narrowed token has no `token_id`: that version reads it as a session of the server's own
//! token, finds another hash, and refuses it.

use sea_orm_migration::prelude::*;

/// The step that adds narrowed tokens.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 4] = [
    "create table narrowed_token (
       id text primary key, app_id text references app(id) on delete cascade, role text,
       permissions text not null, commands text, name text not null, public_id text not null unique,
       hash text not null, expires_at bigint, last_used_at bigint, revoked_at bigint,
       created_at bigint not null, check (app_id is null or role is null))",
    "create index narrowed_token_app on narrowed_token(app_id, id)",
    "alter table session add column narrowed_id text references narrowed_token(id) on delete cascade",
    "create index session_narrowed on session(narrowed_id) where narrowed_id is not null",
];

// A column that refers to another table cannot be dropped on SQLite: sessions end, and people sign in again.
const DOWN: [&str; 5] = [
    "drop table session",
    "create table session (
       hash text primary key, token_id text references access_token(id) on delete cascade,
       token_hash text not null, created_at bigint not null, expires_at bigint not null)",
    "create index session_token on session(token_id)",
    "create index session_end on session(expires_at)",
    "drop table narrowed_token",
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

/// Refuses the step back while narrowed tokens exist: the previous version would refuse their requests.
async fn refuse_while_used(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    crate::refuse_while(manager, "select count(*) from narrowed_token where revoked_at is null", |count| {
        format!("there are {count} narrowed tokens, which the version before refuses: revoke them first")
    })
    .await
}
