//! The right of one process to work on a shard. SQLite has one shard.

use sea_orm::entity::prelude::*;

/// One row of `lease`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "lease")]
pub struct Model {
    /// The shard.
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: String,
    /// Rises with each owner; the fence of all writes.
    pub epoch: i64,
    /// Unix milliseconds.
    pub taken_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
