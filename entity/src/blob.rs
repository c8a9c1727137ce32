//! What was computed of a blob: a cache shared by all.

use sea_orm::entity::prelude::*;

use crate::id::{ObjectId, Sha256Hash};

/// One row of `blob`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "blob")]
pub struct Model {
    /// The blob.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ObjectId,
    /// SHA-256 of its content.
    pub sha256: Sha256Hash,
    /// Bytes.
    pub size: i64,
    /// Whether it is valid UTF-8 without NUL.
    pub is_text: bool,
    /// When it was last remembered, in unix milliseconds.
    pub used_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
