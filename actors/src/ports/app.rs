//! Apps as stored in rows and used in messages.

pub(super) mod access;
pub(super) mod hook;
pub(super) mod request;
pub(super) mod sink;

use std::sync::Arc;

use tidings_entity::{
    id::{AppId, Sha256Hash, SinkId},
    kind::{OrderMode, PayloadFormat, RetryPolicy, SinkKind},
};

use super::{AccessPatch, EndpointAccess, KeyedRequest, StoredAnswer};
use crate::{
    model::{secret::Secret, sink::SinkAddress},
    time::Timestamp,
};

/// An app as it is registered.
#[derive(Clone, Debug)]
pub struct NewApp {
    /// Id of the app, `app_` and a ULID.
    pub id: AppId,
    /// The name of the app, 3 to 100 characters.
    pub name: String,
    /// The email address of a person to contact about the app.
    pub email: String,
    /// Whether the app was registered where anyone may register: nobody stands for its `email`.
    pub is_from_anyone: bool,
    /// Where the app receives: the sink of its watches.
    pub receives_at: SinkAddress,
    /// A web page about the app.
    pub website: Option<String>,
    /// What the app is for, in the words of its owner.
    pub description: Option<String>,
    /// The public part of its first token, unique.
    pub token_public_id: String,
    /// SHA-256 of its first token.
    pub token_hash: Sha256Hash,
    /// The key that signs deliveries to the app.
    pub signing_key: Secret,
    /// Headers, credentials and certificates for requests to the endpoint of the app.
    pub access: EndpointAccess,
    /// How the app wants its deliveries: format, order and limits.
    pub delivery: DeliverySettings,
    /// The moment of registration.
    pub created_at: Timestamp,
    /// The keyed request that asked for the app, and the answer to it: app and answer are written together or
    /// not at all.
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
    /// Most attempts in flight over all its cursors, notices included (1 to 1,024); the server's
    /// setting where `None`, and never more than that.
    pub max_concurrent: Option<u32>,
    /// Most requests in any second, retries, notices and the chunks of large files included (1 to
    /// 10,000); the server's setting where `None`, and never more than that.
    pub rate: Option<u32>,
    /// Takes many changes in one request (`/batch`), within these bounds; one by one where `None`.
    pub batch: Option<BatchSettings>,
    /// The chosen format of bodies; a change takes effect with the next round of each cursor. What bodies
    /// have is [`DeliverySettings::format_at`] their sink.
    pub format: PayloadFormat,
    /// How the wait between attempts grows.
    pub retry_policy: RetryPolicy,
    /// The first wait, in milliseconds; the server's setting where `None`.
    pub retry_base_ms: Option<u64>,
    /// The longest wait, in milliseconds; the server's setting where `None`.
    pub retry_cap_ms: Option<u64>,
    /// How long endpoint failures are retried before the watch is blocked, in milliseconds.
    pub retry_window_ms: Option<u64>,
    /// Whether `/synced` is sent after each round.
    pub synced: bool,
    /// Whether `/resync` is sent before each resync.
    pub resync: bool,
    /// Whether `/sync_recovered` is sent when a source can be scanned again.
    pub sync_recovered: bool,
    /// Whether the app stores files by repository, branch and path, so that a watch may follow many branches.
    pub multi_branch: bool,
    /// Most unfinished tasks of one cursor, for a sink of tasks (1 to [`WINDOW_MAX`]); `None`:
    /// [`WINDOW_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Whether a sink of tasks gets one task for each round, and not one for each change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub per_round: bool,
}

/// The largest window of a sink of tasks, which is the default.
pub const WINDOW_MAX: u32 = 1_000;

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            order: OrderMode::Strict,
            max_in_flight: 8,
            max_concurrent: None,
            rate: None,
            batch: None,
            format: PayloadFormat::Docora,
            retry_policy: RetryPolicy::ExpFullJitter,
            retry_base_ms: None,
            retry_cap_ms: None,
            retry_window_ms: None,
            synced: false,
            resync: false,
            sync_recovered: false,
            multi_branch: false,
            window: None,
            per_round: false,
        }
    }
}

impl DeliverySettings {
    /// The format of the bodies for this address. A stream carries CloudEvents; the chosen format stays for
    /// the time after the stream.
    #[must_use]
    pub fn format_at(&self, address: &SinkAddress) -> PayloadFormat {
        match address.kind() {
            SinkKind::Stream => PayloadFormat::Cloudevents,
            _ => self.format,
        }
    }
}

/// The bounds of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSettings {
    /// Most changes (2 to 1,000).
    pub count: u32,
    /// Most bytes of their bodies together (65,536 to 8,388,608). A change that is larger alone
    /// goes by itself.
    pub bytes: u64,
    /// How long a batch that is not full waits for changes that are still being read, in
    /// milliseconds (0 to 10,000). The last changes of a round wait for nothing.
    pub linger_ms: u64,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self { count: 100, bytes: 1 << 20, linger_ms: 50 }
    }
}

impl BatchSettings {
    /// The bounds of `count`.
    pub const COUNT: std::ops::RangeInclusive<u32> = 2..=1_000;
    /// The bounds of `bytes`.
    pub const BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=8 << 20;
    /// The bounds of `linger_ms`.
    pub const LINGER_MS: std::ops::RangeInclusive<u64> = 0..=10_000;
}

/// A change of an app; `None` leaves a part as it is.
#[derive(Clone, Debug, Default)]
pub struct AppPatch {
    /// The new address at which the app receives changes.
    pub receives_at: Option<SinkAddress>,
    /// The delivery settings of the app.
    pub delivery: Option<DeliverySettings>,
    /// The reason why the app is disabled, or (`Some(None)`) that it is enabled again.
    pub disabled: Option<Option<String>>,
    /// A new signing key for the app.
    pub rotation: Option<Rotation>,
    /// A change of the access data of the app's endpoint.
    pub access: AccessPatch,
}

impl AppPatch {
    /// The app as it is served once this is written at `now`; a change of its access that cannot be
    /// is left out, as the store refuses it.
    #[must_use]
    pub fn laid_over(&self, app: &App, now: Timestamp) -> App {
        let mut app = app.clone();
        if let Ok(access) = app.access.changed(&self.access) {
            app.access = Arc::new(access);
        }
        if let Some(rotation) = &self.rotation {
            if rotation.overlap_until <= now {
                app.keys.clear();
            }
            app.keys.insert(0, rotation.key.clone());
        }
        if let Some(receives_at) = &self.receives_at {
            app.receives_at.clone_from(receives_at);
        }
        if let Some(delivery) = &self.delivery {
            app.delivery = delivery.clone();
        }
        if let Some(disabled) = &self.disabled {
            app.disabled.clone_from(disabled);
        }
        app
    }
}

/// A new signing key, and how long the older keys sign as well.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The new key; the current one from now on.
    pub key: Secret,
    /// When the older ones end, unless they end sooner.
    pub overlap_until: Timestamp,
}

/// The reason of an app that is disabled because its endpoint answered 410.
pub const GONE: &str = "the endpoint answered 410 Gone";

/// Signing keys that an app has at most, the current one among them: each is one more signature on
/// every delivery.
pub const KEYS_MAX: usize = 4;

/// An app as it is served: at its own sink, or at the sink of one watch ([`App::at`]).
#[derive(Clone, Debug)]
pub struct App {
    /// Id of the app, `app_` and a ULID.
    pub id: AppId,
    /// The sink of the watch; `None`: the app's own sink.
    pub sink: Option<SinkId>,
    /// The name of the app as people see it.
    pub name: String,
    /// The email address of a person to contact about the app.
    pub email: String,
    /// Whether the app was registered where anyone may register: nobody stands for its `email`.
    pub is_from_anyone: bool,
    /// Where the app receives: the sink of its watches.
    pub receives_at: SinkAddress,
    /// A web page about the app.
    pub website: Option<String>,
    /// What the app is for, in the words of its owner.
    pub description: Option<String>,
    /// Signing keys, the current one first; older ones only while their overlap lasts.
    pub keys: Vec<Secret>,
    /// The access data of the app's endpoint.
    pub access: Arc<EndpointAccess>,
    /// The delivery settings of the app.
    pub delivery: DeliverySettings,
    /// Why the app is disabled (410, or by hand); `None` while it is served.
    pub disabled: Option<String>,
    /// When the app got its present endpoint. Rises with each change of the address and when the app is
    /// enabled again. It tells apart answers of an earlier endpoint, which say nothing about the present one.
    pub endpoint_since: Timestamp,
    /// The moment of registration.
    pub created_at: Timestamp,
}

impl App {
    /// The mail address that `contact` of `mail.allow` means; empty where anyone could register the app.
    #[must_use]
    pub fn contact(&self) -> &str {
        if self.is_from_anyone { "" } else { &self.email }
    }

    /// The format of the bodies that the app gets where it receives now.
    #[must_use]
    pub fn format(&self) -> PayloadFormat {
        self.delivery.format_at(&self.receives_at)
    }
}
