//! Hooks of one app. Git hosts send to the address of such a hook and sign with its secret; a hook wakes only
//! watches of its own app.

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, HookId, ReceiptId, WatchId},
    kind::{HookProvider, ReceiptReason, ReceiptVerdict},
};

use crate::{
    model::secret::Secret,
    ports::{KeptRequest, Receipt, StoreError},
    time::Timestamp,
};

/// Most hooks of an app.
pub const HOOKS_MAX: u64 = 100;
/// Most secrets that a hook accepts at once: its own, and the previous one while a rotation overlaps.
pub const HOOK_SECRETS_MAX: usize = 2;

/// A hook of an app, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppHook {
    /// Id of the hook, `hook_` and a ULID; part of its address.
    pub id: HookId,
    /// The app that the hook belongs to.
    pub app: AppId,
    /// Its name, unique among those of the app.
    pub name: String,
    /// The kind of Git host that sends to it.
    pub provider: HookProvider,
    /// The normalised address of the only repository that it may wake; `None`: all that the app watches.
    pub repository_url: Option<String>,
    /// Until when the secret before the last rotation is accepted as well.
    pub former_until: Option<Timestamp>,
    /// When the hook was created.
    pub created_at: Timestamp,
    /// The newest of its receipts.
    pub last: Option<LastReceipt>,
}

/// The content of the newest receipt of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastReceipt {
    /// Id of the receipt of the hook.
    pub id: ReceiptId,
    /// The verdict about the hook request.
    pub verdict: ReceiptVerdict,
    /// The reason for the verdict.
    pub reason: ReceiptReason,
    /// When the request arrived.
    pub received_at: Timestamp,
}

/// A hook to be made.
#[derive(Clone, Debug)]
pub struct NewHook {
    /// Id of the hook, `hook_` and a ULID; part of its address.
    pub id: HookId,
    /// The app that the hook belongs to.
    pub app: AppId,
    /// The name of the hook, unique within the app.
    pub name: String,
    /// The kind of Git host that sends to it.
    pub provider: HookProvider,
    /// The watch of the app whose repository is the only one that the hook may wake.
    pub watch: Option<WatchId>,
    /// The secret that Git hosts sign with.
    pub secret: Secret,
    /// When the hook is made.
    pub created_at: Timestamp,
}

/// Which hook of an app is asked for.
#[derive(Clone, Debug)]
pub enum HookName {
    /// The hook with this id.
    Id(HookId),
    /// The hook with this name.
    Name(String),
}

/// The hook and the app that a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookOwner {
    /// Id of the hook that the request came to.
    pub hook: HookId,
    /// The app that has it.
    pub app: AppId,
}

/// The secrets that prove a request to the address of a hook.
#[derive(Clone, Debug)]
pub struct HookSecrets {
    /// The hook and its app.
    pub owner: HookOwner,
    /// The secrets that it accepts now, 1 to [`HOOK_SECRETS_MAX`].
    pub secrets: Vec<Secret>,
}

/// A filter for the receipts of one app's hooks.
#[derive(Clone, Debug, Default)]
pub struct ReceiptFilter {
    /// Only receipts of this hook.
    pub hook: Option<HookId>,
    /// Only receipts with this verdict.
    pub verdict: Option<ReceiptVerdict>,
}

/// A change of a hook; a field that is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookPatch {
    /// Another name, unique among the hooks of the app.
    pub name: Option<String>,
    /// The watch whose repository is the only one that the hook may wake; `Some(None)`: all of the app.
    pub watch: Option<Option<WatchId>>,
}

/// The calls of the HTTP handlers about hooks of apps.
#[async_trait]
pub trait AppHooks: Send + Sync + 'static {
    /// Makes a hook. A [`StoreError::Conflict`] where the name is taken or the app has [`HOOKS_MAX`]; a
    /// [`StoreError::NotFound`] where the app has no such watch.
    async fn create_hook(&self, new: &NewHook) -> Result<AppHook, StoreError>;
    /// One hook of an app.
    async fn hook(&self, app: &AppId, name: &HookName) -> Result<AppHook, StoreError>;
    /// Hooks of an app, oldest first, after `after`, at most `limit`.
    async fn hooks(
        &self,
        app: &AppId,
        after: Option<&HookId>,
        limit: u64,
    ) -> Result<Vec<AppHook>, StoreError>;
    /// Changes a hook; its address and its secret stay. The errors are those of making one.
    async fn change_hook(&self, app: &AppId, id: &HookId, patch: &HookPatch) -> Result<AppHook, StoreError>;
    /// Gives a hook a new secret. The previous secret is accepted until `overlap_until`; a secret older than
    /// that is accepted no more.
    async fn rotate_hook(
        &self,
        app: &AppId,
        id: &HookId,
        secret: &Secret,
        until: Timestamp,
    ) -> Result<AppHook, StoreError>;
    /// Removes a hook with its receipts.
    async fn remove_hook(&self, app: &AppId, id: &HookId) -> Result<(), StoreError>;
    /// The secrets for requests to this address; `None`: there is no such hook of this kind of host. Both
    /// cases take the same work, so that time reveals nothing.
    async fn hook_secrets(
        &self,
        id: &HookId,
        provider: HookProvider,
        now: Timestamp,
    ) -> Result<Option<HookSecrets>, StoreError>;
    /// Receipts of the hooks of an app, newest first, before `before`, at most `limit`.
    async fn receipts_of(
        &self,
        app: &AppId,
        filter: &ReceiptFilter,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError>;
    /// One receipt: of the hooks of this app, or (`None`) any.
    async fn receipt(&self, app: Option<&AppId>, id: &ReceiptId) -> Result<Receipt, StoreError>;
    /// The stored part of the request of a receipt; `None`: nothing is stored.
    async fn kept_request(&self, id: &ReceiptId) -> Result<Option<KeptRequest>, StoreError>;
}
