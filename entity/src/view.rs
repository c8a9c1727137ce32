//! The paths that an app sees, and how much of each file. Immutable; equal views are one row.

use sea_orm::entity::prelude::*;

use crate::id::ViewId;

/// One row of `view`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "view")]
pub struct Model {
    /// SHA-256 of the canonical text.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ViewId,
    /// The path filter and content rules as canonical text: equal views have equal texts.
    pub text: String,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
