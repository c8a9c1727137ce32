//! A change that was given up, with what the app has of its path. A cursor has at most one
//! open letter per path.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, CursorId, DeadLetterId, ObjectId, RedriveId, WatchId},
    kind::{LetterStateKind, LetterStatus, Operation, ParkReason},
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
    /// What the app has of the path.
    pub state_kind: LetterStateKind,
    /// The Git mode of what it has, or had before.
    pub state_mode: Option<i32>,
    /// The blob of what it has, or had before.
    pub state_blob: Option<ObjectId>,
    /// The last status code; null when there was no answer.
    pub http_status: Option<i32>,
    /// The last answer's excerpt.
    pub excerpt: String,
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
