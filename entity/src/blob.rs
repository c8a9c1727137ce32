//! Facts computed from a blob: a cache that all apps share.

use sea_orm::entity::prelude::*;

use crate::id::{ObjectId, Sha256Hash};

/// One row of `blob`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "blob")]
pub struct Model {
    /// The Git object id of the blob.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ObjectId,
    /// SHA-256 of the blob's content.
    pub sha256: Sha256Hash,
    /// The size of the content in bytes.
    pub size: i64,
    /// Whether the content is valid UTF-8 without NUL.
    pub is_text: bool,
    /// When the row was last used, in Unix milliseconds.
    pub used_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
