//! The audit log: acts, their actors and the addresses of clients. It holds only ids and addresses, so that
//! erasing an app leaves none of its data. Each row holds the hash of the row before it, made with a key that
//! is not in the database: changed, added or removed rows are detected.

use sea_orm::entity::prelude::*;

use crate::id::Sha256Hash;

/// One row of `audit`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit")]
pub struct Model {
    /// The place of the row in the log; rises by one.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    /// When the act was done, in Unix milliseconds.
    pub at: i64,
    /// Who did it: `admin`, `tok_...`, `jwt:...`, `anyone` or `system`.
    pub actor: String,
    /// The id of the app that acted or was acted on; empty where there is none.
    pub app: String,
    /// The act, as a stable word.
    pub action: String,
    /// The id of the thing that was acted on; empty where there is none.
    pub target: String,
    /// `ok`, or the stable code of the refusal.
    pub result: String,
    /// The id of the API request; empty where the act had none.
    pub request: String,
    /// The hash of the row before.
    pub previous: Sha256Hash,
    /// The hash of this row.
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
