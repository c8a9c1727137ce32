//! A request with an `Idempotency-Key`, and its sealed answer.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, ReplicaId, Sha256Hash};

/// One row of `idempotency`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency")]
pub struct Model {
    /// The owner of the key: an app, or a fixed id that stands for callers without an app.
    #[sea_orm(primary_key, auto_increment = false)]
    pub owner: AppId,
    /// The SHA-256 of the key: for a registration without a token the key is the only secret.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key_hash: Sha256Hash,
    /// Over method, path, query and body: the same key with another request is refused.
    pub request_hash: Sha256Hash,
    /// The status code; null while the first request runs.
    pub status: Option<i32>,
    /// The sealed answer: content type, line feed, body.
    pub answer: Option<Vec<u8>>,
    /// The app that the request created; the answer holds its token and is removed with the app.
    pub made_app: Option<AppId>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
    /// The process that runs the request, or ran it last; null: a process of a version that did not store
    /// this.
    pub runner: Option<ReplicaId>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
