//! The parts that all handlers use: the ports, the handle of the tree, and the settings. State that only some
//! handlers keep between requests is in `handler_state.rs`.

use std::sync::Arc;

use tidings_actors::{
    handle::Handle,
    ports::{
        Administration, AppHooks, ArtifactStore, Clock, GitSource, HistoryStore, Ledgers, Objects, Random,
        RequestStore, SealingKeys, Store, Subscriptions, TaskStore,
    },
};

use crate::{
    egress::{Egress, replicas::ToReplicas},
    secrets::AuditKeyring,
    settings::Settings,
};

/// The parts that all handlers use.
pub struct Front {
    /// The store of all data.
    pub store: Arc<dyn Store>,
    /// Requests with an idempotency key, and their answers.
    pub requests: Arc<dyn RequestStore>,
    /// Past rounds, for lists and tails.
    pub history: Arc<dyn HistoryStore>,
    /// Tokens, the audit log, looks over all apps.
    pub administration: Arc<dyn Administration>,
    /// The ledgers of apps.
    pub ledgers: Arc<dyn Ledgers>,
    /// The subscriptions, which read the ledgers.
    pub subscriptions: Arc<dyn Subscriptions>,
    /// The hooks that apps have for themselves.
    pub hooks: Arc<dyn AppHooks>,
    /// Tasks for workers, and their queues.
    pub tasks: Arc<dyn TaskStore>,
    /// What is known of artifacts of tasks.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// The bytes of artifacts.
    pub objects: Arc<dyn Objects>,
    /// Asked once in a registration, to prove access.
    pub git: Arc<dyn GitSource>,
    /// The keys that seal secrets in the store.
    pub keys: Arc<dyn SealingKeys>,
    /// The keys that check rows of the audit log.
    pub audit_keyring: Arc<dyn AuditKeyring>,
    /// The handle that is told when rows have changed.
    pub handle: Handle,
    /// The settings that the server started with.
    pub settings: Arc<Settings>,
    /// Asked whether a receiver's address may be reached at all.
    pub egress: Egress,
    /// The name of the cookie that stands for a session of this server.
    pub session_cookie: String,
    /// The client for requests that only another replica can answer.
    pub to_replicas: ToReplicas,
    /// The wall clock, for the moments that handlers write.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids, tokens and keys.
    pub random: Arc<dyn Random>,
}
