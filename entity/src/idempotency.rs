//! A stored answer to a request with an `Idempotency-Key`, sealed.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, Sha256Hash};

/// One row of `idempotency`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency")]
pub struct Model {
    /// The app.
    #[sea_orm(primary_key, auto_increment = false)]
    pub app_id: AppId,
    /// The key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// Over route and body: the same key with another request is refused.
    pub request_hash: Sha256Hash,
    /// The status code; null while the first request runs.
    pub status: Option<i32>,
    /// The sealed answer.
    pub answer: Option<Vec<u8>>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
