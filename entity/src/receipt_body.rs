//! The body of a genuine hook, sealed, with its stored header fields. All bodies together are a ring of
//! bytes: each has its start in the sequence of all bytes that were ever stored.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, ReceiptId};

/// One row of `receipt_body`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "receipt_body")]
pub struct Model {
    /// The receipt of the hook.
    #[sea_orm(primary_key, auto_increment = false)]
    pub receipt_id: ReceiptId,
    /// The app whose hook the request came to; null: an address of the server itself.
    pub app_id: Option<AppId>,
    /// The header fields and the body, sealed together.
    pub sealed: Vec<u8>,
    /// The offset of the body in the sequence of the bytes of all bodies.
    pub ring_start: i64,
    /// The offset of the body in the sequence of the bytes of all bodies of its app.
    pub app_start: Option<i64>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
