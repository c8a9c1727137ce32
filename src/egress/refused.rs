//! Why the rules refuse an address, and the entry of `egress.allow` that would permit it. An address that a
//! name resolved to is not shown: an app that registers the name would learn it.

use std::{fmt, net::IpAddr};

use super::address::{Reach, reach};

/// The reason why the rules refuse a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An address that is not public, as the URL names it.
    Address(IpAddr),
    /// A name that resolves to an address that is not public.
    Name(String),
    /// This server itself, under the name or address of the URL.
    Own(String),
    /// A port that requests never go to.
    Port(u16),
    /// A port of an address or name that entries open at other ports only.
    OtherPort {
        /// The address or name, as the URL has it.
        host: String,
        /// The port; `None`: no entry names a port.
        port: Option<u16>,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => {
                let address = address.to_canonical();
                let kind = match reach(address) {
                    Reach::Metadata => "a link-local or metadata address",
                    Reach::Private | Reach::Public => "a private address",
                };
                write!(
                    formatter,
                    "{address} is {kind} and egress.allow does not list it (add {} to allow it)",
                    entry(address)
                )
            }
            Self::Name(name) => write!(
                formatter,
                "the name {name} leads to a private address and egress.allow lists neither the name nor the \
                 address (add {name} to allow it)"
            ),
            Self::Own(host) => write!(
                formatter,
                "{host} with this port is this server itself, which sends nothing there; name the address of \
                 a receiver or of a Git host"
            ),
            Self::Port(port) => {
                write!(formatter, "port {port} is never reached: only 80, 443 and those from 1024 on are")
            }
            Self::OtherPort { host, port } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let (shown, entry) = match port {
                    Some(port) => (format!("port {port}"), format!("{host}:{port}")),
                    None => ("this port".to_owned(), format!("{host}:PORT")),
                };
                write!(
                    formatter,
                    "{shown} of {host} is not open: egress.allow lists other ports of it only (add \
                     {entry} to allow this port)"
                )
            }
        }
    }
}

impl std::error::Error for Refused {}

/// The entry that permits an address: all of loopback, which is one machine, or else the address alone.
fn entry(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) if address.is_loopback() => "127.0.0.0/8".to_owned(),
        address => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    #[test]
    fn the_entry_that_a_refusal_names_opens_the_address() {
        for (text, entry_expected) in [
            ("127.0.0.1", "127.0.0.0/8"),
            ("::1", "::1"),
            ("::ffff:127.0.0.1", "127.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("fd00::7", "fd00::7"),
            ("169.254.169.254", "169.254.169.254"),
            ("fe80::1", "fe80::1"),
        ] {
            let address: IpAddr = text.parse().expect("an address");
            let said = Refused::Address(address).to_string();
            assert!(said.contains(&format!("(add {entry_expected} to allow it)")), "{said}");
            let rules = Rules::parse(&[entry_expected.to_owned()]).expect("an entry");
            assert!(rules.admit(address, Some(443)), "{said}");
        }
        for (text, entry) in [("10.1.2.3", "10.0.0.0/8:443"), ("fd00::7", "[fd00::/8]:443")] {
            let address: IpAddr = text.parse().expect("an address");
            let rules = Rules::parse(&[entry.to_owned()]).expect("an entry");
            let said = rules.refused(address, Some(8443)).to_string();
            assert!(said.starts_with("port 8443 of ") && !said.contains("private"), "{said}");
            let entry = said.split_once("(add ").and_then(|(_, rest)| rest.split_once(" to allow"));
            let rules = Rules::parse(&[entry.expect("an entry").0.to_owned()]).expect("an entry");
            assert!(rules.admit(address, Some(8443)), "{said}");
        }
        let rules = Rules::parse(&["ci.internal:443".to_owned()]).expect("an entry");
        for (port, shown) in [(Some(8443), "add ci.internal:8443"), (None, "add ci.internal:PORT")] {
            let said = rules.refused_name("CI.internal", port).to_string().to_lowercase();
            assert!(said.contains(&shown.to_lowercase()) && !said.contains("private"), "{said}");
        }
        let name = Refused::Name("ci.internal".to_owned()).to_string();
        assert!(name.contains("egress.allow") && name.contains("add ci.internal"), "{name}");
    }
}
