//! Sinks as stored in rows and used in messages.

use std::{fmt, str::FromStr, sync::Arc};

use tidings_entity::id::{AppId, InvalidId, SinkId};

use crate::{
    model::{secret::Secret, sink::SinkAddress},
    ports::{App, DeliverySettings, EndpointAccess, GONE},
    time::Timestamp,
};

/// Names a sink: the app's own sink, or the sink of one watch or subscription.
///
/// As text: the id of the app, followed by the id of the sink if it is not the app's own (`app_.../snk_...`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkKey {
    /// The app that the sink belongs to.
    pub app: AppId,
    /// The sink of one watch; `None`: the app's own.
    pub sink: Option<SinkId>,
}

impl SinkKey {
    /// The own sink of an app.
    #[must_use]
    pub fn own(app: &AppId) -> Self {
        Self { app: app.clone(), sink: None }
    }

    /// The id in the row of the sink's breaker: the id of the app for the app's own sink.
    #[must_use]
    pub fn id(&self) -> &str {
        self.sink.as_ref().map_or(self.app.as_str(), SinkId::as_str)
    }
}

impl fmt::Display for SinkKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sink {
            Some(sink) => write!(formatter, "{}/{sink}", self.app),
            None => self.app.fmt(formatter),
        }
    }
}

impl FromStr for SinkKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.split_once('/') {
            Some((app, sink)) => Ok(Self { app: app.parse()?, sink: Some(sink.parse()?) }),
            None => Ok(Self { app: text.parse()?, sink: None }),
        }
    }
}

/// The sink that a watch is given.
#[derive(Clone, Debug)]
pub struct NewSink {
    /// The id for the sink, if the watch has no sink yet.
    pub id: SinkId,
    /// Where changes are sent, or that a consumer pulls them.
    pub address: SinkAddress,
    /// Headers, credentials and certificates for requests to the sink.
    pub access: EndpointAccess,
    /// Format, order and limits.
    pub delivery: DeliverySettings,
    /// The key that signs deliveries, if the sink has no key yet.
    pub signing_key: Option<Secret>,
}

/// The sink of one watch or one subscription as it is shown: without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchSink {
    /// Id of the sink, `snk_` and a ULID.
    pub id: SinkId,
    /// Where changes are sent, or that a consumer pulls them.
    pub address: SinkAddress,
    /// Whether requests carry headers, credentials or certificates that the app chose.
    pub has_access: bool,
    /// Format, order and limits.
    pub delivery: DeliverySettings,
    /// Why nothing is delivered to the sink; `None` while it is served.
    pub disabled: Option<String>,
}

/// The sink of one watch or one subscription as it is served, with its secrets.
#[derive(Clone, Debug)]
pub struct OwnSink {
    /// Id of the sink, `snk_` and a ULID.
    pub id: SinkId,
    /// Where changes are sent, or that a consumer pulls them.
    pub address: SinkAddress,
    /// The key that signs deliveries; `None` while nothing was ever sent to the sink, and for a callback that
    /// signs with the key of the app.
    pub signing_key: Option<Secret>,
    /// The previous key, which also signs while the receiver may not have the new key yet.
    pub former_key: Option<Secret>,
    /// Headers, credentials and certificates for requests to the sink.
    pub access: Arc<EndpointAccess>,
    /// Format, order and limits.
    pub delivery: DeliverySettings,
    /// Why the sink is disabled; `None` while it is served.
    pub disabled: Option<String>,
    /// When the sink got its present address.
    pub since: Timestamp,
}

impl App {
    /// The app as it is served at a sink that is not its own. Limits of the app as a whole stay: its rate,
    /// its attempts at once, and a disabling by hand. An app that was disabled because its own endpoint is
    /// gone still delivers to other sinks. A sink without a key of its own signs with those of the app.
    #[must_use]
    pub fn at(&self, sink: &OwnSink) -> Self {
        let own: Vec<Secret> = sink.signing_key.iter().chain(&sink.former_key).cloned().collect();
        let by_hand = self.disabled.clone().filter(|why| why != GONE);
        Self {
            sink: Some(sink.id.clone()),
            receives_at: sink.address.clone(),
            keys: if own.is_empty() { self.keys.clone() } else { own },
            access: Arc::clone(&sink.access),
            delivery: DeliverySettings {
                rate: self.delivery.rate,
                max_concurrent: self.delivery.max_concurrent,
                multi_branch: self.delivery.multi_branch,
                ..sink.delivery.clone()
            },
            disabled: by_hand.or_else(|| sink.disabled.clone()),
            endpoint_since: sink.since,
            ..self.clone()
        }
    }

    /// Names the sink that it is served at.
    #[must_use]
    pub fn sink_key(&self) -> SinkKey {
        SinkKey { app: self.id.clone(), sink: self.sink.clone() }
    }
}
