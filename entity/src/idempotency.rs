//! A request with an `Idempotency-Key`, and its sealed answer.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, ReplicaId, Sha256Hash};

/// One row of `idempotency`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency")]
pub struct Model {
    /// Whose key it is: an app, or one of the fixed ids that stand for who is none.
    #[sea_orm(primary_key, auto_increment = false)]
    pub owner: AppId,
    /// SHA-256 of the key: who may register without a token has it as the only secret.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key_hash: Sha256Hash,
    /// Over method, path, query and body: the same key with another request is refused.
    pub request_hash: Sha256Hash,
    /// The status code; null while the first request runs.
    pub status: Option<i32>,
    /// The sealed answer: content type, line feed, body.
    pub answer: Option<Vec<u8>>,
    /// The app that the request made; the answer holds its token and goes with it.
    pub made_app: Option<AppId>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// The process that runs it, or ran it last; null: one of a version that did not say.
    pub runner: Option<ReplicaId>,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
