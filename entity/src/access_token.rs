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
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TokenId,
    /// Whose it is; null: the staff's.
    pub app_id: Option<AppId>,
    /// What it may do; null for an app's, which may do all that apps may.
    pub role: Option<Role>,
    /// What it is for.
    pub name: String,
    /// The public part, unique.
    pub public_id: String,
    /// SHA-256 of the whole.
    pub hash: Sha256Hash,
    /// When it ends; unix milliseconds.
    pub expires_at: Option<i64>,
    /// When it was used last, a minute or so ago; unix milliseconds.
    pub last_used_at: Option<i64>,
    /// When it was revoked; unix milliseconds.
    pub revoked_at: Option<i64>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
