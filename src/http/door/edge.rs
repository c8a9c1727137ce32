//! The checks that every request passes first, and the headers that every answer gets: the client's address
//! (behind which proxies), its rate, and the web pages that may read the answer.

mod cors;
mod rates;

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use ipnet::IpNet;
use warp::reply::Response;

pub(crate) use self::rates::Limiter;
use self::{cors::Cors, rates::Rates};
use super::request::Caller;
use crate::http::bodies::problem::Problem;
use crate::settings::ServerSettings;

/// The header in which proxies name the client.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The header in which a proxy names the scheme of its own request.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Most addresses of it that are looked at, the nearest first.
const HOPS_MAX: usize = 16;
/// For how long browsers use only TLS, after their first request with TLS.
const STRICT_TRANSPORT: &str = "max-age=31536000";

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The IP address and port of the other end.
    pub address: SocketAddr,
    /// Whether the connection is encrypted with TLS.
    pub is_tls: bool,
    /// The version of HTTP that the request was sent in.
    pub version: Version,
}

/// Whether a request names its host unambiguously (RFC 9112, 3.2): one `Host` header, which only HTTP/1.0 may
/// omit.
pub(crate) fn is_host_named(version: Version, headers: &HeaderMap) -> bool {
    match headers.get_all(header::HOST).iter().count() {
        0 => version < Version::HTTP_11,
        count => count == 1,
    }
}

/// The bounds and rules of the front door.
pub struct Edge {
    proxies: Vec<IpNet>,
    rates: Rates,
    cors: Cors,
}

impl Edge {
    /// The edge with these settings.
    #[must_use]
    pub fn new(settings: &ServerSettings) -> Self {
        let (proxies, _refused_at_the_start) = settings.proxies();
        Self {
            proxies,
            rates: Rates::new(settings.address_rate, settings.token_rate),
            cors: Cors::new(&settings.cors_origins),
        }
    }

    /// Whether a peer is a trusted proxy.
    #[must_use]
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|network| network.contains(&address))
    }

    /// Whether a trusted proxy received the request over TLS.
    #[must_use]
    pub fn is_tls_before(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        self.is_proxy(peer) && headers.get(&FORWARDED_PROTO).is_some_and(|value| value == "https")
    }

    /// The address of the client: the peer, or behind trusted proxies the nearest address that is not a
    /// trusted proxy. Earlier addresses that a client claims are ignored.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        // The header is read from the right, byte by byte: text of the client must not hide the entries of a
        // proxy.
        let lines: Vec<&HeaderValue> = headers.get_all(&FORWARDED_FOR).iter().collect();
        let hops = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let hops = hops.take(HOPS_MAX);
        for hop in hops {
            if !self.is_proxy(client) {
                break;
            }
            // Entries before an invalid address cannot be trusted.
            let Some(address) = std::str::from_utf8(hop).ok().and_then(|hop| address_of(hop.trim())) else {
                break;
            };
            client = address.to_canonical();
        }
        client
    }

    /// Admits a request of this address.
    ///
    /// # Errors
    /// 429 with `Retry-After` when the rate is exceeded.
    pub fn admit(&self, client: IpAddr) -> Result<(), Problem> {
        self.rates.admit(client)
    }

    /// Admits a request of the owner of a valid token: requests with wrong tokens do not use up the rate of
    /// an owner, and all tokens of an owner share one rate.
    ///
    /// # Errors
    /// 429 with `Retry-After` when the rate is exceeded.
    pub fn admit_owner(&self, caller: &Caller) -> Result<(), Problem> {
        match caller {
            Caller::App(app) => self.rates.admit_owner(app.id.as_str()),
            Caller::Staff(staff) => self.rates.admit_owner(&staff.id),
            Caller::Anyone | Caller::Hook(_) => Ok(()),
        }
    }

    /// The answer to a browser that asks whether a page may call.
    #[must_use]
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        self.cors.preflight(method, headers)
    }

    /// Adds the headers that browsers need to an answer.
    pub fn dress(&self, response: &mut Response, asked: &HeaderMap, is_tls: bool) {
        self.cors.dress(response, asked);
        if is_tls {
            let value = HeaderValue::from_static(STRICT_TRANSPORT);
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, value);
        }
    }
}

/// The part of an address that rate limits count: the whole IPv4 address, or the network of an IPv6 address,
/// because its owner has the whole network.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        four @ IpAddr::V4(_) => four,
    }
}

/// `192.0.2.7`, `192.0.2.7:1234`, `2001:db8::1` or `[2001:db8::1]:1234`.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(proxies: &[&str]) -> Edge {
        let trusted_proxies = proxies.iter().map(|text| (*text).to_owned()).collect();
        Edge::new(&ServerSettings { trusted_proxies, ..ServerSettings::default() })
    }

    #[test]
    fn who_asks_is_what_trusted_proxies_say_and_nobody_else() {
        let cases: [(&str, &[&str], &str); 11] = [
            ("10.0.0.1", &["\u{ff}, 203.0.113.9"], "203.0.113.9"),
            ("192.0.2.1", &["203.0.113.9"], "192.0.2.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9:5060"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["[2001:db8::5]:80"], "2001:db8::5"),
            ("fd00::1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ];
        let edge = edge(&["10.0.0.0/8", "fd00::1"]);
        for (peer, lines, client) in cases {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).expect("text"));
            }
            let found = edge.client(peer.parse().expect("an address"), &headers);
            assert_eq!(found, client.parse::<IpAddr>().expect("an address"), "{peer} {lines:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_says_that_it_was_asked_over_tls() {
        let edge = edge(&["10.0.0.0/8"]);
        let said =
            |word: &'static str| HeaderMap::from_iter([(FORWARDED_PROTO, HeaderValue::from_static(word))]);
        let (proxy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 1]));
        assert!(edge.is_tls_before(proxy, &said("https")));
        assert!(!edge.is_tls_before(proxy, &said("http")) && !edge.is_tls_before(proxy, &HeaderMap::new()));
        assert!(!edge.is_tls_before(other, &said("https")));
    }

    #[test]
    fn only_so_many_hops_are_walked() {
        let mut headers = HeaderMap::new();
        let line = std::iter::once("203.0.113.9").chain(["10.0.0.1"; 40]).collect::<Vec<_>>().join(",");
        headers.append(FORWARDED_FOR, HeaderValue::from_str(&line).expect("text"));
        let found = edge(&["10.0.0.0/8"]).client(IpAddr::from([10, 0, 0, 1]), &headers);
        assert_eq!(found, IpAddr::from([10, 0, 0, 1]));
    }
}
