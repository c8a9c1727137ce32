//! Where messages go: `nats://host[:port]/subject.prefix`, or `tls://` where the connection must be
//! encrypted. The watch and the kind of message are appended to the prefix as two tokens more.

use url::{Host, Url};

/// The default port of a NATS server.
const PORT: u16 = 4222;
/// Characters that a prefix may have: servers take subjects of 4,096 bytes and more, people do not.
const PREFIX_MAX: usize = 255;

/// The address of a NATS server and the prefix of the subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name of the server, or a literal address without brackets.
    pub host: String,
    /// The TCP port of the server.
    pub port: u16,
    /// Whether the connection must be encrypted; otherwise it is encrypted where the server asks for that.
    pub needs_tls: bool,
    /// The first tokens of each subject.
    pub prefix: String,
}

impl Target {
    /// Parses the address of a sink: `nats://` or `tls://`, a host, and the prefix of subjects as the path.
    ///
    /// # Errors
    /// The fault of the address; the text contains no part of the address.
    pub fn parse(address: &str) -> Result<Self, &'static str> {
        let url = Url::parse(address).map_err(|_| "must be the address of a NATS server")?;
        let needs_tls = match url.scheme() {
            "nats" => false,
            "tls" => true,
            _ => return Err("must be the address of a NATS server"),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user or a password: endpoint_auth takes them");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not hold a query or a fragment");
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.trim_end_matches('.').to_ascii_lowercase(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            _ => return Err("must name a NATS server"),
        };
        let prefix = url.path().trim_start_matches('/').to_owned();
        if !is_prefix(&prefix) {
            return Err("must end in the beginning of a subject, such as nats://host:4222/git.changes: \
                        words of letters, digits, - and _ with dots between them");
        }
        Ok(Self { host, port: url.port().unwrap_or(PORT), needs_tls, prefix })
    }

    /// The subject of a message, for a watch or for the app itself.
    #[must_use]
    pub fn subject(&self, watch: Option<&str>, kind: &str) -> String {
        match watch {
            Some(watch) => format!("{}.{watch}.{kind}", self.prefix),
            None => format!("{}.{kind}", self.prefix),
        }
    }
}

fn is_prefix(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= PREFIX_MAX && text.split('.').all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_and_the_beginning_of_a_subject_are_read() {
        let read = |address| Target::parse(address).expect("an address");
        let target = read("nats://Broker.Example./git.changes");
        assert_eq!(
            (target.host.as_str(), target.port, target.needs_tls, target.prefix.as_str()),
            ("broker.example", 4222, false, "git.changes")
        );
        assert_eq!(target.subject(Some("repo_1"), "create"), "git.changes.repo_1.create");
        assert_eq!(target.subject(None, "test"), "git.changes.test");
        let target = read("TLS://[::1]:4443/a-b_c");
        assert_eq!((target.host.as_str(), target.port, target.needs_tls), ("::1", 4443, true));
    }

    #[test]
    fn what_is_no_such_address_is_refused() {
        for address in [
            "",
            "nats:",
            "nats://",
            "nats:///a",
            "https://host/a",
            "nats://host",
            "nats://host/",
            "nats://host/a..b",
            "nats://host/.a",
            "nats://host/a.",
            "nats://host/a/b",
            "nats://host/a.*",
            "nats://host/a.>",
            "nats://host/$JS.API",
            "nats://host/a b",
            "nats://host/a%20b",
            "nats://host/\u{e4}",
            "nats://user@host/a",
            "nats://user:word@host/a",
            "nats://host/a?b",
            "nats://host/a#b",
            "nats://host:99999/a",
            &format!("nats://host/{}", "a".repeat(PREFIX_MAX + 1)),
        ] {
            assert!(Target::parse(address).is_err(), "{address:?}");
        }
    }
}
