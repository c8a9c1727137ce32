//! Where one watched branch of a watch stands: what the app holds, and the round under way.

use sea_orm::entity::prelude::*;

use crate::{
    id::{CursorId, ObjectId, ViewId, WatchId},
    kind::CursorState,
};

/// One row of `cursor`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "cursor")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CursorId,
    /// The watch.
    pub watch_id: WatchId,
    /// Empty for a single branch, the full ref name for a pattern; unique per watch.
    pub slot: String,
    /// The full ref name; empty until HEAD named one.
    pub branch: String,
    /// The commit the app held last; null for nothing.
    pub held: Option<ObjectId>,
    /// The view it was delivered under; null exactly where `held` is.
    pub held_view: Option<ViewId>,
    /// The number of its last round; 0 before the first.
    pub last_round: i64,
    /// The number of its open round.
    pub open_round: Option<i64>,
    /// Whether it moves.
    pub state: CursorState,
    /// Why not, where it does not; or why a resync was asked for.
    pub reason: Option<String>,
    /// Counted parks in a row, over rounds.
    pub streak: i32,
    /// The round of the first of them; null where there is none.
    pub streak_round: Option<i64>,
    /// Its position there; null exactly where `streak_round` is.
    pub streak_position: Option<i64>,
    /// Changes that the app refused, while it never acknowledged one; otherwise of no meaning.
    pub refused: i32,
    /// Whether the app ever acknowledged something of it.
    pub acknowledged: bool,
    /// Whether its last round was a redrive.
    pub last_was_redrive: bool,
    /// The guard against mass deletes stopped its next round once; that one may now pass.
    pub guard_waived: bool,
    /// A resync was asked for; true: as a complete one.
    pub resync: Option<bool>,
    /// The commit to go back to: what came after it is to be delivered once more.
    pub replay: Option<ObjectId>,
    /// Under which view it was held; null exactly where `replay` is.
    pub replay_view: Option<ViewId>,
    /// A complete resync could not name what the app must drop, and nobody told the app.
    pub deletes_unknown: bool,
    /// The round whose change at `skip_position` is to be given up by hand; moot once the round or
    /// its position moved on.
    pub skip_round: Option<i64>,
    /// The place of that change.
    pub skip_position: Option<i64>,
    /// The redrive that is to end early; moot once it ended.
    pub cancel_round: Option<i64>,
    /// When its head moved away from `held`, in unix milliseconds.
    pub behind_since: Option<i64>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
