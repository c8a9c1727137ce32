//! A token of an app or of the staff that may do less than its owner.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, Sha256Hash, TokenId};

/// One row of `narrowed_token`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "narrowed_token")]
pub struct Model {
    /// Id of the token, `tok_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TokenId,
    /// The app that the token belongs to; null for a token of the staff.
    pub app_id: Option<AppId>,
    /// The name of the role that a token of the staff has; null where it has permissions.
    pub role: Option<String>,
    /// Patterns of permissions with a space between them; empty where the token has a role.
    pub permissions: String,
    /// Names and globs of commands with a space between them; null: every command.
    pub commands: Option<String>,
    /// The purpose of the token, in the words of the person who made it.
    pub name: String,
    /// The public part of the token, unique; a lookup by it finds the row.
    pub public_id: String,
    /// SHA-256 of the whole token; the token itself is not stored.
    pub hash: Sha256Hash,
    /// When the token expires, in Unix milliseconds; null: never.
    pub expires_at: Option<i64>,
    /// When the token was last used, in Unix milliseconds, about one minute late; null: never.
    pub last_used_at: Option<i64>,
    /// When the token was revoked, in Unix milliseconds; null: it was not.
    pub revoked_at: Option<i64>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
