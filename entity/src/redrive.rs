//! A request to send dead letters again together: the filter, and how far letters are marked. Results are
//! counted from the letters, which name the redrive.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, DeadLetterId, RedriveId};

/// One row of `redrive`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "redrive")]
pub struct Model {
    /// Id of the redrive, `rdv_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: RedriveId,
    /// The app whose dead letters are sent again.
    pub app_id: AppId,
    /// The filter that selects the letters, as JSON.
    pub filter: String,
    /// The last letter that was checked against the filter; null before the first.
    pub marked_to: Option<DeadLetterId>,
    /// The newest letter when the redrive was asked for; later letters are not part of the redrive.
    pub through: DeadLetterId,
    /// Whether letters are still being marked for the redrive.
    pub is_marking: bool,
    /// The number of letters that were marked.
    pub asked: i64,
    /// The number of marked letters that were taken back.
    pub cancelled: i64,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
