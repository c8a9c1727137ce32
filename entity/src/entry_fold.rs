//! The last entry about one state of one subject, and the changes since then that have no entry of their own.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, WatchId},
    kind::{EntryType, OriginKind},
};

/// One row of `entry_fold`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "entry_fold")]
pub struct Model {
    /// The app whose ledger the subject appears in.
    #[sea_orm(primary_key, auto_increment = false)]
    pub app_id: AppId,
    /// Id of the source, cursor, watch, sink or app whose state changed, as in the entries.
    #[sea_orm(primary_key, auto_increment = false)]
    pub subject: String,
    /// Which state of the subject the row is about: a subject may have several.
    #[sea_orm(primary_key, auto_increment = false)]
    pub topic: String,
    /// The type of the last entry that was written about this state.
    pub told: EntryType,
    /// The number of the last entry about this state.
    pub number: i64,
    /// When that entry was written, in Unix milliseconds.
    pub told_at: i64,
    /// The type of the last change of state, which may have no entry yet.
    pub last: EntryType,
    /// When the last change of state happened, in Unix milliseconds.
    pub last_at: i64,
    /// The number of changes of state since the last entry, none of which has an entry.
    pub folded: i64,
    /// The watch for the next entry about this state; null where it concerns no single watch.
    pub watch_id: Option<WatchId>,
    /// The kind of origin for the next entry about this state.
    pub origin_kind: OriginKind,
    /// The origin for the next entry about this state.
    pub origin: String,
    /// The data for the next entry about this state, as JSON.
    pub data: String,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
