//! What all handlers work with: the ports, the facade of the tree, and the settings. What only some of them
//! keep in memory between requests is in `handler_state.rs`.

use std::sync::Arc;

use tidings_actors::{
    handle::Handle,
    ports::{
        Administration, Clock, GitSource, HistoryStore, Ledgers, Random, RequestStore, SealingKeys, Store,
        Subscriptions,
    },
};

use crate::{
    egress::{Egress, replicas::ToReplicas},
    secrets::AuditKeyring,
    settings::Settings,
};

/// What all handlers work with.
pub struct Front {
    /// Everything that must survive.
    pub store: Arc<dyn Store>,
    /// Requests with an idempotency key, and their answers.
    pub requests: Arc<dyn RequestStore>,
    /// Rounds of before, read again for people.
    pub history: Arc<dyn HistoryStore>,
    /// Tokens, the audit log, looks over all apps.
    pub administration: Arc<dyn Administration>,
    /// What happened to each app.
    pub ledgers: Arc<dyn Ledgers>,
    /// The readers of their ledgers.
    pub subscriptions: Arc<dyn Subscriptions>,
    /// Asked once in a registration, to prove access.
    pub git: Arc<dyn GitSource>,
    /// The keys that seal what is secret in it.
    pub keys: Arc<dyn SealingKeys>,
    /// What rows of the audit log are checked with.
    pub audit_keyring: Arc<dyn AuditKeyring>,
    /// Told when rows have changed.
    pub handle: Handle,
    /// The settings that the server started with.
    pub settings: Arc<Settings>,
    /// Asked whether a receiver's address may be reached at all.
    pub egress: Egress,
    /// What only another replica can answer goes there.
    pub to_replicas: ToReplicas,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids, tokens and keys.
    pub random: Arc<dyn Random>,
}
