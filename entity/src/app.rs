//! An app: a registered receiver, with its endpoint and delivery settings.

use sea_orm::entity::prelude::*;

use crate::id::AppId;

/// One row of `app`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "app")]
pub struct Model {
    /// Id of the app, `app_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AppId,
    /// The name of the app as people see it.
    pub name: String,
    /// The email address of a person to contact about the app.
    pub email: String,
    /// Whether the app was registered where anyone may register: its `email` permits no mails.
    pub is_from_anyone: bool,
    /// The address that changes are sent to; null where the app pulls.
    pub base_url: Option<String>,
    /// A web page about the app; null where none was given.
    pub website: Option<String>,
    /// What the app is for, in the words of its owner; null where none was given.
    pub description: Option<String>,
    /// The public part of the token that it was registered with, unique; its tokens are rows of
    /// `access_token`.
    pub token_public_id: String,
    /// How the app wants its deliveries (format, order, limits), as JSON.
    pub delivery: String,
    /// Headers, credentials and certificates for requests to the endpoint, sealed; null where there are none.
    pub endpoint_access: Option<Vec<u8>>,
    /// Why nothing is delivered to the app; null while it is served.
    pub disabled: Option<String>,
    /// When the app got its present endpoint, in Unix milliseconds; rises with each change of the endpoint.
    pub endpoint_since: i64,
    /// The end of the permits for requests that a process has reserved at the app's rate, in Unix
    /// milliseconds.
    pub permits_until: Option<i64>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
