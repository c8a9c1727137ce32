//! A tree of which the app may hold files when a resync begins, in the order it is compared. Round 0 collects
//! the trees for a resync that was requested and has not begun.

use sea_orm::entity::prelude::*;

use crate::id::{CursorId, ObjectId, ViewId};

/// One row of `round_base`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "round_base")]
pub struct Model {
    /// The cursor that is resynced.
    #[sea_orm(primary_key, auto_increment = false)]
    pub cursor_id: CursorId,
    /// The number of the resync round; 0 while the resync has not begun.
    #[sea_orm(primary_key, auto_increment = false)]
    pub round: i64,
    /// The place of the tree in the order of comparison.
    #[sea_orm(primary_key, auto_increment = false)]
    pub ordinal: i32,
    /// The commit whose tree the app may hold.
    pub commit_id: ObjectId,
    /// The view that the commit was delivered under.
    pub view_id: ViewId,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
