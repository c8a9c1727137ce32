//! Apps, with their settings, sinks and rates.

use std::time::Duration;

use async_trait::async_trait;
use tidings_entity::id::{AppId, SinkId};

use crate::{
    ports::{App, AppPatch, NewApp, OwnSink, SinkKey, StoreError},
    time::Timestamp,
};

/// The verbs for apps, their settings, sinks and rates.
#[async_trait]
pub trait AppStore: Send + Sync + 'static {
    /// Registers an app with its first token, and ends the keyed request that asked for it.
    async fn create_app(&self, app: &NewApp) -> Result<(), StoreError>;
    /// Reads one app; `None`: there is no app of this id.
    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError>;
    /// All apps, oldest first, after `after`, at most `limit`.
    async fn apps(&self, after: Option<&AppId>, limit: u64) -> Result<Vec<App>, StoreError>;
    /// The sink of a watch of this app.
    async fn sink(&self, app: &AppId, id: &SinkId) -> Result<Option<OwnSink>, StoreError>;
    /// The app that a sink belongs to, and the name of the subscription that sends to it.
    async fn sink_owner(&self, id: &SinkId) -> Result<Option<(AppId, Option<String>)>, StoreError>;
    /// An app as it is served at one of its sinks.
    async fn served(&self, key: &SinkKey) -> Result<Option<App>, StoreError> {
        let Some(app) = self.app(&key.app).await? else { return Ok(None) };
        match &key.sink {
            None => Ok(Some(app)),
            Some(sink) => Ok(self.sink(&key.app, sink).await?.map(|sink| app.at(&sink))),
        }
    }
    /// Disables a sink that answered 410, as [`GONE`](crate::ports::GONE), if it still has the address that
    /// was asked. `false`: the sink has another address since, was enabled again, or is disabled already, so
    /// nothing changes. The app's own sink is disabled together with the app.
    async fn disable_gone(&self, key: &SinkKey, since: Timestamp) -> Result<bool, StoreError>;
    /// Changes settings of an app. A rotation while [`KEYS_MAX`](crate::ports::KEYS_MAX) keys are valid is a
    /// [`StoreError::Conflict`].
    async fn patch_app(&self, id: &AppId, patch: &AppPatch, at: Timestamp) -> Result<App, StoreError>;
    /// Promises a time of `span` to this process alone, from the returned moment on: only within it may the
    /// process send to an app that has a rate. The time begins at `now`, or where the last promise to any
    /// process ends. A promise that ends more than [`PERMITS_AHEAD_MAX`](crate::ports::PERMITS_AHEAD_MAX)
    /// after `now` was made before a clock went backwards: then the new time begins a `span` after `now`.
    async fn take_permits(
        &self,
        app: &AppId,
        now: Timestamp,
        span: Duration,
    ) -> Result<Timestamp, StoreError>;
    /// Removes all rows of an app, and the stored answer that contains its token.
    async fn erase_app(&self, id: &AppId) -> Result<(), StoreError>;
}
