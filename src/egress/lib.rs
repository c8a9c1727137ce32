//! The only HTTP client of this process. Every request that leaves it (deliveries, Git, keys) is made by an
//! [`Egress`], except those to other replicas of this server ([`replicas`]).
//!
//! Its rules: addresses are judged after resolution, and only judged addresses are connected to; literal
//! addresses are judged too, in every spelling; one refused address refuses the whole answer of a resolver;
//! nothing is sent to the addresses on which this server listens; private ranges are refused unless
//! `egress.allow` names them; redirects are never followed; environment proxies are never used; nothing is
//! retried; answers are not decompressed; ports are 80, 443 and those above 1023; TLS 1.2 or newer against
//! bundled roots plus `egress.ca_file`, and for one app the authorities that it named ([`of_apps`]).
//!
//! With `egress.proxy` every request goes through that proxy, which resolves the names: then the proxy must
//! judge them. Literal addresses are still judged here.

pub mod address;
pub mod dial;
pub mod mail;
pub mod of_apps;
pub mod redaction;
pub mod refused;
pub mod replicas;
pub mod resolver;
pub mod rules;
pub mod settings;
pub mod tls;

use std::{collections::BTreeMap, error::Error, io, net::IpAddr, sync::Arc, time::Duration};

use reqwest::{Client, Method, RequestBuilder, redirect, retry};
use rustls::RootCertStore;
use thiserror::Error;
use url::{Host, Url};

use crate::settings::EgressSettings;
use refused::Refused;
use resolver::{Guard, Lookup, system_lookup};
use rules::Rules;
use tls::AppTls;

/// Header lines an answer may have; beyond, the answer is an error.
const ANSWER_HEADERS_MAX: usize = 128;
/// Bytes of header block an HTTP/2 answer may have.
const ANSWER_HEADER_BYTES_MAX: u32 = 64 * 1024;
/// The longest wait for a connection (resolution, TCP and TLS) unless a caller sets another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);
/// Unused connections kept for one host: as many as one cursor may have in flight.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// The reason why a request cannot be made.
#[derive(Debug, Error)]
pub enum EgressError {
    /// The address, or its port, is refused by the egress rules.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Plain http, which settings do not allow.
    #[error("plain http is refused: egress.allow_http is not set (set it to true to allow plain http)")]
    PlainHttp,
    /// The address cannot be used; the text says why and holds no part of it.
    #[error("the address is not usable: {0}")]
    InvalidUrl(String),
    /// The name has no address, or the resolver could not be asked.
    #[error("the name of the host was not resolved")]
    Unresolved,
    /// TLS cannot be set up: the certificates of `egress.ca_file` cannot be read.
    #[error("tls: {0}")]
    Tls(String),
    /// The settings cannot be used.
    #[error("egress settings: {0}")]
    Settings(String),
}

/// The guarded client. Clones share connections.
#[derive(Clone)]
pub struct Egress {
    shared: Arc<Shared>,
}

struct Shared {
    recipe: Arc<Recipe>,
    general: Client,
    /// Clients for the ports that `egress.allow` names or this server listens on. A resolver does not learn
    /// the port of a request, so each of these ports has its own client and resolver.
    by_port: BTreeMap<u16, Client>,
}

/// The settings that clients are built from, apart from their TLS setup.
struct Recipe {
    settings: EgressSettings,
    rules: Arc<Rules>,
    roots: RootCertStore,
    lookup: Lookup,
    connect_timeout: Duration,
}

impl Egress {
    /// Builds the client.
    ///
    /// # Errors
    /// [`EgressError::Settings`] for a bad entry, [`EgressError::Tls`] for a bad `ca_file`.
    pub fn new(settings: &EgressSettings) -> Result<Self, EgressError> {
        Self::with_lookup(settings, system_lookup())
    }

    /// The same rules with another client, which waits at most `connect_timeout` for a connection.
    ///
    /// # Errors
    /// As [`Egress::new`].
    pub fn connecting_within(
        settings: &EgressSettings,
        connect_timeout: Duration,
    ) -> Result<Self, EgressError> {
        Self::with(settings, system_lookup(), connect_timeout)
    }

    /// The rules of the settings, where `lookup` resolves host names to addresses.
    ///
    /// # Errors
    /// As [`Egress::new`].
    pub fn with_lookup(settings: &EgressSettings, lookup: Lookup) -> Result<Self, EgressError> {
        Self::with(settings, lookup, CONNECT_TIMEOUT)
    }

    fn with(
        settings: &EgressSettings,
        lookup: Lookup,
        connect_timeout: Duration,
    ) -> Result<Self, EgressError> {
        let rules =
            Rules::parse(&settings.allow).map_err(|faults| EgressError::Settings(faults.join("; ")))?;
        let rules = if settings.reaches_loopback { rules.with_host(LOCALHOST) } else { rules };
        let rules = Arc::new(rules.without(&settings.own));
        let roots = tls::roots(settings)?;
        let recipe = Recipe { settings: settings.clone(), rules, roots, lookup, connect_timeout };
        Self::of_recipe(Arc::new(recipe), None)
    }

    /// The same rules and roots with the TLS setup of one app, with connections of its own. Build it once for
    /// a setup: see [`of_apps::AppEgress`].
    ///
    /// # Errors
    /// [`EgressError::Tls`] for a setup that cannot be used.
    pub fn with_tls(&self, app: AppTls) -> Result<Self, EgressError> {
        Self::of_recipe(Arc::clone(&self.shared.recipe), Some(app))
    }

    /// Whether both share clients and connections.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn of_recipe(recipe: Arc<Recipe>, app: Option<AppTls>) -> Result<Self, EgressError> {
        let Recipe { settings, rules, roots, lookup, connect_timeout } = &*recipe;
        let tls = tls::config(roots.clone(), app)?;
        // Under a proxy the only name that is ever resolved here is the proxy's own.
        let resolving = match settings.proxy.as_ref().and_then(Url::host_str) {
            None => Arc::clone(rules),
            Some(proxy) if settings.reaches_loopback => {
                Arc::new(Rules::default().with_host(proxy).with_host(LOCALHOST))
            }
            Some(proxy) => Arc::new(Rules::default().with_host(proxy)),
        };
        let client = |port| {
            let guard = Guard { rules: Arc::clone(&resolving), port, lookup: Arc::clone(lookup) };
            build(settings, tls.clone(), guard, *connect_timeout)
        };
        let by_port = rules.ports().into_iter().map(|port| Ok((port, client(Some(port))?)));
        let by_port = by_port.collect::<Result<_, EgressError>>()?;
        let general = client(None)?;
        Ok(Self { shared: Arc::new(Shared { recipe, general, by_port }) })
    }

    /// Begins a request. Names are judged when the request is sent: see [`Egress::is_refused`].
    ///
    /// # Errors
    /// [`EgressError::InvalidUrl`] for another scheme, userinfo or a missing host,
    /// [`EgressError::PlainHttp`], [`EgressError::Refused`] for a refused literal address or port.
    pub fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, EgressError> {
        match url.scheme() {
            "https" => {}
            "http" if self.shared.recipe.settings.allow_http => {}
            "http" if self.reaches_loopback() && is_loopback(url) => {}
            "http" => return Err(EgressError::PlainHttp),
            _ => return Err(EgressError::InvalidUrl("only https and http are spoken".into())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::InvalidUrl("it holds credentials".into()));
        }
        let port = url.port_or_known_default().unwrap_or(0);
        if !matches!(port, 80 | 443 | 1024..) {
            return Err(Refused::Port(port).into());
        }
        let rules = &self.shared.recipe.rules;
        let literal = match url.host() {
            None => return Err(EgressError::InvalidUrl("it names no host".into())),
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            // The connector would connect to such a name without asking a resolver.
            Some(Host::Domain(name)) => name.trim_end_matches('.').parse().ok(),
        };
        if let Some(address) = literal.filter(|address| rules.is_own(*address, Some(port))) {
            return Err(Refused::Own(address.to_string()).into());
        }
        let is_open = |address: IpAddr| {
            rules.admit(address, Some(port)) || self.reaches_loopback() && address.is_loopback()
        };
        if let Some(address) = literal.filter(|address| !is_open(*address)) {
            return Err(rules.refused(address, Some(port)).into());
        }
        let client = self.shared.by_port.get(&port).unwrap_or(&self.shared.general);
        Ok(client.request(method, url.clone()))
    }

    /// Whether a secret may travel to this address: over https, or in clear text to this machine itself (a
    /// loopback address or `localhost`, without a proxy in between). A setting that allows plain http does
    /// not change this.
    #[must_use]
    pub fn may_carry_secrets(&self, url: &Url) -> bool {
        match url.scheme() {
            "https" | "tls" => true,
            "nats" => url.host_str().is_some_and(|host| self.may_carry_secrets_to(host)),
            "http" => is_loopback(url) && self.shared.recipe.settings.proxy.is_none(),
            _ => false,
        }
    }

    fn reaches_loopback(&self) -> bool {
        self.shared.recipe.settings.reaches_loopback
    }

    /// The text for a request whose connection was refused: where nothing listens. `None`: it failed for
    /// another reason.
    #[must_use]
    pub fn connection_refused(&self, error: &reqwest::Error) -> Option<String> {
        cause::<io::Error>(error).filter(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)?;
        let settings = &self.shared.recipe.settings;
        let asked = error.url()?;
        let is_direct = settings.reaches_loopback && is_loopback(asked);
        let proxy = settings.proxy.as_ref().filter(|_| !is_direct);
        let (what, url) = proxy.map_or(("", asked), |proxy| ("egress.proxy, ", proxy));
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        Some(format!("nothing listens at {what}{host}:{port} (connection refused)"))
    }

    /// Whether a request failed because a name resolved to a refused address.
    #[must_use]
    pub fn is_refused(error: &reqwest::Error) -> bool {
        Self::refusal(error).is_some()
    }

    /// The refused address, if a request failed because the name resolved to it.
    #[must_use]
    pub fn refusal(error: &reqwest::Error) -> Option<&Refused> {
        cause(error)
    }

    /// Whether a request failed because the name of its host has no address.
    #[must_use]
    pub fn is_unresolved(error: &reqwest::Error) -> bool {
        cause::<resolver::Unresolved>(error).is_some()
    }
}

/// The cause of this kind behind an error.
fn cause<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        source = inner.source();
    }
    None
}

/// Hosts that are reached without the proxy, if loopback is allowed.
const DIRECT: &str = "localhost,127.0.0.0/8,::1";
/// The name of this machine.
const LOCALHOST: &str = "localhost";

/// Whether an address is this machine by its letters: a loopback address, or `localhost`.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == LOCALHOST,
        None => false,
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that builds an HTTP client")]
fn build(
    settings: &EgressSettings,
    tls: rustls::ClientConfig,
    guard: Guard,
    connect_timeout: Duration,
) -> Result<Client, EgressError> {
    let mut client = Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(guard))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .connect_timeout(connect_timeout)
        .http1_max_headers(ANSWER_HEADERS_MAX)
        .http2_max_header_list_size(ANSWER_HEADER_BYTES_MAX)
        .tcp_nodelay(true)
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
    if let Some(proxy) = &settings.proxy {
        let proxy = reqwest::Proxy::all(proxy.clone())
            .map_err(|_| EgressError::Settings("the proxy's address is not usable".into()))?;
        // Behind a proxy, loopback would be the proxy's own machine.
        let direct = settings.reaches_loopback.then(|| reqwest::NoProxy::from_string(DIRECT)).flatten();
        client = client.proxy(proxy.no_proxy(direct));
    }
    client.build().map_err(|error| EgressError::Settings(error.without_url().to_string()))
}

#[cfg(test)]
mod tests;
