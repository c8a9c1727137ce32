//! `egress`: the addresses that requests may go to, and the trusted certificate authorities.

use std::{fmt, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use tidings_section::{Fault, masked};
use url::Url;

use super::rules::Rules;

/// The section `egress` of the settings.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSettings {
    /// Networks (`10.20.0.0/16`, `[fd00::/8]:443`), addresses or host names that may be private;
    /// see [`Rules`].
    pub allow: Vec<String>,
    /// Whether plain http is spoken to receivers and Git hosts.
    pub allow_http: bool,
    /// Certificates (PEM) trusted in addition to the bundled roots.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy that every request goes through.
    pub proxy: Option<Url>,
    /// NATS servers that apps may name: hosts, with or without a port.
    pub streams: Vec<String>,
    /// Whether this machine's loopback addresses and `localhost` are reached as well, also by plain http. No
    /// setting can change this: only `tidings watch` sets it, for local use.
    #[serde(skip)]
    pub reaches_loopback: bool,
    /// The addresses at which this server listens: requests never go there, even if `allow` names them. No
    /// setting can change this: `tidings serve` sets it.
    #[serde(skip)]
    pub own: Vec<SocketAddr>,
}

impl EgressSettings {
    /// All faults of the section.
    #[must_use]
    pub fn validate(&self) -> Vec<Fault> {
        let fault = |name: &str, message: String| Fault { key: format!("egress.{name}"), message };
        let mut faults: Vec<Fault> = match Rules::parse(&self.allow) {
            Ok(_) => Vec::new(),
            Err(bad) => bad.into_iter().map(|message| fault("allow", message)).collect(),
        };
        if let Some(path) = self.ca_file.as_ref().filter(|path| !path.is_file()) {
            faults.push(fault("ca_file", format!("{:?} is not a file", path.display().to_string())));
        }
        if self.proxy.as_ref().is_some_and(|proxy| !matches!(proxy.scheme(), "http" | "https")) {
            faults.push(fault("proxy", "the proxy's address begins with http:// or https://".into()));
        }
        let bad = self.streams.iter().filter(|entry| server(entry).is_none());
        faults.extend(bad.map(|entry| {
            fault(
                "streams",
                format!("{entry:?} is no host, with or without a port, such as nats.internal:4222"),
            )
        }));
        faults
    }

    /// Whether apps may name this server as their stream.
    #[must_use]
    pub fn names_stream(&self, host: &str, port: u16) -> bool {
        self.streams
            .iter()
            .filter_map(|entry| server(entry))
            .any(|(known, of)| known.eq_ignore_ascii_case(host) && of.is_none_or(|of| of == port))
    }
}

/// The password of a proxy is replaced by a word.
impl Serialize for EgressSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            allow: &'a [String],
            allow_http: bool,
            ca_file: String,
            proxy: String,
            streams: &'a [String],
        }
        let path = |path: &std::path::PathBuf| path.display().to_string();
        Shown {
            allow: &self.allow,
            allow_http: self.allow_http,
            ca_file: self.ca_file.as_ref().map(path).unwrap_or_default(),
            proxy: self.proxy.as_ref().map(masked).unwrap_or_default(),
            streams: &self.streams,
        }
        .serialize(serializer)
    }
}

/// A host with an optional port; a literal IPv6 address with a port is in brackets.
fn server(entry: &str) -> Option<(&str, Option<u16>)> {
    let entry = entry.trim();
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, Some(port.parse().ok().filter(|port| *port > 0)?))
        }
        _ => (entry, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_name =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte));
    is_name.then_some((host, port))
}

impl fmt::Debug for EgressSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The proxy's address may hold a password.
        let proxy = self.proxy.as_ref().map(|proxy| (proxy.scheme(), proxy.host_str(), proxy.port()));
        formatter
            .debug_struct("EgressSettings")
            .field("allow", &self.allow)
            .field("allow_http", &self.allow_http)
            .field("ca_file", &self.ca_file)
            .field("proxy", &proxy)
            .field("streams", &self.streams)
            .field("reaches_loopback", &self.reaches_loopback)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_entry_is_named_at_once() {
        let settings = EgressSettings {
            allow: vec!["10.0.0.0/8".into(), "10.0.0.0/40".into(), "*.x".into()],
            ca_file: Some("/nowhere/ca.pem".into()),
            proxy: Some("socks5://user:hush@proxy".parse().expect("a URL")),
            ..EgressSettings::default()
        };
        let faults = settings.validate();
        let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["egress.allow", "egress.allow", "egress.ca_file", "egress.proxy"]);
        assert!(faults[0].message.contains("10.0.0.0/40") && faults[1].message.contains("*.x"));
        assert!(!format!("{faults:?}{settings:?}").contains("hush"));
        assert!(EgressSettings::default().validate().is_empty());
    }
}
