//! The head of an app's ledger: its name, and the numbers of its first and last entry.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, LedgerId};

/// One row of `ledger`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ledger")]
pub struct Model {
    /// The app whose ledger this is.
    #[sea_orm(primary_key, auto_increment = false)]
    pub app_id: AppId,
    /// Part of the id of each entry. A restored database gets a new name, so that no id means two entries.
    pub name: LedgerId,
    /// The number of the oldest entry that is kept; `last + 1` where none is kept.
    pub first: i64,
    /// The number of the newest entry.
    pub last: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
