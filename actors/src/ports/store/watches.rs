//! Watches, and the changes that their apps make to them.

use async_trait::async_trait;
use tidings_entity::id::{AppId, CursorId, ObjectId, WatchId};

use crate::{
    model::round::TreeEnd,
    model::secret::Secret,
    ports::{Head, NewWatch, PinnedTrees, RefListing, StoreError, Watch, WatchPatch},
    time::Timestamp,
};

/// Watches, and the requests of apps about them.
#[async_trait]
pub trait WatchStore: Send + Sync + 'static {
    /// Registers a watch in one transaction: finds or creates repository, credential and source, writes the
    /// heads of the proof, and creates view, watch and cursor. A second registration with the same app,
    /// repository, selector and alias replaces the settings, serves the watch again and requests a resync,
    /// under the same id; without [`NewWatch::may_replace`] it changes nothing: [`StoreError::Exists`].
    async fn register_watch(&self, watch: &NewWatch) -> Result<Watch, StoreError>;
    /// The watches of an app, oldest first, after `after`, at most `limit`.
    async fn watches(
        &self,
        app: &AppId,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError>;
    /// One watch of an app. An id of another app is [`StoreError::NotFound`], like an unknown one.
    async fn watch(&self, app: &AppId, id: &WatchId) -> Result<Watch, StoreError>;
    /// The trees of a watch that mirrors keep; foreign ids are [`StoreError::NotFound`] as well.
    async fn pinned_trees(&self, app: &AppId, id: &WatchId) -> Result<PinnedTrees, StoreError>;
    /// Changes settings of a watch. An id of another app is [`StoreError::NotFound`], like an unknown one.
    async fn patch_watch(&self, app: &AppId, id: &WatchId, patch: &WatchPatch) -> Result<Watch, StoreError>;
    /// Replaces the credential (`listing` proved access) in one transaction: finds or creates the source,
    /// writes its heads and moves the watch to it. A source without watches is removed.
    async fn replace_credential(
        &self,
        app: &AppId,
        id: &WatchId,
        credential: Option<&Secret>,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Watch, StoreError>;
    /// Asks for a resync of every cursor of a watch: ends open rounds (their trees become bases of
    /// the resync) and unblocks. A paused watch stays paused.
    async fn request_resync(&self, app: &AppId, id: &WatchId, complete: bool) -> Result<(), StoreError>;
    /// Requests a resync of one cursor, on behalf of Tidings (the digest differs, old rules, after a
    /// restore).
    async fn request_cursor_resync(
        &self,
        cursor: &CursorId,
        complete: bool,
        reason: &str,
    ) -> Result<(), StoreError>;
    /// Removes a watch with its rows; a source or repository without watches is removed too. Returns whether
    /// a round of the watch was open: then a lane of it may be running, here or on another replica.
    async fn unwatch(&self, app: &AppId, id: &WatchId) -> Result<bool, StoreError>;
    /// Requests to skip the change at the head of a cursor of this watch; without `cursor`, of the cursor
    /// with an open round. A [`StoreError::Conflict`] if the head is not `expected`, where that is given, or
    /// if no round of the watch is open. If the change is a task already, nothing is noted: the caller
    /// cancels that task.
    async fn request_skip(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        expected: Option<(i64, u64)>,
    ) -> Result<Head, StoreError>;
    /// The cursor under which a watch once held this commit (the cursor named, if given), and the tree with
    /// the view under which it was last held. A commit that was never held, or that several cursors held
    /// while none is named, is a [`StoreError::Conflict`].
    async fn was_held(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        commit: ObjectId,
    ) -> Result<(CursorId, TreeEnd), StoreError>;
    /// Requests a replay: the changes between a tree that [`WatchStore::was_held`] returned and the held
    /// commit are sent again, as the next round; the last request counts. A resync that is due includes the
    /// replay: that tree becomes one of its bases. Without a held commit the result is a
    /// [`StoreError::Conflict`]. If the cursor comes to hold nothing before the replay begins, the replay
    /// leads to nothing too.
    async fn request_replay(&self, cursor: &CursorId, from: &TreeEnd) -> Result<(), StoreError>;
}
