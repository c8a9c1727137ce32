//! A tree of which the app may hold files when a resync begins, in the order it is compared.
//! Round 0 collects those of the resync that was asked for and has not begun.

use sea_orm::entity::prelude::*;

use crate::id::{CursorId, ObjectId, ViewId};

/// One row of `round_base`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "round_base")]
pub struct Model {
    /// The cursor.
    #[sea_orm(primary_key, auto_increment = false)]
    pub cursor_id: CursorId,
    /// The resync; 0 for the one to come.
    #[sea_orm(primary_key, auto_increment = false)]
    pub round: i64,
    /// Its place in the order.
    #[sea_orm(primary_key, auto_increment = false)]
    pub ordinal: i32,
    /// The commit.
    pub commit_id: ObjectId,
    /// The view on it.
    pub view_id: ViewId,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
