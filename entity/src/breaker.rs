//! A breaker that has failures. A breaker without failures has no row.

use sea_orm::entity::prelude::*;

use crate::kind::BreakerKind;

/// One row of `breaker`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "breaker")]
pub struct Model {
    /// Whether the breaker guards a source or an endpoint.
    #[sea_orm(primary_key, auto_increment = false)]
    pub kind: BreakerKind,
    /// Id of the source, the app or the sink that the breaker guards.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Number of failures in a row.
    pub failures: i32,
    /// When the breaker opened, in unix milliseconds; null while it is closed.
    pub opened_at: Option<i64>,
    /// When the next probe is due, in unix milliseconds.
    pub probe_at: Option<i64>,
    /// The public text of the last failure.
    pub last_error: String,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
