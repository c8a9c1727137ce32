//! The sink of one watch or of one subscription.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, SinkId},
    kind::SinkKind,
};

/// One row of `sink`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sink")]
pub struct Model {
    /// Id of the sink, `snk_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SinkId,
    /// The app that the sink belongs to.
    pub app_id: AppId,
    /// Whether the sink is an endpoint, a stream, pull or the terminal.
    pub kind: SinkKind,
    /// The address that changes are sent to; null where nothing is sent.
    pub address: Option<String>,
    /// Headers, credentials and certificates for requests to the sink, sealed; null where there are none.
    pub access: Option<Vec<u8>>,
    /// The key that signs deliveries to the sink, sealed; null while nothing was ever sent to it,
    /// and of a callback that signs with the key of the app.
    pub signing_key: Option<Vec<u8>>,
    /// The previous key, which also signs until `former_until`, sealed; null while there is none.
    pub former_key: Option<Vec<u8>>,
    /// When the previous key stops signing, in Unix milliseconds; null exactly where `former_key` is.
    pub former_until: Option<i64>,
    /// Format, order and limits, as JSON.
    pub delivery: String,
    /// Why nothing is delivered to the sink; null while it is served.
    pub disabled: Option<String>,
    /// When the sink got its present address, in Unix milliseconds; rises with each change of the address.
    pub since: i64,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
