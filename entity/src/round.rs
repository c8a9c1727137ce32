//! A round as it was begun, and how far it is settled. Only position and end change.

use sea_orm::entity::prelude::*;

use crate::{
    id::{CursorId, ObjectId, Sha256Hash, ViewId},
    kind::{PayloadFormat, RoundKind},
};

/// One row of `round`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "round")]
pub struct Model {
    /// The cursor that the round belongs to.
    #[sea_orm(primary_key, auto_increment = false)]
    pub cursor_id: CursorId,
    /// Strictly rising per cursor.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    /// Why the round was begun.
    pub kind: RoundKind,
    /// The commit that the app held when the round began; null: nothing.
    pub held: Option<ObjectId>,
    /// The view that `held` was delivered under; null exactly where `held` is.
    pub held_view: Option<ViewId>,
    /// The commit that the round brings the app to; null: nothing.
    pub target: Option<ObjectId>,
    /// The view that `target` is delivered under; null exactly where `target` is.
    pub target_view: Option<ViewId>,
    /// The version of the rules for order, encoding and body format that the round was begun with.
    pub rules: i32,
    /// The number of deletes in the round.
    pub deletes: i64,
    /// The number of creates in the round.
    pub creates: i64,
    /// The number of updates in the round.
    pub updates: i64,
    /// Number of changes: the sum of the three.
    pub total: i64,
    /// Digest over the list of changes; a list computed again must have the same digest.
    pub digest: Sha256Hash,
    /// The full name of the ref when the round began.
    pub branch: String,
    /// The address shown in its bodies.
    pub url: String,
    /// The format of its bodies. Changes with the sink that the changes go to.
    pub format: PayloadFormat,
    /// The history before the target was rewritten.
    pub history_rewritten: bool,
    /// Commits between held and target were skipped.
    pub skipped_commits: bool,
    /// The app must drop files that the round does not name.
    pub complete: bool,
    /// Whether the app was told that the round begins; only resyncs are announced.
    pub announced: bool,
    /// The length of the settled prefix.
    pub position: i64,
    /// The `timestamp` of its bodies, in unix milliseconds.
    pub began_at: i64,
    /// When it was finished or ended early, in unix milliseconds; null while open.
    pub ended_at: Option<i64>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
