//! Apps: who receives, with which settings, and at which rate.

use std::time::Duration;

use async_trait::async_trait;
use tidings_entity::id::AppId;

use crate::{
    ports::{App, AppPatch, NewApp, StoreError},
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
    /// Disables an app whose endpoint answered 410, as [`GONE`](crate::ports::GONE), if that endpoint is
    /// still the one that it has. `false`: the app has another one since, or was enabled again; nothing
    /// changes.
    async fn disable_gone(&self, id: &AppId, endpoint_since: Timestamp) -> Result<bool, StoreError>;
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
