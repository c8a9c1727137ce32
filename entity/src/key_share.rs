//! A key of the keyring among replicas: how far it is, and what hands it on.

use sea_orm::entity::prelude::*;

use crate::kind::KeyState;

/// One row of `key_share`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "key_share")]
pub struct Model {
    /// The id of the key, eight hexadecimal digits.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Later keys have greater ones: the last one that is active seals.
    pub number: i64,
    /// How far it is.
    pub state: KeyState,
    /// The key, sealed with the one that sealed before; `None` once nobody needs it from here.
    pub sealed: Option<Vec<u8>>,
    /// When this row was made, in unix milliseconds by the clock of the database.
    pub offered_at: i64,
    /// When it became the one that seals, likewise.
    pub active_at: Option<i64>,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
