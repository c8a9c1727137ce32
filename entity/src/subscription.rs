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
    /// Id of the subscription, `sub_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SubscriptionId,
    /// The app whose ledger the subscription reads.
    pub app_id: AppId,
    /// The name of the subscription, unique within the app.
    pub name: String,
    /// The filter that selects entries, as text; empty: all entries.
    pub filter: String,
    /// Whether the filter may match entries about rounds, which are written only for such subscriptions.
    pub reads_rounds: bool,
    /// The sink of the subscription, deleted with it. Both ids end with the same ULID.
    pub sink_id: SinkId,
    /// The number of the last entry that was sent, skipped or not matched.
    pub position: i64,
    /// Whether the subscription is active, paused, blocked or expired.
    pub state: SubscriptionState,
    /// Why the subscription is blocked; null while it is not.
    pub reason: Option<String>,
    /// The number of failed attempts of the next message.
    pub tries: i64,
    /// The number of entries that were skipped in a row.
    pub skips: i64,
    /// When the next message is tried again, in Unix milliseconds; null: at once.
    pub next_at: Option<i64>,
    /// The number of the first entry of the mail that is being sent; null while none is.
    pub mail_first: Option<i64>,
    /// The number of the last entry of that mail; null with it.
    pub mail_last: Option<i64>,
    /// No mail is sent before this moment, in unix milliseconds; null: the next mail may be sent at once.
    pub quiet_until: Option<i64>,
    /// When the waits until `next_at` and `quiet_until` began, in Unix milliseconds. If that is in the
    /// future, the clock was set back, and the waits are over.
    pub waits_since: Option<i64>,
    /// When the subscription expires, in Unix milliseconds; null: never.
    pub expires_at: Option<i64>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
    /// The address in `webhook` of the tasks that made the subscription; null where a person made it. Such a
    /// subscription reads only the entries that are addressed to it.
    pub callback: Option<String>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
