//! A token that opens this API: one of an app, or one of the staff.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, Sha256Hash, TokenId},
    kind::Role,
};

/// One row of `access_token`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "access_token")]
pub struct Model {
    /// Id of the token, `tok_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TokenId,
    /// The app that the token belongs to; null for a token of the staff.
    pub app_id: Option<AppId>,
    /// The role of a staff token; null for a token of an app, which may use every route of apps.
    pub role: Option<Role>,
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
