//! A signing key of an app, sealed. The highest ordinal signs first.

use sea_orm::entity::prelude::*;

use crate::id::AppId;

/// One row of `app_key`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "app_key")]
pub struct Model {
    /// The app whose deliveries the key signs.
    #[sea_orm(primary_key, auto_increment = false)]
    pub app_id: AppId,
    /// The number of the key within the app; rises with each rotation.
    #[sea_orm(primary_key, auto_increment = false)]
    pub ordinal: i64,
    /// The signing key, sealed with a key of the keyring.
    pub secret: Vec<u8>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
    /// When a rotated key stops signing, in unix milliseconds; null for the current one.
    pub expires_at: Option<i64>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
