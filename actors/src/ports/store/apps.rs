//! Apps: who receives, with which settings, and at which rate.

use std::time::Duration;

use async_trait::async_trait;
use tidings_entity::id::{AppId, SinkId};

use crate::{
    ports::{App, AppPatch, NewApp, OwnSink, SinkKey, StoreError},
    time::Timestamp,
};

/// What is kept of apps.
#[async_trait]
pub trait AppStore: Send + Sync + 'static {
    /// Registers an app with its first token, and ends the keyed request that asked for it.
    async fn create_app(&self, app: &NewApp) -> Result<(), StoreError>;
    /// One app.
    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError>;
    /// All apps, oldest first, after `after`, at most `limit`.
    async fn apps(&self, after: Option<&AppId>, limit: u64) -> Result<Vec<App>, StoreError>;
    /// A sink that a watch of this app has for itself.
    async fn sink(&self, app: &AppId, id: &SinkId) -> Result<Option<OwnSink>, StoreError>;
    /// An app as it is served at one of its sinks.
    async fn served(&self, key: &SinkKey) -> Result<Option<App>, StoreError> {
        let Some(app) = self.app(&key.app).await? else { return Ok(None) };
        match &key.sink {
            None => Ok(Some(app)),
            Some(sink) => Ok(self.sink(&key.app, sink).await?.map(|sink| app.at(&sink))),
        }
    }
    /// Disables a sink that answered 410, as [`GONE`](crate::ports::GONE), if it still has the address that
    /// was asked. `false`: it has another one since, or was enabled again; nothing changes. The own sink of
    /// an
    /// app is disabled with the app.
    async fn disable_gone(&self, key: &SinkKey, since: Timestamp) -> Result<bool, StoreError>;
    /// Changes what an app chose of itself. A rotation while [`KEYS_MAX`](crate::ports::KEYS_MAX) keys
    /// live is a [`StoreError::Conflict`].
    async fn patch_app(&self, id: &AppId, patch: &AppPatch, at: Timestamp) -> Result<App, StoreError>;
    /// Promises the time from the answered moment on, for as long as `span`, to this process alone:
    /// in it, and nowhere else, it may send to an app that has a rate. It begins at `now`, or where
    /// the last promise to anybody ends. A promise that ends more than
    /// [`PERMITS_AHEAD_MAX`](crate::ports::PERMITS_AHEAD_MAX) after `now` was made before a clock went
    /// backwards: then it begins a `span` after `now`.
    async fn take_permits(
        &self,
        app: &AppId,
        now: Timestamp,
        span: Duration,
    ) -> Result<Timestamp, StoreError>;
    /// Removes all rows of an app, and the answer that told its token.
    async fn erase_app(&self, id: &AppId) -> Result<(), StoreError>;
}
