//! The HTTP server: its addresses, and the limits for clients.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tidings_actors::model::secret::Secret;
use tidings_entity::kind::ReplicaRole;
use url::Url;

use super::{Fault, Rate, duration, optional, secret};

/// An admin token has at least this many characters, so that nobody guesses it.
const ADMIN_TOKEN_CHARACTERS_MIN: usize = 32;

/// Why a token cannot be the admin token, as the continuation of a sentence; `None`: it can.
pub(crate) fn fault_of_admin_token(token: &Secret) -> Option<String> {
    let is_short = token.expose().chars().count() < ADMIN_TOKEN_CHARACTERS_MIN;
    is_short.then(|| format!("has fewer than {ADMIN_TOKEN_CHARACTERS_MIN} characters"))
}

/// The HTTP front door.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// What this process is there for, where others share its database.
    #[serde(deserialize_with = "tidings_section::word")]
    pub role: ReplicaRole,
    /// API and health listen here.
    pub listen: SocketAddr,
    /// Where other replicas reach this one; not set: at [`ServerSettings::listen`], if that is an address
    /// that others can use.
    #[serde(with = "optional")]
    pub replica_url: Option<Url>,
    /// Where health, version and metrics are served instead, in plain http.
    #[serde(with = "optional")]
    pub ops_listen: Option<SocketAddr>,
    /// The certificate that is shown, with those that lead to its authority (PEM).
    #[serde(with = "optional")]
    pub tls_cert_file: Option<PathBuf>,
    /// The private key of the certificate (PEM).
    #[serde(with = "optional")]
    pub tls_key_file: Option<PathBuf>,
    /// Networks and addresses of proxies whose word on who asks is taken; see
    /// [`ServerSettings::proxies`].
    pub trusted_proxies: Vec<String>,
    /// Requests of one address.
    pub address_rate: Rate,
    /// Requests with all tokens of one owner.
    pub token_rate: Rate,
    /// Origins whose pages may read answers.
    pub cors_origins: Vec<String>,
    /// The token of `/api/admin`; not set: made at the first start in `data_dir/admin-token`.
    #[serde(with = "secret")]
    pub admin_token: Option<Secret>,
    /// A file that holds the admin token.
    #[serde(with = "optional")]
    pub admin_token_file: Option<PathBuf>,
    /// How long the headers of a request may take, and how long an idle connection is kept.
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    /// How long the body of a request may take.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// How long a client may leave an answer unread before its connection is closed.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// Bytes a second that a client takes of an answer at least, over more than `write_timeout`.
    pub write_bytes_per_second_min: u64,
    /// How long a stop waits for requests that are being answered.
    #[serde(with = "duration")]
    pub drain_deadline: Duration,
    /// Most bytes of a request's body.
    pub body_bytes_max: u64,
    /// Bytes of contents that all downloads together hold in memory, beside one larger content.
    pub download_memory_bytes: u64,
    /// Most headers of a request.
    pub headers_max: usize,
    /// Most connections at once; a start lowers it where the process may open few files.
    pub connections_max: usize,
    /// Most connections of one address at once.
    pub connections_per_address_max: usize,
    /// Most connections at once whose request waits for a task or for the end of one. They come on top of
    /// `connections_max`; a start lowers it where the process may open few files.
    pub waiting_connections_max: usize,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            role: ReplicaRole::All,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            replica_url: None,
            ops_listen: None,
            tls_cert_file: None,
            tls_key_file: None,
            trusted_proxies: Vec::new(),
            address_rate: Rate::per_second(2_000),
            token_rate: Rate::per_second(1_000),
            cors_origins: Vec::new(),
            admin_token: None,
            admin_token_file: None,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            write_bytes_per_second_min: 16 << 10,
            drain_deadline: Duration::from_secs(20),
            body_bytes_max: 1 << 20,
            download_memory_bytes: 128 << 20,
            headers_max: 64,
            connections_max: 1024,
            connections_per_address_max: 256,
            waiting_connections_max: 4096,
        }
    }
}

impl ServerSettings {
    /// The networks of `trusted_proxies`, and each invalid entry.
    #[must_use]
    pub fn proxies(&self) -> (Vec<IpNet>, Vec<&str>) {
        let (mut networks, mut bad) = (Vec::new(), Vec::new());
        for entry in &self.trusted_proxies {
            let read = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
            match read {
                Ok(network) => networks.push(network),
                Err(_) => bad.push(entry.as_str()),
            }
        }
        (networks, bad)
    }

    /// The faults of keys that are lists, or that depend on each other.
    fn validate_edge(&self) -> Vec<Fault> {
        let (_, bad) = self.proxies();
        let mut faults: Vec<Fault> = bad
            .into_iter()
            .map(|entry| Fault::new("server.trusted_proxies", format!("{entry:?} is no network or address")))
            .collect();
        for origin in self.cors_origins.iter().filter(|origin| !is_origin(origin)) {
            let message = format!(
                "{origin:?} is no origin: write scheme and host as a browser \
                 does, \"https://docs.example.org\""
            );
            faults.push(Fault::new("server.cors_origins", message));
        }
        let both = [
            ("server.tls_cert_file", &self.tls_cert_file, &self.tls_key_file, "tls_key_file"),
            ("server.tls_key_file", &self.tls_key_file, &self.tls_cert_file, "tls_cert_file"),
        ];
        for (key, file, other, other_key) in both {
            match file {
                Some(path) if !path.is_file() => {
                    faults.push(Fault::new(key, format!("{:?} is not a file", path.display().to_string())));
                }
                Some(_) if other.is_none() => {
                    faults.push(Fault::new(key, format!("server.{other_key} is missing: TLS needs both")));
                }
                _ => {}
            }
        }
        if self.ops_listen.is_some_and(|ops| ops.port() != 0 && ops == self.listen) {
            faults.push(Fault::new("server.ops_listen", "this is server.listen as well"));
        }
        if self.replica_url.as_ref().is_some_and(|url| !is_base(url)) {
            let message = "write scheme, host and port of this replica, \"http://10.0.0.5:8080\"";
            faults.push(Fault::new("server.replica_url", message));
        }
        faults
    }

    pub(super) fn validate(&self) -> Vec<Fault> {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let fault_of_token = self.admin_token.as_ref().and_then(fault_of_admin_token);
        [
            fault_of_token.map(|fault| Fault::new("server.admin_token", format!("the token {fault}"))),
            Fault::of_zero("server.header_timeout", self.header_timeout),
            Fault::of_zero("server.body_timeout", self.body_timeout),
            Fault::of_zero("server.write_timeout", self.write_timeout),
            Fault::of_range(
                "server.write_bytes_per_second_min",
                self.write_bytes_per_second_min,
                1..=16 << 20,
            ),
            Fault::of_range("server.body_bytes_max", self.body_bytes_max, 1024..=64 << 20),
            Fault::of_range("server.download_memory_bytes", self.download_memory_bytes, 1 << 20..=1 << 40),
            Fault::of_range("server.headers_max", count(self.headers_max), 8..=1024),
            Fault::of_range("server.connections_max", count(self.connections_max), 1..=65_536),
            Fault::of_range(
                "server.connections_per_address_max",
                count(self.connections_per_address_max),
                1..=65_536,
            ),
            Fault::of_range(
                "server.waiting_connections_max",
                count(self.waiting_connections_max),
                1..=65_536,
            ),
        ]
        .into_iter()
        .flatten()
        .chain(self.validate_edge())
        .collect()
    }
}

/// Whether an address is a web address without path, query and credentials.
fn is_base(url: &Url) -> bool {
    let has_more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    matches!(url.scheme(), "http" | "https") && url.has_host() && !has_more && !has_credentials
}

/// Whether a text has the form of the header `Origin` of a browser.
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
    })
}
