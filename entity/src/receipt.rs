//! A hook of a Git host that was received, with what became of it. The delivery id of a genuine hook
//! is there once per provider; refused hooks and repetitions are merely noted, whatever id they
//! claim.

use sea_orm::entity::prelude::*;

use crate::{
    id::ReceiptId,
    kind::{HookNews, HookProvider, ReceiptReason, ReceiptVerdict},
};

/// One row of `receipt`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "receipt")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ReceiptId,
    /// The kind of Git host.
    pub provider: HookProvider,
    /// Its delivery id there.
    pub delivery_id: String,
    /// The event as the host names it.
    pub event: String,
    /// What it tells of.
    pub news: HookNews,
    /// The full name of the ref it tells of.
    pub ref_name: Option<String>,
    /// The normalised addresses that it names, a JSON array.
    pub addresses: String,
    /// The ids of the watched repositories that it names, a JSON array.
    pub repositories: String,
    /// What became of it.
    pub verdict: ReceiptVerdict,
    /// Why.
    pub reason: ReceiptReason,
    /// How many requests this row stands for.
    pub times: i64,
    /// Whether it is merely noted: refused, or a repetition.
    pub noted: bool,
    /// Rises by one with each row of the same `noted`.
    pub ordinal: i64,
    /// Unix milliseconds.
    pub received_at: i64,
    /// When it was replayed last, in unix milliseconds.
    pub replayed_at: Option<i64>,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
