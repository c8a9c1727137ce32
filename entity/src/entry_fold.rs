//! What the ledger told last about one state of one subject, and what happened since without an entry of
//! its own.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, WatchId},
    kind::{EntryType, OriginKind},
};

/// One row of `entry_fold`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "entry_fold")]
pub struct Model {
    /// The app.
    #[sea_orm(primary_key, auto_increment = false)]
    pub app_id: AppId,
    /// As in the entries.
    #[sea_orm(primary_key, auto_increment = false)]
    pub subject: String,
    /// Which state of the subject: a subject may have several.
    #[sea_orm(primary_key, auto_increment = false)]
    pub topic: String,
    /// The type of the last entry.
    pub told: EntryType,
    /// Its number.
    pub number: i64,
    /// When it was written, in unix milliseconds.
    pub told_at: i64,
    /// What happened last.
    pub last: EntryType,
    /// When, in unix milliseconds.
    pub last_at: i64,
    /// How much happened since the last entry.
    pub folded: i64,
    /// As the next entry will say it.
    pub watch_id: Option<WatchId>,
    /// The same.
    pub origin_kind: OriginKind,
    /// The same.
    pub origin: String,
    /// The same.
    pub data: String,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
