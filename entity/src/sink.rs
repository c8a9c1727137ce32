//! A sink that one watch has for itself beside the sink of its app, or that one subscription has.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, SinkId},
    kind::SinkKind,
};

/// One row of `sink`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sink")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SinkId,
    /// The app.
    pub app_id: AppId,
    /// Which kind.
    pub kind: SinkKind,
    /// Where changes are sent; null where nothing is.
    pub address: Option<String>,
    /// What requests to it carry, sealed; null for nothing.
    pub access: Option<Vec<u8>>,
    /// What its deliveries are signed with, sealed; null while nothing was ever sent to it.
    pub signing_key: Option<Vec<u8>>,
    /// What signs beside that key until `former_until`, sealed; null while there is no such key.
    pub former_key: Option<Vec<u8>>,
    /// Until when it does, in unix milliseconds; null with it.
    pub former_until: Option<i64>,
    /// Format, order and limits, as JSON.
    pub delivery: String,
    /// Why it is not served; null while it is.
    pub disabled: Option<String>,
    /// Since when it has this address, in unix milliseconds; it rises with each change of it.
    pub since: i64,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
