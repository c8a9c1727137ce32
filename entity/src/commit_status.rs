//! The state of a watch at one commit, and the status that the Git host was told.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, CursorId, ObjectId, RepositoryId, WatchId},
    kind::{StatusHost, StatusWord},
};

/// One row of `commit_status`. It references no other row, because a host is told the last status of a watch
/// after the rows of the watch are removed.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "commit_status")]
pub struct Model {
    /// The watch whose cursor the status shows.
    #[sea_orm(primary_key, auto_increment = false)]
    pub watch_id: WatchId,
    /// The commit that the status belongs to.
    #[sea_orm(primary_key, auto_increment = false)]
    pub commit_id: ObjectId,
    /// The app of the watch.
    pub app_id: AppId,
    /// The repository of the watch.
    pub repository_id: RepositoryId,
    /// The cursor whose state the row shows.
    pub cursor_id: CursorId,
    /// The kind of Git host whose API takes the status.
    pub kind: StatusHost,
    /// The host of the repository, without its port.
    pub host: String,
    /// The address at which the repository is asked.
    pub url: String,
    /// The name (context) of the status at the host.
    pub context: String,
    /// The state to show at the host.
    pub wanted: StatusWord,
    /// The description beside the state.
    pub description: String,
    /// The state that the host shows; null: none, or it is unknown.
    pub told: Option<StatusWord>,
    /// The description that the host shows beside `told`; null: it is unknown.
    pub told_line: Option<String>,
    /// Until when an earlier request that got no answer may still be under way at the host, in unix
    /// milliseconds; null: no such request.
    pub doubt_until: Option<i64>,
    /// Requests in a row without success.
    pub tries: i64,
    /// Requests that the host may have taken.
    pub count: i64,
    /// When the host is told next, in unix milliseconds; during a request, when the request counts as lost;
    /// null: there is nothing to tell.
    pub next_at: Option<i64>,
    /// Whether a request is under way, or was when a process died.
    pub is_claimed: bool,
    /// The reason why the host is not told of this commit any more; null: it is told.
    pub ended: Option<String>,
    /// Of a watch that is gone: the credential, sealed.
    pub secret: Option<Vec<u8>>,
    /// For a removed watch: until when the host is told, in unix milliseconds.
    pub until_at: Option<i64>,
    /// When the status was last changed or checked, in unix milliseconds.
    pub updated_at: i64,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
