//! One failed try of a delivery (or any, where the whole history is kept).

use sea_orm::entity::prelude::*;

use crate::kind::OwnerKind;

/// One row of `attempt`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "attempt")]
pub struct Model {
    /// Whose attempt.
    #[sea_orm(primary_key, auto_increment = false)]
    pub owner_kind: OwnerKind,
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub owner_id: String,
    /// The round.
    #[sea_orm(primary_key, auto_increment = false)]
    pub round: i64,
    /// The change's place.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    /// Which try, from 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i32,
    /// The delivery.
    pub delivery_id: String,
    /// The status code; null when there was no answer.
    pub status: Option<i32>,
    /// Whether it was the item's own fault.
    pub item_failure: bool,
    /// The answer's excerpt.
    pub excerpt: String,
    /// The answer's headers as a JSON list of pairs; null when there was no answer, or it was not kept.
    pub answer_headers: Option<String>,
    /// The beginning of the answer's body; null with the headers.
    pub answer_body: Option<String>,
    /// Milliseconds.
    pub took_ms: i64,
    /// Unix milliseconds.
    pub ended_at: i64,
    /// When the change was to be tried again, in unix milliseconds; null: not at all, or a row of before
    /// this was kept.
    pub next_at: Option<i64>,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
