//! A reader of an app's ledger: which entries it wants, the sink that they go to, and how far it is.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, SinkId, SubscriptionId},
    kind::SubscriptionState,
};

/// One row of `subscription`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "subscription")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SubscriptionId,
    /// The app.
    pub app_id: AppId,
    /// Unique among those of the app.
    pub name: String,
    /// Which entries it wants, as a filter; empty: all of them.
    pub filter: String,
    /// Whether the filter may mean entries about rounds, which are written for such readers alone.
    pub reads_rounds: bool,
    /// Its sink, which goes with it. Both ids end in the same letters.
    pub sink_id: SinkId,
    /// The number of the last entry that is dealt with.
    pub position: i64,
    /// How it stands.
    pub state: SubscriptionState,
    /// Why it is blocked; null while it is not.
    pub reason: Option<String>,
    /// Failed tries of the next message since it was begun.
    pub tries: i64,
    /// Entries that were skipped in a row.
    pub skips: i64,
    /// When the next message is tried again, in unix milliseconds; null: at once.
    pub next_at: Option<i64>,
    /// When it ends by itself, in unix milliseconds; null: never.
    pub expires_at: Option<i64>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
