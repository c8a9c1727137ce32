//! A received hook of a Git host, with its verdict. The delivery id of a genuine hook is unique per provider;
//! refused hooks and repetitions are only recorded, whatever id they name.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, HookId, ReceiptId},
    kind::{BodyFate, HookNews, HookProvider, ReceiptReason, ReceiptVerdict},
};

/// One row of `receipt`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "receipt")]
pub struct Model {
    /// Id of the receipt, `rct_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ReceiptId,
    /// The kind of Git host that sent the hook.
    pub provider: HookProvider,
    /// The id that the Git host gave the delivery of the hook.
    pub delivery_id: String,
    /// Type of the event, in the word of the Git host.
    pub event: String,
    /// The kind of event that the hook reports, such as a push.
    pub news: HookNews,
    /// The full name of the ref that the hook is about; null: no single ref.
    pub ref_name: Option<String>,
    /// The normalised addresses in the hook, a JSON array.
    pub addresses: String,
    /// The ids of the watched repositories that the hook is about, a JSON array.
    pub repositories: String,
    /// The verdict about the hook.
    pub verdict: ReceiptVerdict,
    /// The reason for the verdict.
    pub reason: ReceiptReason,
    /// The number of requests that this row stands for.
    pub times: i64,
    /// Whether the row is only a note of a refused or repeated hook.
    pub noted: bool,
    /// Rises by one with each row of the same `noted` and `ring`.
    pub ordinal: i64,
    /// When the hook was received, in Unix milliseconds.
    pub received_at: i64,
    /// When the hook was last replayed, in Unix milliseconds; null: never.
    pub replayed_at: Option<i64>,
    /// The hook of an app that the request came to; null: an address of the server itself, or of an unknown
    /// hook.
    pub hook_id: Option<HookId>,
    /// The app that owns the hook of `hook_id`.
    pub app_id: Option<AppId>,
    /// The group of receipts in which the oldest are removed: the id of the app for genuine hooks of an app,
    /// else empty.
    pub ring: String,
    /// The result of storing the body; null if the hook was not proved genuine.
    pub body: Option<BodyFate>,
    /// The size of the body in bytes.
    pub body_bytes: Option<i64>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
