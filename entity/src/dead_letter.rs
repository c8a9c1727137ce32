//! A parked change, with the file that the app had at its path before. A cursor has at most one open letter
//! per path.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, RedriveId, TaskId, WatchId},
    kind::{LetterStatus, Operation, ParkReason},
};

/// One row of `dead_letter`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "dead_letter")]
pub struct Model {
    /// Id of the dead letter, `dead_` and a ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: DeadLetterId,
    /// The app that did not get the change.
    pub app_id: AppId,
    /// The watch of the change.
    pub watch_id: WatchId,
    /// The cursor, that is the branch, of the change.
    pub cursor_id: CursorId,
    /// The number of the round in which the change was parked.
    pub round: i64,
    /// The position of the change in that round.
    pub position: i64,
    /// The path of the file as the raw bytes of Git.
    pub path: Vec<u8>,
    /// Whether the file was created, updated or deleted.
    pub operation: Operation,
    /// The id of the delivery that was parked.
    pub delivery_id: String,
    /// Why the change was parked.
    pub reason: ParkReason,
    /// Whether the letter is open, to be redriven, redriven, superseded or dismissed.
    pub status: LetterStatus,
    /// The Git mode of the file that the app had before the first parked change of the path; null: it had
    /// none.
    pub before_mode: Option<i32>,
    /// The blob of the file that the app had then; null exactly where `before_mode` is.
    pub before_blob: Option<ObjectId>,
    /// The status code of the last answer; null when there was no answer.
    pub http_status: Option<i32>,
    /// The last answer's body or the reason that there was none, at most 1,024 characters.
    pub excerpt: String,
    /// Whether the park counts among the parks in a row that block a cursor.
    pub counted: bool,
    /// Whether Tidings has redriven the path once without being asked, since the first letter of the path.
    pub self_redriven: bool,
    /// The number of the last round that the letter was bound to, which sends the path again; null: none.
    pub bound_round: Option<i64>,
    /// The redrive that this letter was last selected for; null: none, or the selection was cancelled.
    pub redrive_id: Option<RedriveId>,
    /// The task that the change was; null: the watch has another sink.
    pub task_id: Option<TaskId>,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
    /// When the letter was redriven or superseded, in Unix milliseconds; null while it was not.
    pub closed_at: Option<i64>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
