//! Dead letters that were asked to be sent again together: which, and how far they are marked. What
//! became of them is counted from the letters, which name it.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, DeadLetterId, RedriveId};

/// One row of `redrive`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "redrive")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: RedriveId,
    /// The app.
    pub app_id: AppId,
    /// Which letters, as JSON.
    pub filter: String,
    /// The last letter that was looked at; null before the first.
    pub marked_to: Option<DeadLetterId>,
    /// The newest letter when it was asked for: later ones are not meant.
    pub through: DeadLetterId,
    /// Letters are still being marked.
    pub is_marking: bool,
    /// Letters that were marked.
    pub asked: i64,
    /// Letters that were taken back.
    pub cancelled: i64,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
