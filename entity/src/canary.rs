//! One sealed known text, so that a start with the wrong keyring is refused, and the identity of the
//! database.

use sea_orm::entity::prelude::*;

/// One row of `canary`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "canary")]
pub struct Model {
    /// Always 1: the table has one row.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// The known text, sealed with a key of the keyring; a start that cannot open it is refused.
    pub sealed: Vec<u8>,
    /// The identity of the database, which its first start draws.
    pub database_id: Option<String>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
