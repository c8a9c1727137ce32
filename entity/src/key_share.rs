//! A key of the keyring on its way to all replicas: its state, and the sealed key itself.

use sea_orm::entity::prelude::*;

use crate::kind::KeyState;

/// One row of `key_share`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "key_share")]
pub struct Model {
    /// The id of the key, eight hexadecimal digits.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Rises with each key; the newest active key seals.
    pub number: i64,
    /// The state of the key among the replicas.
    pub state: KeyState,
    /// The key, sealed with the previous key; null once every replica has it.
    pub sealed: Option<Vec<u8>>,
    /// When this row was created, in unix milliseconds by the clock of the database.
    pub offered_at: i64,
    /// When the key became the key that seals, by the same clock.
    pub active_at: Option<i64>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
