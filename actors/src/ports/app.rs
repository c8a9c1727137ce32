//! Apps as rows and messages know them.

use tidings_entity::{
    id::{AppId, Sha256Hash},
    kind::{OrderMode, RetryPolicy},
};

use super::{KeyedRequest, StoredAnswer};
use crate::{secret::Secret, time::Timestamp};

/// An app as it is registered.
#[derive(Clone, Debug)]
pub struct NewApp {
    /// Its id.
    pub id: AppId,
    /// Its name, 3 to 100 characters.
    pub name: String,
    /// Contact address.
    pub email: String,
    /// Where it receives; `None` for pull.
    pub base_url: Option<String>,
    /// A web page about it.
    pub website: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// The public part of its token, unique.
    pub token_public_id: String,
    /// SHA-256 of its token.
    pub token_hash: Sha256Hash,
    /// The signing key.
    pub signing_key: Secret,
    /// How it wants to be served.
    pub delivery: DeliverySettings,
    /// The moment of registration.
    pub created_at: Timestamp,
    /// The keyed request that asked for it and what that is answered: both are written, or neither.
    pub answer: Option<(KeyedRequest, StoredAnswer)>,
}

/// How an app wants to be served.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliverySettings {
    /// Whether sends of one cursor may overlap.
    pub order: OrderMode,
    /// Most attempts in flight per cursor (`phased`; 1 to 64).
    pub max_in_flight: u32,
    /// How the wait between tries grows.
    pub retry_policy: RetryPolicy,
    /// The first wait, in milliseconds; the server's setting where `None`.
    pub retry_base_ms: Option<u64>,
    /// The longest wait, in milliseconds; the server's setting where `None`.
    pub retry_cap_ms: Option<u64>,
    /// How long endpoint failures are retried before the watch is blocked, in milliseconds.
    pub retry_window_ms: Option<u64>,
    /// Wants `/synced` after each round.
    pub synced: bool,
    /// Wants `/resync` before each resync.
    pub resync: bool,
    /// Wants `/sync_recovered`.
    pub sync_recovered: bool,
    /// Keys by (repository, branch, path), so that pattern selectors are safe for it.
    pub multi_branch: bool,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            order: OrderMode::Strict,
            max_in_flight: 8,
            retry_policy: RetryPolicy::ExpFullJitter,
            retry_base_ms: None,
            retry_cap_ms: None,
            retry_window_ms: None,
            synced: false,
            resync: false,
            sync_recovered: false,
            multi_branch: false,
        }
    }
}

/// What an app changes of itself; `None` leaves a thing as it is.
#[derive(Clone, Debug, Default)]
pub struct AppPatch {
    /// Where it receives.
    pub base_url: Option<String>,
    /// How it wants to be served.
    pub delivery: Option<DeliverySettings>,
    /// Why it is not served from now on, or (`Some(None)`) that it is served again.
    pub disabled: Option<Option<String>>,
    /// A new signing key.
    pub rotation: Option<Rotation>,
}

/// A new signing key, and how long the older ones sign beside it.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The new key; the current one from now on.
    pub key: Secret,
    /// When the older ones end, unless they end sooner.
    pub overlap_until: Timestamp,
}

/// Signing keys that an app has at most, the current one among them: each is one more signature on
/// every delivery.
pub const KEYS_MAX: usize = 4;

/// An app as it is served.
#[derive(Clone, Debug)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// Its name.
    pub name: String,
    /// Contact address.
    pub email: String,
    /// Where it receives; `None` for pull.
    pub base_url: Option<String>,
    /// SHA-256 of its token, compared in constant time.
    pub token_hash: Sha256Hash,
    /// Signing keys, the current one first; older ones only while their overlap lasts.
    pub keys: Vec<Secret>,
    /// How it wants to be served.
    pub delivery: DeliverySettings,
    /// Why it is not served, where it is not (410, by hand).
    pub disabled: Option<String>,
    /// The moment of registration.
    pub created_at: Timestamp,
}
