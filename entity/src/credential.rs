//! A credential of one app towards a Git host, sealed.

use sea_orm::entity::prelude::*;

use crate::id::{AppId, CredentialId};

/// One row of `credential`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credential")]
pub struct Model {
    /// Id of the credential, `cred_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CredentialId,
    /// The app that the credential belongs to; credentials are never shared.
    pub app_id: AppId,
    /// Keyed fingerprint of the secret, unique within the app: the same secret given again finds this row.
    pub fingerprint: String,
    /// The token, password or key for the Git host, sealed with a key of the keyring.
    pub secret: Vec<u8>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
