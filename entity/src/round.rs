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
    /// The cursor.
    #[sea_orm(primary_key, auto_increment = false)]
    pub cursor_id: CursorId,
    /// Strictly rising per cursor.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    /// Why it was begun.
    pub kind: RoundKind,
    /// What the app had; null for nothing.
    pub held: Option<ObjectId>,
    /// Under which view.
    pub held_view: Option<ViewId>,
    /// What it is brought to; null for nothing.
    pub target: Option<ObjectId>,
    /// Under which view.
    pub target_view: Option<ViewId>,
    /// The number of the order, encoding and body format.
    pub rules: i32,
    /// Number of deletes.
    pub deletes: i64,
    /// Number of creates.
    pub creates: i64,
    /// Number of updates.
    pub updates: i64,
    /// Number of changes: the sum of the three.
    pub total: i64,
    /// Digest over the list.
    pub digest: Sha256Hash,
    /// The full ref name at its beginning.
    pub branch: String,
    /// The address shown in its bodies.
    pub url: String,
    /// What its bodies look like.
    pub format: PayloadFormat,
    /// The history before the target was rewritten.
    pub history_rewritten: bool,
    /// Commits between held and target were skipped.
    pub skipped_commits: bool,
    /// The app must drop what is not named.
    pub complete: bool,
    /// The app was told that it begins; only resyncs are announced.
    pub announced: bool,
    /// The length of the settled prefix.
    pub position: i64,
    /// The `timestamp` of its bodies, in unix milliseconds.
    pub began_at: i64,
    /// When it was finished or ended early, in unix milliseconds; null while open.
    pub ended_at: Option<i64>,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
