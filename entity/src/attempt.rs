//! One failed attempt of a delivery (or every attempt, if the whole history is kept).

use sea_orm::entity::prelude::*;

use crate::kind::OwnerKind;

/// One row of `attempt`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "attempt")]
pub struct Model {
    /// Whether the attempt belongs to a cursor or to a subscription.
    #[sea_orm(primary_key, auto_increment = false)]
    pub owner_kind: OwnerKind,
    /// Id of the cursor or subscription that the attempt belongs to.
    #[sea_orm(primary_key, auto_increment = false)]
    pub owner_id: String,
    /// The number of the round; for a subscription the moment of the entry, in Unix milliseconds.
    #[sea_orm(primary_key, auto_increment = false)]
    pub round: i64,
    /// The position of the change in its round, from 0; for a subscription the number of the entry.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    /// The number of the attempt among those of this change or entry, from 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i32,
    /// The delivery id that the attempt was sent with (`webhook-id`).
    pub delivery_id: String,
    /// The status code of the answer; null when there was no answer.
    pub status: Option<i32>,
    /// Whether the failure concerns this one change, and not the endpoint as a whole.
    pub item_failure: bool,
    /// The answer's body or the reason that there was none, at most 1,024 characters.
    pub excerpt: String,
    /// The answer's headers as a JSON list of pairs; null when there was no answer, or it was not kept.
    pub answer_headers: Option<String>,
    /// The beginning of the answer's body; null with the headers.
    pub answer_body: Option<String>,
    /// How long the attempt took, in milliseconds.
    pub took_ms: i64,
    /// When the attempt ended, in Unix milliseconds.
    pub ended_at: i64,
    /// When the next attempt was due, in Unix milliseconds; null: no attempt followed, or the row is older
    /// than this column.
    pub next_at: Option<i64>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
