//! An app's interest in a repository.

use sea_orm::entity::prelude::*;

use crate::{
    id::{AppId, RepositoryId, SinkId, SourceId, ViewId, WatchId},
    kind::{BranchGone, HistoryMode, SelectorKind, WatchState},
};

/// One row of `watch`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "watch")]
pub struct Model {
    /// Its id; `repository_id` on the wire.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: WatchId,
    /// The app.
    pub app_id: AppId,
    /// The repository.
    pub repository_id: RepositoryId,
    /// The source it sees it through.
    pub source_id: SourceId,
    /// The address as the app first gave it.
    pub shown_url: String,
    /// The owner shown in bodies.
    pub owner: String,
    /// The name shown in bodies.
    pub name: String,
    /// Whether an anonymous `ls-refs` was refused.
    pub is_private: bool,
    /// Which refs; unique with the value and the alias per app and repository.
    pub selector_kind: SelectorKind,
    /// Short branch name or glob; empty for the default branch.
    pub selector_value: String,
    /// Which files, from the next round on.
    pub view_id: ViewId,
    /// Net changes or every commit.
    pub mode: HistoryMode,
    /// What a vanished branch means; always `keep` for a single one.
    pub on_branch_gone: BranchGone,
    /// Whether it is served.
    pub state: WatchState,
    /// Why not, where it is not.
    pub reason: Option<String>,
    /// No delivery before this moment, in unix milliseconds.
    pub deliver_after: i64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Tells it from other watches of the same refs; empty where there is one only.
    pub alias: String,
    /// The sink that it has for itself; null: that of its app.
    pub sink_id: Option<SinkId>,
}

/// None: joins are written out where they are used.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
