//! Watches as their apps see and change them.

use async_trait::async_trait;
use tidings_entity::id::{AppId, CursorId, ObjectId, WatchId};

use crate::{
    ports::{Head, NewWatch, PinnedTrees, RefListing, StoreError, Watch, WatchPatch},
    round::TreeEnd,
    secret::Secret,
    time::Timestamp,
};

/// What is kept of watches, and what an app may ask of them.
#[async_trait]
pub trait WatchStore: Send + Sync + 'static {
    /// Registers a watch: finds or makes repository, credential and source, writes the heads of
    /// the proof, makes view, watch and cursor, in one transaction. The same app, repository and
    /// selector again replaces settings and asks for a resync under the same id.
    async fn register_watch(&self, watch: &NewWatch) -> Result<Watch, StoreError>;
    /// The watches of an app, oldest first, after `after`, at most `limit`.
    async fn watches(
        &self,
        app: &AppId,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError>;
    /// One watch of an app; foreign ids are [`StoreError::NotFound`] like missing ones.
    async fn watch(&self, app: &AppId, id: &WatchId) -> Result<Watch, StoreError>;
    /// The trees of a watch that mirrors keep; foreign ids are [`StoreError::NotFound`] as well.
    async fn pinned_trees(&self, app: &AppId, id: &WatchId) -> Result<PinnedTrees, StoreError>;
    /// Changes settings.
    async fn patch_watch(&self, app: &AppId, id: &WatchId, patch: &WatchPatch) -> Result<Watch, StoreError>;
    /// Replaces the credential (access proved by `listing`): finds or makes the source, writes its
    /// heads, re-points the watch, in one transaction; a source without watches goes.
    async fn replace_credential(
        &self,
        app: &AppId,
        id: &WatchId,
        credential: Option<&Secret>,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Watch, StoreError>;
    /// Asks for a resync of every cursor of a watch: ends open rounds (their trees become bases of
    /// the resync) and unblocks.
    async fn request_resync(&self, app: &AppId, id: &WatchId, complete: bool) -> Result<(), StoreError>;
    /// The same for one cursor, by the system itself (digest differs, old rules, after a restore).
    async fn request_cursor_resync(
        &self,
        cursor: &CursorId,
        complete: bool,
        reason: &str,
    ) -> Result<(), StoreError>;
    /// Unwatches: the rows of the watch go; a source or repository without watches goes too. Whether a
    /// round of it was open: then a lane of it may run, here or on another replica.
    async fn unwatch(&self, app: &AppId, id: &WatchId) -> Result<bool, StoreError>;
    /// Asks that the head of a cursor of this watch be given up by hand; without `cursor`, of the
    /// one that has an open round. A head that is not `expected` any more, where that is given, and
    /// a watch of which nothing is being delivered, are a [`StoreError::Conflict`].
    async fn request_skip(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        expected: Option<(i64, u64)>,
    ) -> Result<Head, StoreError>;
    /// Where a watch held this commit: its cursor (the one named, where `cursor` is given), and the
    /// tree under the view it was held with last. A commit that it never held, and one that several
    /// cursors held while none is named, are a [`StoreError::Conflict`].
    async fn was_held(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        commit: ObjectId,
    ) -> Result<(CursorId, TreeEnd), StoreError>;
    /// Asks that what came between a tree that [`WatchStore::was_held`] and what is held now be delivered
    /// once more, as the next round; the last word counts. A resync that is to come takes it in: that
    /// tree is one of its bases. Where nothing is held it is a [`StoreError::Conflict`].
    async fn request_replay(&self, cursor: &CursorId, from: &TreeEnd) -> Result<(), StoreError>;
}
