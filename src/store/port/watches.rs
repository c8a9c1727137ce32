//! Watches, and the changes that their apps make to them.

use async_trait::async_trait;
use tidings_actors::{
    model::round::TreeEnd,
    model::secret::Secret,
    ports::{Head, NewWatch, PinnedTrees, RefListing, StoreError, Watch, WatchPatch, WatchStore},
    time::Timestamp,
};
use tidings_entity::id::{AppId, CursorId, ObjectId, WatchId};

use super::transact;
use crate::{
    SqlStore,
    audit::Pending,
    lanes::replays,
    watching::watches::{self, pinned, registration, resync, skip},
};

#[async_trait]
impl WatchStore for SqlStore {
    async fn register_watch(&self, watch: &NewWatch) -> Result<Watch, StoreError> {
        // A watch that is registered again keeps its id, so the audit entry names that id.
        let (new, pending) = (watch.clone(), Pending::current());
        transact!(self, |transaction, context| {
            let id = registration::register(transaction, context, &new).await?;
            if let Some(pending) = &pending {
                pending.about(id.as_str());
            }
            watches::one(transaction, &new.app, &id).await
        })
    }

    async fn watches(
        &self,
        app: &AppId,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError> {
        let after = after.map_or("", WatchId::as_str);
        let values = vec![app.clone().into(), after.into()];
        watches::list(&self.snapshot().await?, "w.app_id = $1 and w.id > $2", values, limit).await
    }

    async fn watch(&self, app: &AppId, id: &WatchId) -> Result<Watch, StoreError> {
        watches::one(&self.snapshot().await?, app, id).await
    }

    async fn pinned_trees(&self, app: &AppId, id: &WatchId) -> Result<PinnedTrees, StoreError> {
        pinned::trees(&self.snapshot().await?, &self.context, app, id).await
    }

    async fn patch_watch(&self, app: &AppId, id: &WatchId, patch: &WatchPatch) -> Result<Watch, StoreError> {
        let (app, id, patch) = (app.clone(), id.clone(), patch.clone());
        transact!(self, |transaction, context| {
            watches::patch(transaction, context, (&app, &id), &patch, context.clock.now()).await?;
            watches::one(transaction, &app, &id).await
        })
    }

    async fn replace_credential(
        &self,
        app: &AppId,
        id: &WatchId,
        credential: Option<&Secret>,
        listing: &RefListing,
        at: Timestamp,
    ) -> Result<Watch, StoreError> {
        let (app, id) = (app.clone(), id.clone());
        let (credential, listing) = (credential.cloned(), listing.clone());
        transact!(self, |transaction, context| {
            let credential = credential.as_ref();
            registration::replace_credential(transaction, context, &app, &id, credential, &listing, at)
                .await?;
            watches::one(transaction, &app, &id).await
        })
    }

    async fn request_resync(&self, app: &AppId, id: &WatchId, complete: bool) -> Result<(), StoreError> {
        let (app, id) = (app.clone(), id.clone());
        transact!(self, |transaction, context| {
            watches::row(transaction, &app, &id).await?;
            resync::of_watch(transaction, context, &id, complete, context.clock.now()).await
        })
    }

    async fn request_cursor_resync(
        &self,
        cursor: &CursorId,
        complete: bool,
        reason: &str,
    ) -> Result<(), StoreError> {
        let (cursor, reason) = (cursor.clone(), reason.to_owned());
        transact!(self, |transaction, context| {
            resync::of_cursor(transaction, context, cursor, complete, reason, context.clock.now()).await
        })
    }

    async fn unwatch(&self, app: &AppId, id: &WatchId) -> Result<bool, StoreError> {
        let (app, id) = (app.clone(), id.clone());
        transact!(self, |transaction, context| registration::unwatch(transaction, context, &app, &id).await)
    }

    async fn request_skip(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        expected: Option<(i64, u64)>,
    ) -> Result<Head, StoreError> {
        let (app, id, cursor) = (app.clone(), id.clone(), cursor.cloned());
        transact!(self, |transaction, _context| {
            watches::row(transaction, &app, &id).await?;
            skip::request(transaction, &id, cursor.as_ref(), expected).await
        })
    }

    async fn was_held(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        commit: ObjectId,
    ) -> Result<(CursorId, TreeEnd), StoreError> {
        let snapshot = self.snapshot().await?;
        watches::row(&snapshot, app, id).await?;
        replays::was_held(&snapshot, id, cursor, commit).await
    }

    async fn request_replay(&self, cursor: &CursorId, from: &TreeEnd) -> Result<(), StoreError> {
        let (cursor, from) = (cursor.clone(), (from.commit, from.view.id()));
        transact!(self, |transaction, _context| replays::request(transaction, &cursor, from).await)
    }
}
