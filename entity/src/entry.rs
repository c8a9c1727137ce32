//! An entry of an app's ledger: one change of state. Written once, never changed.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, SubscriptionId, WatchId},
    kind::{EntryType, OriginKind},
};

/// One row of `entry`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "entry")]
pub struct Model {
    /// The app whose ledger holds the entry.
    #[sea_orm(primary_key, auto_increment = false)]
    pub app_id: AppId,
    /// Number of the entry. Numbers of an app rise by one, in the order of commits.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    /// When the entry was written, in Unix milliseconds.
    pub at: i64,
    /// The type of the entry, such as `watch.blocked`.
    #[sea_orm(column_name = "type")]
    pub entry_type: EntryType,
    /// The watch. Null: the entry is not about a single watch.
    pub watch_id: Option<WatchId>,
    /// Id of the object that changed: a source, a cursor, a watch, a sink, a subscription, a task or the app.
    /// For a schedule: its name.
    pub subject: String,
    /// The kind of the cause.
    pub origin_kind: OriginKind,
    /// The name of the origin: `<cursor>/<round>`, the token of a person, or a short name of a cause outside.
    pub origin: String,
    /// Number of the previous entry about the same state of the same subject.
    pub cause: Option<i64>,
    /// Details of the change, a JSON object of at most 4 KiB.
    pub data: String,
    /// The callback that the entry is addressed to, beside all other readers; null where it is addressed to
    /// none. The subscription may be gone.
    pub recipient: Option<SubscriptionId>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
