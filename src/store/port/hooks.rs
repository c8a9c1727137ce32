//! Hooks of apps, for the front door.

use async_trait::async_trait;
use tidings_actors::{
    model::secret::Secret,
    ports::{
        AppHook, AppHooks, HookName, HookPatch, HookSecrets, KeptRequest, NewHook, Receipt, ReceiptFilter,
        StoreError,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, HookId, ReceiptId},
    kind::HookProvider,
};

use super::transact;
use crate::{
    SqlStore,
    watching::{
        hooks,
        sources::{receipt_bodies, receipts},
    },
};

#[async_trait]
impl AppHooks for SqlStore {
    async fn create_hook(&self, new: &NewHook) -> Result<AppHook, StoreError> {
        let new = new.clone();
        transact!(self, |transaction, context| hooks::create(transaction, context, new).await)
    }

    async fn hook(&self, app: &AppId, name: &HookName) -> Result<AppHook, StoreError> {
        hooks::find(&self.readers, app, name).await
    }

    async fn hooks(
        &self,
        app: &AppId,
        after: Option<&HookId>,
        limit: u64,
    ) -> Result<Vec<AppHook>, StoreError> {
        hooks::list(&self.readers, app, after, limit).await
    }

    async fn change_hook(&self, app: &AppId, id: &HookId, patch: &HookPatch) -> Result<AppHook, StoreError> {
        let (app, id, patch) = (app.clone(), id.clone(), patch.clone());
        transact!(self, |transaction| hooks::change(transaction, &app, &id, patch).await)
    }

    async fn rotate_hook(
        &self,
        app: &AppId,
        id: &HookId,
        secret: &Secret,
        until: Timestamp,
    ) -> Result<AppHook, StoreError> {
        let (app, id, secret) = (app.clone(), id.clone(), secret.clone());
        transact!(self, |transaction, context| {
            hooks::rotate(transaction, context, &app, &id, &secret, until).await
        })
    }

    async fn remove_hook(&self, app: &AppId, id: &HookId) -> Result<(), StoreError> {
        let (app, id) = (app.clone(), id.clone());
        transact!(self, |transaction| hooks::remove(transaction, &app, &id).await)
    }

    async fn hook_secrets(
        &self,
        id: &HookId,
        provider: HookProvider,
        now: Timestamp,
    ) -> Result<Option<HookSecrets>, StoreError> {
        hooks::secrets(&self.readers, &self.context, id, provider, now).await
    }

    async fn receipts_of(
        &self,
        app: &AppId,
        filter: &ReceiptFilter,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError> {
        receipts::list(&self.readers, Some(app), filter, before, limit).await
    }

    async fn receipt(&self, app: Option<&AppId>, id: &ReceiptId) -> Result<Receipt, StoreError> {
        receipts::find(&self.readers, app, id).await
    }

    async fn kept_request(&self, id: &ReceiptId) -> Result<Option<KeptRequest>, StoreError> {
        receipt_bodies::read(&self.readers, &self.context, id).await
    }
}
