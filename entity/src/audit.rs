//! The audit log: acts, their actors and the addresses of clients. It holds only ids and addresses, so that
//! erasing an app leaves none of its data. Each row holds the hash of the row before it, made with a key that
//! is not in the database: changed, added or removed rows are detected.

use sea_orm::entity::prelude::*;

use crate::id::Sha256Hash;

/// One row of `audit`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit")]
pub struct Model {
    /// Number of the row in the log. Numbers rise by one.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    /// When the action happened, in Unix milliseconds.
    pub at: i64,
    /// Who acted: `admin`, `tok_...`, `jwt:...`, `anyone` or `system`.
    pub actor: String,
    /// Id of the app that acted, or that the action changed. Empty: no app.
    pub app: String,
    /// The action, as a stable word.
    pub action: String,
    /// Id of the object that the action changed. Empty: none.
    pub target: String,
    /// `ok`, or the stable code of the refusal.
    pub result: String,
    /// Id of the API request. Empty: the action had none.
    pub request: String,
    /// Hash of the previous row.
    pub previous: Sha256Hash,
    /// Hash of this row.
    pub hash: Sha256Hash,
    /// The key of the keyring for the hash; null in rows from before hashes had keys.
    pub key_id: Option<String>,
    /// The address of the request; null where there was no request, and in rows from before addresses were
    /// stored.
    pub address: Option<String>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
