//! A credential of one app towards a Git host, sealed.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, CredentialId};

/// One row of `credential`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credential")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CredentialId,
    /// The app it belongs to; never shared.
    pub app_id: AppId,
    /// Keyed fingerprint of the secret, unique per app, so that the same secret is found again.
    pub fingerprint: String,
    /// The sealed secret.
    pub secret: Vec<u8>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
