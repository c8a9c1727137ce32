//! A registered receiver.

use sea_orm::entity::prelude::*;

use crate::id::AppId;

/// One row of `app`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "app")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AppId,
    /// Its name.
    pub name: String,
    /// Contact address.
    pub email: String,
    /// Where it receives; null for pull.
    pub base_url: Option<String>,
    /// A web page about it.
    pub website: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// The public part of the token that it was registered with, unique; its tokens are rows of
    /// `access_token`.
    pub token_public_id: String,
    /// How it wants to be served, as JSON.
    pub delivery: String,
    /// What requests to its endpoint carry, sealed; null for nothing.
    pub endpoint_access: Option<Vec<u8>>,
    /// Why it is not served; null while it is.
    pub disabled: Option<String>,
    /// Since when it has this endpoint, in unix milliseconds; it rises with each change of it.
    pub endpoint_since: i64,
    /// Until when sends at its rate are promised to a process; unix milliseconds.
    pub permits_until: Option<i64>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
