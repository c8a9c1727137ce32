//! A remote Git repository, shared by all watches of it; removed with its last watch.

use sea_orm::entity::prelude::*;

use crate::id::RepositoryId;

/// One row of `repository`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "repository")]
pub struct Model {
    /// Id of the repository; also the name of its mirror.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: RepositoryId,
    /// The normalised address, unique.
    pub url: String,
    /// When a genuine hook last reported one of its refs, in Unix milliseconds; null: never.
    pub hooked_at: Option<i64>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
