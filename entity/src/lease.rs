//! The right of one process to work on a shard. On SQLite there is one row, `all`, for the whole
//! database; on PostgreSQL its epoch fences off every replica at once, and each shard has a row.

use sea_orm::entity::prelude::*;

use crate::id::ReplicaId;

/// One row of `lease`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "lease")]
pub struct Model {
    /// The shard's number, or `all`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: String,
    /// Rises with each owner; the fence of all writes.
    pub epoch: i64,
    /// When the present owner took the lease, in Unix milliseconds.
    pub taken_at: i64,
    /// The replica that has the lease; null while no replica has it.
    pub owner: Option<ReplicaId>,
    /// When the lease expires unless it is renewed, in Unix milliseconds by the clock of the database.
    pub expires_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
