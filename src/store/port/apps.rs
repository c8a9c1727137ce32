//! Apps, with their settings, sinks and rates.

use std::time::Duration;

use async_trait::async_trait;
use tidings_actors::{
    ports::{App, AppPatch, AppStore, NewApp, OwnSink, SinkKey, StoreError},
    time::Timestamp,
};
use tidings_entity::id::{AppId, SinkId};

use super::transact;
use crate::{
    SqlStore,
    apps::{self, sinks},
    tasks, upkeep,
};

#[async_trait]
impl AppStore for SqlStore {
    async fn create_app(&self, app: &NewApp) -> Result<(), StoreError> {
        let app = app.clone();
        transact!(self, |transaction, context| apps::create(transaction, context, app).await)
    }

    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        apps::find(&self.readers, &self.context, "id", id.clone().into()).await
    }

    async fn apps(&self, after: Option<&AppId>, limit: u64) -> Result<Vec<App>, StoreError> {
        apps::list(&self.snapshot().await?, &self.context, None, after, limit).await
    }

    async fn sink(&self, app: &AppId, id: &SinkId) -> Result<Option<OwnSink>, StoreError> {
        sinks::find(&self.readers, &self.context, app, id).await
    }

    async fn sink_owner(&self, id: &SinkId) -> Result<Option<(AppId, Option<String>)>, StoreError> {
        sinks::owner(&self.readers, id).await
    }

    async fn disable_gone(&self, key: &SinkKey, since: Timestamp) -> Result<bool, StoreError> {
        let key = key.clone();
        transact!(self, |transaction, context| sinks::disable_gone(transaction, context, &key, since).await)
    }

    async fn patch_app(&self, id: &AppId, patch: &AppPatch, at: Timestamp) -> Result<App, StoreError> {
        let is_enabled = patch.disabled == Some(None);
        if is_enabled {
            // A cut-off leaves the app disabled, with fewer tasks aside.
            let mut last = None;
            loop {
                let (app, after) = (id.clone(), last);
                last = transact!(self, |transaction, context| {
                    tasks::go_on(transaction, context, &app, after.as_ref()).await
                })?;
                if last.is_none() {
                    break;
                }
            }
        }
        let (id, patch) = (id.clone(), patch.clone());
        transact!(self, |transaction, context| {
            if is_enabled {
                tasks::all_go_on(transaction, context, &id).await?;
            }
            apps::patch(transaction, context, id, patch, at).await
        })
    }

    async fn take_permits(
        &self,
        app: &AppId,
        now: Timestamp,
        span: Duration,
    ) -> Result<Timestamp, StoreError> {
        let app = app.clone();
        transact!(self, |transaction, _context| apps::take_permits(transaction, app, now, span).await)
    }

    async fn erase_app(&self, id: &AppId) -> Result<(), StoreError> {
        // A million rows do not fit into one transaction that others wait for: rows of the past are removed
        // first, in steps. If that is cut off, the app still exists, with less history.
        for kind in 0..upkeep::KINDS_OF_APP {
            loop {
                let app = id.clone();
                let step = self.writer.question(move |transaction, _context| {
                    Box::pin(async move { upkeep::clear(transaction, &app, kind, upkeep::STEP).await })
                });
                if step.await? < upkeep::STEP {
                    break;
                }
            }
        }
        let id = id.clone();
        transact!(self, |transaction, context| apps::erase(transaction, context, id).await)
    }
}
