//! A process that shares the database with others.

use sea_orm::entity::prelude::*;

use crate::{id::ReplicaId, kind::ReplicaRole};

/// One row of `replica`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "replica")]
pub struct Model {
    /// Id of the replica process. A restart gets a new id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ReplicaId,
    /// Host name and process id, for people.
    pub name: String,
    /// The version of Tidings that the process runs.
    pub version: String,
    /// Whether the process answers API requests, works on repositories, or both.
    pub role: ReplicaRole,
    /// Whether the process takes shards.
    pub works: bool,
    /// The web address at which other replicas reach the process; null: they cannot.
    pub address: Option<String>,
    /// When the process started, in unix milliseconds by its own clock.
    pub started_at: i64,
    /// The last heartbeat of the process, in unix milliseconds by the clock of the database.
    pub seen_at: i64,
    /// The time for which a heartbeat counts, in milliseconds.
    pub life_ms: i64,
    /// The ids of the keys in its keyring, separated by spaces; the key that seals comes first. Empty: its
    /// version does not store them.
    pub keys: String,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
