//! A range of a round that was settled at once: history, one row per settlement.

use sea_orm::entity::prelude::*;

use crate::id::CursorId;

/// One row of `settled`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "settled")]
pub struct Model {
    /// The cursor of the round.
    #[sea_orm(primary_key, auto_increment = false)]
    pub cursor_id: CursorId,
    /// The number of the round.
    #[sea_orm(primary_key, auto_increment = false)]
    pub round: i64,
    /// The first position of the range.
    #[sea_orm(primary_key, auto_increment = false)]
    pub from_position: i64,
    /// The position after the last one of the range.
    pub to_position: i64,
    /// When the range was settled, in Unix milliseconds.
    pub settled_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
