//! Apps: who receives, with which settings, and at which rate.

use std::time::Duration;

use async_trait::async_trait;
use tidings_entity::id::{AppId, SinkId};

use crate::{
    ports::{App, AppPatch, AppStore, GONE, NewApp, OwnSink, SinkKey, StoreError},
    testing::memory::{MemoryStore, rows},
    time::Timestamp,
};

#[async_trait]
impl AppStore for MemoryStore {
    async fn create_app(&self, app: &NewApp) -> Result<(), StoreError> {
        self.meet("create_app").await?;
        self.write(|state| state.create_app(app))
    }

    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        Ok(self.state().apps.get(id).map(|app| rows::app(app, self.clock.now())))
    }

    async fn apps(&self, after: Option<&AppId>, limit: u64) -> Result<Vec<App>, StoreError> {
        let state = self.state();
        let later = state.apps.values().filter(|app| after.is_none_or(|after| app.new.id > *after));
        Ok(later
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .map(|app| rows::app(app, self.clock.now()))
            .collect())
    }

    async fn sink(&self, app: &AppId, id: &SinkId) -> Result<Option<OwnSink>, StoreError> {
        let state = self.state();
        let mut own = state.watches.values().filter(|watch| watch.new.app == *app);
        Ok(own.find_map(|watch| watch.sink.clone().filter(|sink| sink.id == *id)))
    }

    async fn sink_owner(&self, id: &SinkId) -> Result<Option<(AppId, Option<String>)>, StoreError> {
        let state = self.state();
        let mut watches = state.watches.values();
        let found = watches.find(|watch| watch.sink.as_ref().is_some_and(|sink| sink.id == *id));
        Ok(found.map(|watch| (watch.new.app.clone(), None)))
    }

    async fn disable_gone(&self, key: &SinkKey, since: Timestamp) -> Result<bool, StoreError> {
        self.write(|state| {
            if key.sink.is_some() {
                let mut all = state.watches.values_mut().filter(|watch| watch.sink_key() == *key);
                let sink = all.find_map(|watch| watch.sink.as_mut()).ok_or(StoreError::NotFound)?;
                let is_asked = sink.since == since && sink.disabled.is_none();
                if is_asked {
                    sink.disabled = Some(GONE.to_owned());
                }
                return Ok(is_asked);
            }
            let app = state.apps.get_mut(&key.app).ok_or(StoreError::NotFound)?;
            let is_asked = app.endpoint_since == since && app.disabled.is_none();
            if is_asked {
                app.disable(Some(GONE.to_owned()), since);
            }
            Ok(is_asked)
        })
    }

    async fn patch_app(&self, id: &AppId, patch: &AppPatch, at: Timestamp) -> Result<App, StoreError> {
        self.write(|state| state.patch_app(id, patch, at))
    }

    async fn take_permits(
        &self,
        app: &AppId,
        now: Timestamp,
        span: Duration,
    ) -> Result<Timestamp, StoreError> {
        self.meet("take_permits").await?;
        // The only verb that the rate of deliveries multiplies: it copies nothing.
        self.state().take_permits(app, now, span)
    }

    async fn erase_app(&self, id: &AppId) -> Result<(), StoreError> {
        self.write(|state| state.erase_app(id))
    }
}
