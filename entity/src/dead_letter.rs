//! A change that was given up, with what the app had of its path before. A cursor has at most one
//! open letter per path.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, RedriveId, WatchId},
    kind::{LetterStatus, Operation, ParkReason},
};

/// One row of `dead_letter`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "dead_letter")]
pub struct Model {
    /// Its id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: DeadLetterId,
    /// The app.
    pub app_id: AppId,
    /// The watch.
    pub watch_id: WatchId,
    /// The cursor.
    pub cursor_id: CursorId,
    /// The round it was given up in.
    pub round: i64,
    /// Its place in that round.
    pub position: i64,
    /// The raw path bytes.
    pub path: Vec<u8>,
    /// What should have happened.
    pub operation: Operation,
    /// The delivery that was given up.
    pub delivery_id: String,
    /// Why.
    pub reason: ParkReason,
    /// Where it stands.
    pub status: LetterStatus,
    /// The Git mode of what the app had before the first change given up for the path; null: nothing.
    pub before_mode: Option<i32>,
    /// The blob of what the app had then; null exactly where `before_mode` is.
    pub before_blob: Option<ObjectId>,
    /// The last status code; null when there was no answer.
    pub http_status: Option<i32>,
    /// The last answer's excerpt.
    pub excerpt: String,
    /// Whether it is one of the parks in a row that block a cursor.
    pub counted: bool,
    /// Whether the path was sent again by itself, without anybody's wish, since its first letter.
    pub self_redriven: bool,
    /// The last round that took it up.
    pub bound_round: Option<i64>,
    /// The redrive that it was asked for in last; null where none was, or it was taken back.
    pub redrive_id: Option<RedriveId>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// When it was redriven or superseded, in unix milliseconds.
    pub closed_at: Option<i64>,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
