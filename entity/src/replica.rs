//! A process that shares the database with others.

use sea_orm::entity::prelude::*;

use crate::{id::ReplicaId, kind::ReplicaRole};

/// One row of `replica`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "replica")]
pub struct Model {
    /// Of one process; a restart makes another.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ReplicaId,
    /// Host and process, for people.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is there for.
    pub role: ReplicaRole,
    /// Whether it takes shards.
    pub works: bool,
    /// Where the others reach it, as a web address; `None`: nowhere.
    pub address: Option<String>,
    /// When it started, in unix milliseconds by its own clock.
    pub started_at: i64,
    /// When it said last that it lives, in unix milliseconds by the clock of the database.
    pub seen_at: i64,
    /// How long its word counts, in milliseconds.
    pub life_ms: i64,
    /// The ids of the keys in its keyring, with spaces between them, the one that it seals with first; empty:
    /// its version does not say.
    pub keys: String,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
