//! `mail`: the server that mails of subscriptions go through, and whom they may go to.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tidings_actors::model::secret::Secret;

use super::{Fault, duration, optional, secret, word};
use crate::sinks::mail::{
    MailServer, MailTls,
    address::{self, AllowList},
};

/// The shortest interval between two mails of a subscription: tests need it short.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The longest interval between two mails of a subscription: a day.
const INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// How the connection to the mail server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// TLS from the first byte on (port 465).
    #[default]
    Implicit,
    /// TLS after STARTTLS (port 587).
    Starttls,
    /// The connection is not encrypted; the default port is 25.
    None,
}

/// Section `[mail]`: the mail server, the sender and the allowed recipients.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailSettings {
    /// The mail server: a host name or an address. None: no mail is sent.
    #[serde(with = "optional")]
    pub server: Option<String>,
    /// Its port. 0: that of the encryption.
    pub port: u16,
    /// How the connection is encrypted.
    #[serde(deserialize_with = "word")]
    pub tls: Encryption,
    /// The name of the login. None: no login.
    #[serde(with = "optional")]
    pub username: Option<String>,
    /// The password of the login at the mail server.
    #[serde(with = "secret")]
    pub password: Option<Secret>,
    /// A file that holds the password.
    #[serde(with = "optional")]
    pub password_file: Option<PathBuf>,
    /// The sender: `tidings@example.org` or `Tidings <tidings@example.org>`.
    #[serde(with = "optional")]
    pub from: Option<String>,
    /// Whom answers go to. None: the sender.
    #[serde(with = "optional")]
    pub reply_to: Option<String>,
    /// Whom mails may go to: addresses, domains (`@example.org`), and `contact` for the contact of the app.
    pub allow: Vec<String>,
    /// The wait between two mails of a subscription.
    #[serde(with = "duration")]
    pub digest_interval: Duration,
}

impl Default for MailSettings {
    fn default() -> Self {
        Self {
            server: None,
            port: 0,
            tls: Encryption::Implicit,
            username: None,
            password: None,
            password_file: None,
            from: None,
            reply_to: None,
            allow: vec!["contact".to_owned()],
            digest_interval: Duration::from_mins(10),
        }
    }
}

impl MailSettings {
    /// The addresses that mails may go to; `is_open`: anyone may register an app. The settings must have been
    /// validated.
    #[must_use]
    pub fn allow_list(&self, is_open: bool) -> AllowList {
        AllowList::parse(&self.allow).unwrap_or_default().where_anyone_registers(is_open)
    }

    /// The server that these settings name; `None`: no mail is sent. `is_open`: anyone may register an app.
    /// The settings must have been validated.
    #[must_use]
    pub fn as_server(&self, is_open: bool) -> Option<MailServer> {
        let host = self.server.clone()?;
        let from = address::mailbox(self.from.as_deref()?).ok()?;
        let (tls, usual) = match self.tls {
            Encryption::Implicit => (MailTls::Implicit, 465),
            Encryption::Starttls => (MailTls::Starttls, 587),
            Encryption::None => (MailTls::None, 25),
        };
        Some(MailServer {
            host,
            port: if self.port == 0 { usual } else { self.port },
            tls,
            login: self.username.clone().zip(self.password.clone()),
            hello: from.email.domain().to_owned(),
            from,
            reply_to: self.reply_to.as_deref().and_then(|text| address::mailbox(text).ok()),
            allow: self.allow_list(is_open),
        })
    }

    /// Whether the mail server is this machine itself.
    #[must_use]
    pub fn is_on_this_machine(&self) -> bool {
        self.server.as_deref().is_some_and(is_this_machine)
    }

    pub(super) fn validate(&self) -> Vec<Fault> {
        let fault = |name: &str, text: String| Some(Fault::new(format!("mail.{name}"), text));
        let mut faults = Vec::new();
        match AllowList::parse(&self.allow) {
            Ok(_) => {}
            Err(bad) => faults.extend(bad.into_iter().map(|bad| Fault::new("mail.allow", bad.to_string()))),
        }
        let is_host = |host: &String| {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte))
        };
        let is_plain = self.tls == Encryption::None && !self.is_on_this_machine();
        for (name, mailbox) in [("from", &self.from), ("reply_to", &self.reply_to)] {
            let read = mailbox.as_deref().map(address::mailbox).transpose();
            faults.extend(read.err().and_then(|found| fault(name, found.to_string())));
        }
        let all = [
            self.server.as_ref().filter(|host| !is_host(host)).and_then(|host| {
                fault("server", format!("{host:?} is no host name or address (mail.port says the port)"))
            }),
            (self.server.is_some() && self.from.is_none())
                .then(|| Fault::new("mail.from", "it is needed with mail.server: who sends the mails")),
            (self.username.is_some() != self.password.is_some()).then(|| {
                let text = "username and password (or password_file) are set together, or none of them";
                Fault::new("mail.username", text)
            }),
            (is_plain && self.password.is_some()).then(|| {
                let text = "a password needs tls \"implicit\" or \"starttls\": it would travel in clear text";
                Fault::new("mail.tls", text)
            }),
            (!(INTERVAL_MIN..=INTERVAL_MAX).contains(&self.digest_interval))
                .then(|| Fault::new("mail.digest_interval", "it must lie between 1s and 1day")),
        ];
        faults.extend(all.into_iter().flatten());
        faults
    }
}

/// Whether connections to this host stay on this machine.
fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
