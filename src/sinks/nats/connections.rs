//! One connection for a sink and a server: made at its first message, shared by its lanes, dropped when it
//! breaks, when its settings change, or when it was unused for a while. The next message resolves and judges
//! the server's name again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tidings_actors::ports::{Endpoint, EndpointAccess, EndpointAuth, SinkKey};
use tidings_egress::{Egress, EgressError, redaction::redact, tls::fingerprint};
use tokio::{
    sync::{Mutex as Turn, watch},
    time::Instant,
};

use super::target::Target;

/// The number of sinks whose connections are kept; beyond it, the one unused for the longest time is closed.
const KEPT_MAX: usize = 1_024;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(300);
/// The deadline for one address: a test delivery has ten seconds for all addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a server that says nothing is asked whether it lives.
const PING: Duration = Duration::from_secs(10);
/// Attempts to connect: after a failure the lane tries again, with a new name resolution.
const TRIES: usize = 1;

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum Unconnected {
    /// The address is refused, or TLS cannot be set up.
    #[error("{0}")]
    Egress(#[from] EgressError),
    /// The endpoint asks for something that this server cannot give.
    #[error("{0}")]
    Unusable(&'static str),
    /// The server cannot be reached, or refuses the login.
    #[error("{0}")]
    Server(String),
}

/// A connection to a NATS server, and whether it is still open.
#[derive(Clone)]
pub(super) struct Connection {
    client: Client,
    broken: Arc<watch::Sender<bool>>,
}

impl Connection {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until the connection breaks.
    pub(super) async fn broken(&self) {
        drop(self.broken.subscribe().wait_for(|is_broken| *is_broken).await);
    }

    /// Marks the connection: no further message uses it.
    pub(super) fn retire(&self) {
        self.broken.send_replace(true);
    }

    fn stands(&self) -> bool {
        !*self.broken.borrow()
    }
}

/// The connections of all sinks.
pub(super) struct Connections {
    egress: Egress,
    slots: Mutex<HashMap<SinkKey, Slot>>,
}

/// The slot of one sink's connection: one task makes the connection, the others wait.
struct Slot {
    setup: [u8; 32],
    place: Arc<Turn<Option<Connection>>>,
    used: Instant,
}

impl Connections {
    pub(super) fn new(egress: Egress) -> Self {
        Self { egress, slots: Mutex::default() }
    }

    /// The connection of a sink to a server.
    pub(super) async fn of(&self, endpoint: &Endpoint, target: &Target) -> Result<Connection, Unconnected> {
        let place = self.place(&endpoint.sink, setup(&endpoint.access, target));
        let mut place = place.lock().await;
        if let Some(connection) = place.as_ref().filter(|connection| connection.stands()) {
            return Ok(connection.clone());
        }
        let made = self.connect(endpoint, target).await?;
        *place = Some(made.clone());
        Ok(made)
    }

    fn place(&self, sink: &SinkKey, setup: [u8; 32]) -> Arc<Turn<Option<Connection>>> {
        let (mut slots, now) = (self.slots.lock(), Instant::now());
        slots.retain(|of, slot| of == sink || now.duration_since(slot.used) < IDLE);
        if let Some(slot) = slots.get_mut(sink).filter(|slot| slot.setup == setup) {
            slot.used = now;
            return Arc::clone(&slot.place);
        }
        if slots.len() >= KEPT_MAX && !slots.contains_key(sink) {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.used).map(|(sink, _)| sink.clone());
            oldest.map(|oldest| slots.remove(&oldest));
        }
        let place = Arc::default();
        slots.insert(sink.clone(), Slot { setup, place: Arc::clone(&place), used: now });
        place
    }

    async fn connect(&self, endpoint: &Endpoint, target: &Target) -> Result<Connection, Unconnected> {
        let Target { host, port, needs_tls, .. } = target;
        let access = &endpoint.access;
        if access.has_secrets() && !needs_tls && !self.egress.may_carry_secrets_to(host) {
            return Err(Unconnected::Unusable("credentials go over tls:// only"));
        }
        let addresses = self.egress.dialled(host, *port, !*needs_tls).await?;
        let mut last = Unconnected::Server("the name has no address".to_owned());
        for address in addresses {
            let broken = Arc::new(watch::Sender::new(false));
            let sender = Arc::clone(&broken);
            let options = with_credentials(ConnectOptions::new(), access.auth.as_ref())?
                .name(concat!("tidings/", env!("CARGO_PKG_VERSION")))
                .require_tls(*needs_tls)
                .tls_client_config(self.egress.tls_named(access.tls.as_ref(), host)?)
                .connection_timeout(CONNECT_TIMEOUT)
                .ping_interval(PING)
                .max_reconnects(TRIES)
                .ignore_discovered_servers()
                .event_callback(move |event| {
                    let sender = Arc::clone(&sender);
                    async move {
                        if matches!(event, Event::Disconnected | Event::Closed | Event::LameDuckMode) {
                            sender.send_replace(true);
                        }
                    }
                });
            match options.connect(format!("nats://{address}")).await {
                Ok(client) => return Ok(Connection { client, broken }),
                Err(error) => {
                    let what = match error.kind() {
                        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                            "the server does not take the credentials"
                        }
                        ConnectErrorKind::TimedOut => "the server did not answer in time",
                        ConnectErrorKind::Tls => "the encrypted connection failed",
                        _ => "the server cannot be reached",
                    };
                    last = Unconnected::Server(format!("{what}: {}", redact(&error.to_string())));
                }
            }
        }
        Err(last)
    }
}

fn with_credentials(
    options: ConnectOptions,
    auth: Option<&EndpointAuth>,
) -> Result<ConnectOptions, Unconnected> {
    Ok(match auth {
        None => options,
        Some(EndpointAuth::Basic { username, password }) => {
            options.user_and_password(username.clone(), password.expose().to_owned())
        }
        Some(EndpointAuth::Bearer { token }) => options.token(token.expose().to_owned()),
        Some(EndpointAuth::Oauth2(_)) => {
            return Err(Unconnected::Unusable(
                "a NATS server takes a user and password or a token, not OAuth 2.0",
            ));
        }
    })
}

/// A hash of the settings of a connection, which does not store them.
fn setup(access: &EndpointAccess, target: &Target) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let (user, secret) = match &access.auth {
        Some(EndpointAuth::Basic { username, password }) => (username.as_str(), password.expose()),
        Some(EndpointAuth::Bearer { token }) => ("", token.expose()),
        Some(EndpointAuth::Oauth2(_)) | None => ("", ""),
    };
    for part in [target.host.as_str(), user, secret] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update(target.port.to_be_bytes());
    hasher.update([u8::from(target.needs_tls), u8::from(access.tls.is_some())]);
    if let Some(tls) = &access.tls {
        hasher.update(fingerprint(tls));
    }
    hasher.finalize().into()
}
