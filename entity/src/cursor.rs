//! The progress of an app on one branch of a watch: the held commit and the open round.

use sea_orm::entity::prelude::*;

use crate::{
    id::{CursorId, ObjectId, ViewId, WatchId},
    kind::CursorState,
};

/// One row of `cursor`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "cursor")]
pub struct Model {
    /// Id of the cursor, `cur_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CursorId,
    /// The watch whose branch the cursor follows.
    pub watch_id: WatchId,
    /// Empty for a single branch, the full ref name for a pattern; unique per watch.
    pub slot: String,
    /// The full ref name; empty until a listing has named HEAD.
    pub branch: String,
    /// The commit that the app held last; null: the app holds nothing.
    pub held: Option<ObjectId>,
    /// The view that `held` was delivered under; null exactly where `held` is.
    pub held_view: Option<ViewId>,
    /// The number of the cursor's last round; 0 before the first.
    pub last_round: i64,
    /// The number of the open round; null while no round is open.
    pub open_round: Option<i64>,
    /// Whether rounds are delivered, or why not: blocked, branch missing, empty repository.
    pub state: CursorState,
    /// Why the cursor is not active, or why a resync was asked for.
    pub reason: Option<String>,
    /// Counted parks in a row, over rounds.
    pub streak: i32,
    /// The round of the first of these parks; null where there is none.
    pub streak_round: Option<i64>,
    /// The position of the first of these parks; null exactly where `streak_round` is.
    pub streak_position: Option<i64>,
    /// Changes that the app refused before it acknowledged its first one; without meaning after that.
    pub refused: i32,
    /// Whether the app ever acknowledged something of it.
    pub acknowledged: bool,
    /// Whether the last round of the cursor was a redrive.
    pub last_was_redrive: bool,
    /// The guard against mass deletes has stopped the next round once; that round may pass now.
    pub guard_waived: bool,
    /// A resync was requested; `true`: a complete one.
    pub resync: Option<bool>,
    /// The commit from which a replay was requested: changes after it are sent again.
    pub replay: Option<ObjectId>,
    /// The view that `replay` was held under; null exactly where `replay` is.
    pub replay_view: Option<ViewId>,
    /// Whether a complete resync could not name the files to drop, and the app was not told.
    pub deletes_unknown: bool,
    /// The open round whose change at `skip_position` is to be skipped; ignored once the round or its
    /// position has moved on.
    pub skip_round: Option<i64>,
    /// The position of the change to be skipped, in `skip_round`.
    pub skip_position: Option<i64>,
    /// The redrive round that is to end early; ignored once that round has ended.
    pub cancel_round: Option<i64>,
    /// When the head of the branch moved away from `held`, in Unix milliseconds; null while they are equal.
    pub behind_since: Option<i64>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
