//! A remote Git repository, shared by all who watch it; goes with its last watch.

use sea_orm::entity::prelude::*;

use crate::id::RepositoryId;

/// One row of `repository`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "repository")]
pub struct Model {
    /// Its id; names the mirror.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: RepositoryId,
    /// The normalised address, unique.
    pub url: String,
    /// When a genuine hook told of one of its refs last, in unix milliseconds.
    pub hooked_at: Option<i64>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
