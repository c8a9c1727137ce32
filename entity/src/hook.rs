//! A hook of one app: Git hosts send to its address and sign with its secret.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, HookId},
    kind::HookProvider,
};

/// One row of `hook`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "hook")]
pub struct Model {
    /// The id of the hook, which is a part of its address.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: HookId,
    /// The app that the hook belongs to.
    pub app_id: AppId,
    /// Unique among those of the app.
    pub name: String,
    /// The kind of Git host that sends to it.
    pub provider: HookProvider,
    /// The normalised address of the only repository that it may wake; null: all that the app watches.
    pub repository_url: Option<String>,
    /// The secret that Git hosts sign with, sealed.
    pub secret: Vec<u8>,
    /// The previous secret, sealed; accepted until `former_until`.
    pub former_secret: Option<Vec<u8>>,
    /// Until when the former secret is accepted, in Unix milliseconds; null: no longer.
    pub former_until: Option<i64>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
