//! The addresses beyond the public Internet that settings permit: `egress.allow`.
//!
//! An entry is a network (`10.20.0.0/16`), an address (`10.1.2.3`, `fd00::7`) or a host name (`ci.internal`),
//! each with or without a port (`10.20.0.0/16:8443`, `[fd00::/8]:443`, `ci.internal:443`). A host name is
//! matched exactly, without regard to case, and permits all addresses of that name. Link-local and metadata
//! addresses stay refused under a network, however wide; only their own address (a /32 or /128) or a host
//! name opens them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
};

use ipnet::IpNet;

use super::{
    address::{Reach, reach},
    refused::Refused,
};

/// The parsed setting `egress.allow`, with the addresses that this server listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    networks: Vec<(IpNet, Option<u16>)>,
    hosts: Vec<(String, Option<u16>)>,
    /// The addresses that this server listens on.
    own: Vec<SocketAddr>,
}

impl Rules {
    /// Parses the entries of `egress.allow`.
    ///
    /// # Errors
    /// One text for each invalid entry.
    pub fn parse(entries: &[String]) -> Result<Self, Vec<String>> {
        let (mut rules, mut faults) = (Self::default(), Vec::new());
        for entry in entries {
            if !rules.add(entry.trim()) {
                faults.push(format!(
                    "{entry:?} is neither a network, an address nor a host name, with or without a port"
                ));
            }
        }
        if faults.is_empty() { Ok(rules) } else { Err(faults) }
    }

    fn add(&mut self, entry: &str) -> bool {
        if let Some(network) = network(entry) {
            self.networks.push((network, None));
            return true;
        }
        let (name, port) = match entry.rsplit_once(':') {
            None => (entry, None),
            Some((name, port)) => match port.parse::<u16>() {
                Ok(port) if port > 0 => (name, Some(port)),
                _ => return false,
            },
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        match network(bare.unwrap_or(name)) {
            Some(network) if bare.is_some() || matches!(network, IpNet::V4(_)) => {
                self.networks.push((network, port));
            }
            None if bare.is_none() && is_host_name(name) => {
                self.hosts.push((name.trim_end_matches('.').to_ascii_lowercase(), port));
            }
            _ => return false,
        }
        true
    }

    /// Permits one more host, on every port.
    #[must_use]
    pub fn with_host(mut self, host: &str) -> Self {
        self.hosts.push((host.trim_end_matches('.').to_ascii_lowercase(), None));
        self
    }

    /// Refuses the addresses at which this server itself listens, even if entries name them.
    #[must_use]
    pub fn without(mut self, own: &[SocketAddr]) -> Self {
        self.own.extend(own);
        self
    }

    /// Whether a request to this address would reach this server. A listener on all addresses of the machine
    /// is reached at each of them; a connection to "all addresses" reaches the machine itself.
    #[must_use]
    pub fn is_own(&self, address: IpAddr, port: Option<u16>) -> bool {
        let address = address.to_canonical();
        let is_reached = |own: IpAddr| match own {
            IpAddr::V4(own) if own.is_unspecified() => address.is_ipv4() && is_of_this_machine(address),
            IpAddr::V6(own) if own.is_unspecified() => is_of_this_machine(address),
            own => own.to_canonical() == address || address.is_unspecified(),
        };
        self.own.iter().any(|own| Some(own.port()) == port && is_reached(own.ip()))
    }

    /// The ports in entries, and those that this server listens on: requests to them are judged by their port
    /// as well.
    #[must_use]
    pub fn ports(&self) -> BTreeSet<u16> {
        let networks = self.networks.iter().filter_map(|(_, port)| *port);
        let hosts = self.hosts.iter().filter_map(|(_, port)| *port);
        networks.chain(hosts).chain(self.own.iter().map(SocketAddr::port)).collect()
    }

    /// Whether an entry names this host.
    #[must_use]
    pub fn names(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_end_matches('.');
        self.hosts.iter().any(|(name, only)| applies(*only, port) && name.eq_ignore_ascii_case(host))
    }

    /// Whether an address may be dialled: because it is public, or because an entry covers it.
    #[must_use]
    pub fn admit(&self, address: IpAddr, port: Option<u16>) -> bool {
        self.covers(address, |only| applies(only, port))
    }

    /// Why an address may not be dialled.
    #[must_use]
    pub fn refused(&self, address: IpAddr, port: Option<u16>) -> Refused {
        if self.covers(address, |_| true) {
            return Refused::OtherPort { host: address.to_canonical().to_string(), port };
        }
        Refused::Address(address)
    }

    /// Why a name may not be dialled that leads to an address which is not public.
    #[must_use]
    pub fn refused_name(&self, name: &str, port: Option<u16>) -> Refused {
        let host = name.trim_end_matches('.');
        let is_named = self.hosts.iter().any(|(named, _)| named.eq_ignore_ascii_case(host));
        if is_named {
            return Refused::OtherPort { host: host.to_owned(), port };
        }
        Refused::Name(name.to_owned())
    }

    /// Whether an address is public, or covered by an entry whose port fits.
    fn covers(&self, address: IpAddr, is_fitting: impl Fn(Option<u16>) -> bool) -> bool {
        let address = address.to_canonical();
        let covers = |exact: bool| {
            self.networks.iter().any(|(network, only)| {
                is_fitting(*only)
                    && network.contains(&address)
                    && (!exact || network.prefix_len() == network.max_prefix_len())
            })
        };
        match reach(address) {
            Reach::Public => true,
            Reach::Private => covers(false),
            Reach::Metadata => covers(true),
        }
    }
}

/// Whether an address belongs to this machine: then connections to it have that address as their source, too.
/// Nothing is sent for the check.
fn is_of_this_machine(address: IpAddr) -> bool {
    if address.is_unspecified() || address.is_loopback() {
        return true;
    }
    let any = match address {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0_u16; 8]),
    };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

fn applies(only: Option<u16>, port: Option<u16>) -> bool {
    only.is_none() || only == port
}

/// A network or a single address; mapped IPv6 spellings become their IPv4 address.
fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address.to_canonical()));
    }
    let network: IpNet = text.parse().ok()?;
    let mapped = IpNet::new(IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96).ok()?;
    if !mapped.contains(&network) {
        return Some(network.trunc());
    }
    IpNet::new(network.addr().to_canonical(), network.prefix_len() - 96).ok().map(|network| network.trunc())
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    (1..=253).contains(&name.len()) && name.split('.').all(label) && !numeric
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(entries: &[&str]) -> Rules {
        Rules::parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>()).expect("valid")
    }

    fn admits(rules: &Rules, address: &str, port: u16) -> bool {
        rules.admit(address.parse().expect("an address"), Some(port))
    }

    #[test]
    fn a_network_opens_its_addresses_and_no_other() {
        let rules = rules(&["10.20.0.0/16", "fd00:1::/32", "192.168.1.7"]);
        for (address, open) in [
            ("10.20.3.4", true),
            ("::ffff:10.20.3.4", true),
            ("10.21.0.0", false),
            ("fd00:1::5", true),
            ("fd00:2::5", false),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("127.0.0.1", false),
            ("8.8.8.8", true),
        ] {
            assert_eq!(admits(&rules, address, 443), open, "{address}");
        }
    }

    #[test]
    fn an_entry_with_a_port_opens_only_that_port() {
        let rules = rules(&["10.0.0.0/8:8443", "[fd00::/8]:443", "ci.internal:443"]);
        assert!(admits(&rules, "10.1.1.1", 8443) && !admits(&rules, "10.1.1.1", 443));
        assert!(admits(&rules, "fd00::1", 443) && !admits(&rules, "fd00::1", 8443));
        assert!(rules.names("CI.internal.", Some(443)) && !rules.names("ci.internal", None));
        assert_eq!(rules.ports(), BTreeSet::from([443, 8443]));
    }

    #[test]
    fn this_server_itself_is_found_at_each_of_its_addresses_and_nobody_else_is() {
        let listening = |own: &str| Rules::default().without(&[own.parse().expect("an address")]);
        for (own, address, port, is_own) in [
            ("127.0.0.1:8080", "127.0.0.1", 8080, true),
            ("127.0.0.1:8080", "::ffff:127.0.0.1", 8080, true),
            ("127.0.0.1:8080", "0.0.0.0", 8080, true),
            ("127.0.0.1:8080", "127.0.0.1", 8081, false),
            ("127.0.0.1:8080", "127.0.0.2", 8080, false),
            ("0.0.0.0:8080", "127.0.0.1", 8080, true),
            ("0.0.0.0:8080", "127.9.9.9", 8080, true),
            ("0.0.0.0:8080", "0.0.0.0", 8080, true),
            ("0.0.0.0:8080", "192.0.2.1", 8080, false),
            ("0.0.0.0:8080", "::1", 8080, false),
            ("[::]:8080", "::1", 8080, true),
            ("[::]:8080", "127.0.0.1", 8080, true),
            ("[::]:8080", "2001:db8::1", 8080, false),
            ("[::1]:8080", "::1", 8080, true),
            ("[::1]:8080", "127.0.0.1", 8080, false),
        ] {
            let found = listening(own).is_own(address.parse().expect("an address"), Some(port));
            assert_eq!(found, is_own, "{address} {port} by {own}");
        }
        assert!(listening("0.0.0.0:8080").ports().contains(&8080), "names are judged there, too");
    }

    #[test]
    fn metadata_addresses_need_an_exact_entry() {
        let wide = rules(&["0.0.0.0/0", "::/0", "169.254.0.0/16"]);
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254"] {
            assert!(!admits(&wide, address, 80), "{address}");
        }
        assert!(admits(&wide, "10.0.0.1", 80) && admits(&wide, "::1", 80));
        assert!(admits(&rules(&["169.254.169.254/32"]), "169.254.169.254", 80));
        assert!(admits(&rules(&["fe80::1"]), "fe80::1", 80));
    }

    #[test]
    fn what_is_no_entry_is_named() {
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0",
            "*.internal",
            "a b",
            "host:0",
            "host:99999",
            "fd00::/8:443:",
            "http://x",
        ] {
            let faults = Rules::parse(&[bad.to_owned()]).expect_err(bad);
            assert!(faults[0].contains(&format!("{bad:?}")), "{faults:?}");
        }
    }
}
