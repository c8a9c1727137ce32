//! Who did what, and from where. Holds ids and addresses of clients only, so that erasing an app leaves
//! nothing of its data. Each row holds the hash of the row before it, made with a key that is not in the
//! database: no row can be changed, put in or taken out unseen.

use sea_orm::entity::prelude::*;

use crate::id::Sha256Hash;

/// One row of `audit`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit")]
pub struct Model {
    /// Rising by one.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    /// Unix milliseconds.
    pub at: i64,
    /// Who: `admin`, `tok_...`, `jwt:...`, `anyone` or `system`.
    pub actor: String,
    /// The id of the app that it was done by or to; empty where there is none.
    pub app: String,
    /// The verb.
    pub action: String,
    /// The id of what it was done to; empty where there is none.
    pub target: String,
    /// `ok` or a stable code.
    pub result: String,
    /// The id of the request; empty where there was none.
    pub request: String,
    /// The hash of the row before.
    pub previous: Sha256Hash,
    /// The hash of this row.
    pub hash: Sha256Hash,
    /// The key of the keyring that the hash was made with; none in rows from before there was one.
    pub key_id: Option<String>,
    /// The address that the request came from; none where there was no request, and in rows from before it
    /// was written down.
    pub address: Option<String>,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
