//! A request of a worker to be told that queues have work.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, WorkerSubscriptionId};

/// One row of `worker_subscription`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "worker_subscription")]
pub struct Model {
    /// Id of the worker subscription, `wsb_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: WorkerSubscriptionId,
    /// The app whose queues the worker is told of.
    pub app_id: AppId,
    /// The address that is told.
    pub url: String,
    /// The commands of the queues, as a JSON array.
    pub commands: String,
    /// The group of which one subscription is told of work, in turn; null where it is told of all work.
    pub group_name: Option<String>,
    /// The shortest time between two messages about one command, in milliseconds.
    pub min_interval_ms: i64,
    /// How long it lasts after it is made or extended, in milliseconds.
    pub ttl_ms: i64,
    /// When it ends, in Unix milliseconds.
    pub expires_at: i64,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
