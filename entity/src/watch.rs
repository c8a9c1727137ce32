//! An app's interest in a repository.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, RepositoryId, SinkId, SourceId, ViewId, WatchId},
    kind::{BranchGone, HistoryMode, SelectorKind, StatusHost, WatchState},
};

/// One row of `watch`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "watch")]
pub struct Model {
    /// Id of the watch, `repo_` and a ULID; `repository_id` in the API.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: WatchId,
    /// The app that gets the changes.
    pub app_id: AppId,
    /// The repository that is watched.
    pub repository_id: RepositoryId,
    /// The source through which the repository is read.
    pub source_id: SourceId,
    /// The address as the app first gave it.
    pub shown_url: String,
    /// The owner shown in bodies.
    pub owner: String,
    /// The name shown in bodies.
    pub name: String,
    /// Whether an anonymous `ls-refs` was refused.
    pub is_private: bool,
    /// Whether the value names the default branch, a branch, a ref, or a pattern; unique with the value and
    /// the alias per app and repository.
    pub selector_kind: SelectorKind,
    /// Short branch name or glob; empty for the default branch.
    pub selector_value: String,
    /// The view (path filter and content rules) for the next round.
    pub view_id: ViewId,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// The setting for a branch that vanished; always `keep` for a single branch.
    pub on_branch_gone: BranchGone,
    /// Whether changes of the watch are delivered.
    pub state: WatchState,
    /// Why the watch is paused; null while it is active.
    pub reason: Option<String>,
    /// No delivery before this moment, in unix milliseconds.
    pub deliver_after: i64,
    /// When the row was inserted, in Unix milliseconds.
    pub created_at: i64,
    /// Distinguishes the watch from others of the same refs; empty where there is only one.
    pub alias: String,
    /// The sink of this watch alone; null: the sink of its app.
    pub sink_id: Option<SinkId>,
    /// The kind of Git host whose API takes the statuses of its commits; null: no statuses.
    pub status_host: Option<StatusHost>,
    /// The name (context) of its statuses at the host; it never changes once set.
    pub status_context: Option<String>,
}

/// No relations: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
