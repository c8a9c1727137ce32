//! Sinks as rows and messages know them.

use std::{fmt, str::FromStr, sync::Arc};

use tidings_entity::id::{AppId, InvalidId, SinkId};

use super::{App, DeliverySettings, EndpointAccess, GONE};
use crate::{secret::Secret, sink::SinkAddress, time::Timestamp};

/// Names a sink: the own sink of an app, or one that a watch of the app has for itself.
///
/// As text it is the id of the app, or that and the id of the sink: `app_.../snk_...`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkKey {
    /// The app.
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

    /// What the rows of its breaker are named by: the id of the app for the app's own sink.
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
    /// The id that it gets if the watch has none yet.
    pub id: SinkId,
    /// Where changes go.
    pub address: SinkAddress,
    /// What goes with requests.
    pub access: EndpointAccess,
    /// Format, order and limits.
    pub delivery: DeliverySettings,
    /// What deliveries are signed with, where the sink has no key yet.
    pub signing_key: Option<Secret>,
}

/// A sink that one watch or one subscription has for itself, as it is shown: without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchSink {
    /// Its id.
    pub id: SinkId,
    /// Where changes go.
    pub address: SinkAddress,
    /// Whether requests carry headers, credentials or certificates of the app's choice.
    pub has_access: bool,
    /// Format, order and limits.
    pub delivery: DeliverySettings,
    /// Why it is not served, where it is not.
    pub disabled: Option<String>,
}

/// A sink that one watch or one subscription has for itself, as it is served.
#[derive(Clone, Debug)]
pub struct OwnSink {
    /// Its id.
    pub id: SinkId,
    /// Where changes go.
    pub address: SinkAddress,
    /// What deliveries are signed with.
    pub signing_key: Option<Secret>,
    /// What signs beside it, while the receiver may not have the new key yet.
    pub former_key: Option<Secret>,
    /// What goes with requests.
    pub access: Arc<EndpointAccess>,
    /// Format, order and limits.
    pub delivery: DeliverySettings,
    /// Why it is not served, where it is not.
    pub disabled: Option<String>,
    /// Since when it has this address.
    pub since: Timestamp,
}

impl App {
    /// The app as it is served at a sink that is not its own. What bounds the app as a whole stays: its
    /// rate, its attempts at once, and that it is disabled by hand. That its own endpoint is gone says
    /// nothing of
    /// other sinks.
    #[must_use]
    pub fn at(&self, sink: &OwnSink) -> Self {
        let by_hand = self.disabled.clone().filter(|why| why != GONE);
        Self {
            sink: Some(sink.id.clone()),
            receives_at: sink.address.clone(),
            keys: sink.signing_key.iter().chain(&sink.former_key).cloned().collect(),
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
