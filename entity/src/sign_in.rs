//! A sign-in that is under way at an issuer.

use sea_orm::entity::prelude::*;

use crate::id::Sha256Hash;

/// One row of `sign_in`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sign_in")]
pub struct Model {
    /// SHA-256 of the state that the issuer hands back.
    #[sea_orm(primary_key, auto_increment = false)]
    pub state: Sha256Hash,
    /// The name of the issuer.
    pub issuer: String,
    /// When the sign-in expires and the row may be deleted, in Unix milliseconds.
    pub expires_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
