//! Mail addresses, and the list of those that mails may go to (`mail.allow`).

use std::{fmt, str::FromStr};

use lettre::message::Mailbox;
use thiserror::Error;

/// Most characters of an address (RFC 5321, 4.5.3.1.3).
pub const ADDRESS_CHARACTERS_MAX: usize = 254;
/// Most characters of the part before the `@` (RFC 5321, 4.5.3.1.1).
const LOCAL_CHARACTERS_MAX: usize = 64;
/// The word in `mail.allow` for the contact of the app.
const CONTACT: &str = "contact";

/// Why a text is no address that mails go to.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AddressFault {
    /// It is too long.
    #[error("has more than {ADDRESS_CHARACTERS_MAX} characters")]
    Long,
    /// Its domain has a character that is not ASCII.
    #[error("has a domain with a character beyond ASCII; write the domain in its xn-- form")]
    DomainNotAscii,
    /// The part before the @ has a character that is not ASCII. Such an address has no ASCII form, and mail
    /// servers without SMTPUTF8 return its mails.
    #[error(
        "holds a character beyond ASCII before the @, which mail servers without SMTPUTF8 (RFC 6531) do not \
         take; name an address in ASCII"
    )]
    LocalNotAscii,
    /// It is not of the form `name@domain`.
    #[error("is no mail address such as ops@example.org; quoted names, comments, % and ! are not taken")]
    Form,
}

/// Reads an address: a dot-atom, `@` and a domain name, in ASCII. So no address holds a space, a comma, a
/// quote or a line break. A `%` or `!` before the `@` is refused: old mail servers read another domain there
/// and forward the mail to it, past `mail.allow`.
///
/// # Errors
/// [`AddressFault`].
pub fn parsed(text: &str) -> Result<lettre::Address, AddressFault> {
    if text.chars().count() > ADDRESS_CHARACTERS_MAX {
        return Err(AddressFault::Long);
    }
    let (local, domain) = text.rsplit_once('@').ok_or(AddressFault::Form)?;
    match (local.is_ascii(), domain.is_ascii()) {
        (false, _) => return Err(AddressFault::LocalNotAscii),
        (_, false) => return Err(AddressFault::DomainNotAscii),
        _ => {}
    }
    if !is_local(local) || !is_domain(domain) {
        return Err(AddressFault::Form);
    }
    lettre::Address::new(local, domain).map_err(|_| AddressFault::Form)
}

/// Why a text names no sender.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} names no sender, such as tidings@example.org or Tidings <tidings@example.org>")]
pub struct InvalidMailbox(String);

/// Reads the address of a sender, with or without a name before it.
///
/// # Errors
/// [`InvalidMailbox`].
pub fn mailbox(text: &str) -> Result<Mailbox, InvalidMailbox> {
    let invalid = || InvalidMailbox(text.to_owned());
    let (name, address) = match text.trim().strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
        Some((name, address)) => (Some(name.trim().trim_matches('"').to_owned()), address),
        None => (None, text.trim()),
    };
    let name = name.filter(|name| !name.is_empty());
    let is_shown = !name.as_ref().is_some_and(|name| name.contains(char::is_control));
    let address = parsed(address).map_err(|_| invalid())?;
    if is_shown { Ok(Mailbox::new(name, address)) } else { Err(invalid()) }
}

fn is_local(text: &str) -> bool {
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || b"#$&'*+-/=?^_`{|}~.".contains(&byte);
    (1..=LOCAL_CHARACTERS_MAX).contains(&text.len())
        && text.bytes().all(is_atom)
        && text.split('.').all(|atom| !atom.is_empty())
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// An entry of `mail.allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    Contact,
    Address(String),
    Domain(String),
}

/// A text that is no entry of `mail.allow`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is neither \"contact\" nor an address (ops@example.org) nor all addresses of one domain \
     (@example.org or *@example.org); no other * is read, and domains below a domain are listed one by one"
)]
pub struct InvalidAllowed(String);

impl FromStr for Allowed {
    type Err = InvalidAllowed;

    fn from_str(text: &str) -> Result<Self, InvalidAllowed> {
        let small = text.trim().to_ascii_lowercase();
        if small == CONTACT {
            return Ok(Self::Contact);
        }
        // An address may hold a `*`, and no person who writes one here means that address.
        match small.strip_prefix("*@").or_else(|| small.strip_prefix('@')) {
            Some(domain) if is_domain(domain) => Ok(Self::Domain(domain.to_owned())),
            None if !small.contains('*') && parsed(&small).is_ok() => Ok(Self::Address(small)),
            _ => Err(InvalidAllowed(text.to_owned())),
        }
    }
}

/// The addresses that mails may go to. Upper and lower case are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    allowed: Vec<Allowed>,
    /// Anyone may register an app and name its contact: contacts do not count.
    is_open: bool,
}

impl AllowList {
    /// Parses the entries of `mail.allow`.
    ///
    /// # Errors
    /// Each invalid entry with its fault, in the order of the list.
    pub fn parse(entries: &[String]) -> Result<Self, Vec<InvalidAllowed>> {
        let (mut allowed, mut faults) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry.parse() {
                Ok(entry) => allowed.push(entry),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(Self { allowed, is_open: false }) } else { Err(faults) }
    }

    /// The list for a server where anyone may register an app (`is_open`): a stranger could name any address
    /// as the contact of an app, so `contact` permits nothing there.
    #[must_use]
    pub fn where_anyone_registers(self, is_open: bool) -> Self {
        Self { is_open, ..self }
    }

    /// Whether mails may go to this address, for an app with this contact.
    #[must_use]
    pub fn permits(&self, address: &str, contact: &str) -> bool {
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        self.allowed.iter().any(|allowed| match allowed {
            Allowed::Contact => !self.is_open && !contact.is_empty() && address.eq_ignore_ascii_case(contact),
            Allowed::Address(known) => address.eq_ignore_ascii_case(known),
            Allowed::Domain(known) => domain.eq_ignore_ascii_case(known),
        })
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.allowed.iter().map(|allowed| match allowed {
            Allowed::Contact if self.is_open => {
                format!("{CONTACT}, which counts only where onboarding.mode is admin")
            }
            Allowed::Contact => CONTACT.to_owned(),
            Allowed::Address(address) => address.clone(),
            Allowed::Domain(domain) => format!("@{domain}"),
        });
        formatter.write_str(&words.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        for text in ["ops@example.org", "a.b+c@sub.example.org", "o'neil@localhost", "A@XN--MNCHEN-3YA.de"] {
            assert_eq!(parsed(text).map(|address| address.to_string()), Ok(text.to_owned()));
        }
        let long = format!("{}@example.org", "a".repeat(65));
        for text in [
            "",
            "ops",
            "@example.org",
            "ops@",
            "ops@-a.org",
            "ops@a..org",
            ".a@b.org",
            "a..b@c.org",
            &long,
            "\"ops\"@example.org",
            "ops@example.org\r\nBcc: x@y.z",
            "ops@example.org, x@y.z",
            "a b@c.org",
            "<ops@example.org>",
            "ops@[127.0.0.1]",
            "ops(x)@example.org",
            "ops@example.org ",
            "a%evil.com@example.org",
            "evil.com!a@example.org",
        ] {
            assert_eq!(parsed(text), Err(AddressFault::Form), "{text:?}");
        }
        assert_eq!(parsed("ops@m\u{fc}nchen.de"), Err(AddressFault::DomainNotAscii));
        assert_eq!(parsed("m\u{fc}ller@example.org"), Err(AddressFault::LocalNotAscii));
        assert_eq!(parsed("m\u{fc}ller@m\u{fc}nchen.de"), Err(AddressFault::LocalNotAscii));
        assert_eq!(parsed(&format!("a@{}", "b.".repeat(200))), Err(AddressFault::Long));
    }

    #[test]
    fn a_sender_may_have_a_name() {
        for (text, expected) in [
            ("tidings@example.org", "tidings@example.org"),
            ("Tidings <tidings@example.org>", "Tidings <tidings@example.org>"),
            ("\"Acme, Inc.\" <a@example.org>", "\"Acme, Inc.\" <a@example.org>"),
            ("<a@example.org>", "a@example.org"),
        ] {
            assert_eq!(mailbox(text).map(|found| found.to_string()), Ok(expected.to_owned()));
        }
        for text in ["", "Tidings", "Tidings <>", "a\nb <a@example.org>", "a@example.org, b@example.org"] {
            assert_eq!(mailbox(text), Err(InvalidMailbox(text.to_owned())));
        }
    }

    #[test]
    fn the_list_says_whom_mails_go_to() {
        let list = |entries: &[&str]| {
            AllowList::parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
        };
        let known = list(&["contact", "Ops@Example.org", "@example.net"]).expect("a list");
        for (address, is_permitted) in [
            ("owner@app.example", true),
            ("OWNER@APP.EXAMPLE", true),
            ("ops@example.org", true),
            ("dev@example.org", false),
            ("dev@example.net", true),
            ("dev@sub.example.net", false),
            ("dev@badexample.net", false),
            ("dev@example.net.evil.org", false),
        ] {
            assert_eq!(known.permits(address, "owner@app.example"), is_permitted, "{address}");
        }
        assert!(!known.permits("", ""), "an app without a contact has none to permit");
        assert!(!list(&[]).expect("a list").permits("ops@example.org", "ops@example.org"));
        let stars = list(&["*@Example.net"]).expect("a list");
        assert!(stars.permits("dev@example.net", "") && !stars.permits("dev@sub.example.net", ""));
        assert_eq!(stars.to_string(), "@example.net");
        for entry in ["*", "*@", "*@*.example.net", "@*.example.net", "ops-*@example.net", "**@example.net"] {
            let fault = list(&[entry]).expect_err(entry)[0].to_string();
            assert!(fault.contains("no other * is read"), "{fault}");
        }
        let faults = list(&["contacts", "example.org", "@", "ops@example.org"]).expect_err("faults");
        assert_eq!(faults.len(), 3);
        assert_eq!(known.to_string(), "contact, ops@example.org, @example.net");
        let open = known.where_anyone_registers(true);
        assert!(!open.permits("owner@app.example", "owner@app.example"), "a stranger named it");
        assert!(open.permits("ops@example.org", "owner@app.example"));
        assert!(open.to_string().contains("onboarding.mode is admin"), "{open}");
    }
}
