//! Who did what. Holds ids only, so that erasing an app leaves nothing of it.

use sea_orm::entity::prelude::*;

/// One row of `audit`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit")]
pub struct Model {
    /// Rising.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// Unix milliseconds.
    pub at: i64,
    /// The id of the app, or `admin` or `system`.
    pub actor: String,
    /// The verb.
    pub action: String,
    /// The id of what it was done to.
    pub target: String,
    /// `ok` or a stable code.
    pub result: String,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
