//! Watches as their apps see and change them.

use async_trait::async_trait;
use tidings_entity::id::{AppId, CursorId, ObjectId, WatchId};

use crate::{
    model::round::TreeEnd,
    model::secret::Secret,
    ports::{Head, NewWatch, PinnedTrees, RefListing, StoreError, Watch, WatchPatch, WatchStore},
    testing::memory::{MemoryStore, rows::State},
    time::Timestamp,
};

impl State {
    /// Gives a watch another name, unless another watch of the same refs has that name.
    fn rename(&mut self, app: &AppId, id: &WatchId, alias: &str) -> Result<(), StoreError> {
        let own = self.own_watch(app, id)?;
        let taken = self.watches.iter().find(|(other, watch)| {
            *other != id
                && (&watch.new.app, &watch.repository) == (app, &own.repository)
                && (&watch.new.selector, watch.new.alias.as_str()) == (&own.new.selector, alias)
        });
        if let Some((other, _)) = taken {
            return Err(StoreError::Exists(other.to_string()));
        }
        if let Some(watch) = self.watches.get_mut(id) {
            alias.clone_into(&mut watch.new.alias);
        }
        Ok(())
    }
}

#[async_trait]
impl WatchStore for MemoryStore {
    async fn register_watch(&self, watch: &NewWatch) -> Result<Watch, StoreError> {
        self.write_checked(|state| state.register(&*self.random, watch, self.clock.now()))
    }

    async fn watches(
        &self,
        app: &AppId,
        after: Option<&WatchId>,
        limit: u64,
    ) -> Result<Vec<Watch>, StoreError> {
        let state = self.state();
        let own = state
            .watches
            .values()
            .filter(|watch| watch.new.app == *app && after.is_none_or(|after| watch.new.id > *after));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(own.take(limit).map(|watch| state.shown_watch(watch)).collect())
    }

    async fn watch(&self, app: &AppId, id: &WatchId) -> Result<Watch, StoreError> {
        let state = self.state();
        Ok(state.shown_watch(state.own_watch(app, id)?))
    }

    async fn pinned_trees(&self, app: &AppId, id: &WatchId) -> Result<PinnedTrees, StoreError> {
        self.state().pinned_trees(app, id)
    }

    async fn patch_watch(&self, app: &AppId, id: &WatchId, patch: &WatchPatch) -> Result<Watch, StoreError> {
        self.write(|state| {
            if let Some(alias) = &patch.alias {
                state.rename(app, id, alias)?;
            }
            state.patch(app, id, patch, self.clock.now())
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
        self.write(|state| state.replace_credential(&*self.random, (app, id), credential, listing, at))
    }

    async fn request_resync(&self, app: &AppId, id: &WatchId, complete: bool) -> Result<(), StoreError> {
        self.write(|state| {
            state.own_watch(app, id)?;
            state.resync_watch(id, complete, self.clock.now());
            Ok(())
        })
    }

    async fn request_cursor_resync(
        &self,
        cursor: &CursorId,
        complete: bool,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.meet("request_cursor_resync").await?;
        self.write(|state| {
            if !state.cursors.contains_key(cursor) {
                return Err(StoreError::NotFound);
            }
            state.resync_cursor(cursor, complete, Some(reason), self.clock.now());
            Ok(())
        })
    }

    async fn unwatch(&self, app: &AppId, id: &WatchId) -> Result<bool, StoreError> {
        self.write(|state| {
            state.own_watch(app, id)?;
            let was_open = state.cursors.values().any(|cursor| cursor.watch == *id && cursor.open.is_some());
            state.unwatch(id);
            Ok(was_open)
        })
    }

    async fn was_held(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        commit: ObjectId,
    ) -> Result<(CursorId, TreeEnd), StoreError> {
        self.write(|state| state.was_held(app, id, cursor, commit))
    }

    async fn request_replay(&self, cursor: &CursorId, from: &TreeEnd) -> Result<(), StoreError> {
        self.write(|state| state.request_replay(cursor, from))
    }

    async fn request_skip(
        &self,
        app: &AppId,
        id: &WatchId,
        cursor: Option<&CursorId>,
        expected: Option<(i64, u64)>,
    ) -> Result<Head, StoreError> {
        self.write(|state| state.request_skip(app, id, cursor, expected))
    }
}
