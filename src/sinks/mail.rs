//! The sink `mail`: entries of the ledger as mails for people, through the mail server of the settings.
//!
//! One mail is one conversation over a connection of its own (`smtp`): a subscription has at most one mail in
//! ten minutes, so keeping connections open is not worth it. At most four conversations run at the same time,
//! because mail servers limit the connections of one client; waiting apps take turns (`turns`).
//!
//! The `Message-ID` is derived from the id of the message ([`Digest::id`]): a mail that is sent again
//! after a crash or a doubtful answer is recognisable as the same mail. Recipients are checked against
//! `mail.allow` each time that a mail is sent.
//!
//! [`Digest::id`]: tidings_actors::ports::Digest::id

pub mod address;
mod compose;
mod facts;
mod headline;
mod smtp;
mod starttls;
pub mod templates;
mod turns;

use std::sync::atomic::{AtomicBool, Ordering};

use lettre::{Address, message::Mailbox};
use serde_json::Value;
use tidings_actors::{
    model::secret::Secret,
    ports::{AttemptOutcome, Endpoint, MailOutcome, RefusedRecipient, SendFailure, SubscriptionMessage},
    time::Timestamp,
};
use tidings_egress::Egress;
use tokio::time::{Duration, Instant, timeout};

use self::{
    address::AllowList,
    smtp::{Conversation, Envelope, Fate, Trouble},
    templates::{Template, Templates},
    turns::MailTurns,
};
use super::{answer::excerpt, kept};
pub use smtp::MailStep;

/// Most recipients of one subscription.
pub const RECIPIENTS_MAX: usize = 10;
/// The status of a mail that the server took.
const TAKEN: u16 = 250;
/// The status of a mail that the server will never take.
const REFUSED: u16 = 422;
/// The status for a mail that the server does not accept now.
const LATER: u16 = 503;

/// How the connection to the mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// From its first byte on.
    Implicit,
    /// After STARTTLS, which the server must offer.
    Starttls,
    /// The connection is not encrypted.
    None,
}

/// The mail server, and the sender of mails.
#[derive(Clone, Debug)]
pub struct MailServer {
    /// Its name or address.
    pub host: String,
    /// The TCP port of the mail server.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: MailTls,
    /// The name and the password of the login; `None`: without one.
    pub login: Option<(String, Secret)>,
    /// The sender (`From`) of every mail.
    pub from: Mailbox,
    /// The address for replies; `None`: the sender.
    pub reply_to: Option<Mailbox>,
    /// The addresses that mails may go to.
    pub allow: AllowList,
    /// The name of this server in `EHLO`: the domain of the sender.
    pub hello: String,
}

/// Why a mail that a person asked for was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailFault {
    /// Settings name no mail server.
    #[error("mail.server is not set: this server sends no mail")]
    Off,
    /// The address is not valid.
    #[error("{to:?} {fault}")]
    Address {
        /// The mail address of the recipient.
        to: String,
        /// The fault of the address.
        fault: address::AddressFault,
    },
    /// A step of the conversation failed.
    #[error("the mail was not sent, because of the step {step}: {text}")]
    Step {
        /// The step of the conversation that failed.
        step: MailStep,
        /// The answer of the mail server, or the obstacle.
        text: String,
    },
    /// The mail server did not answer before the deadline.
    #[error("the mail was not sent: the mail server did not answer within {0} s")]
    Late(f32),
    /// The mail cannot be written.
    #[error("the mail cannot be written: {0}")]
    Unwritable(String),
}

/// Sends mails through the mail server of the settings.
pub struct Mailer {
    egress: Egress,
    server: Option<MailServer>,
    templates: Templates,
    pub(super) turns: MailTurns,
}

impl Mailer {
    /// Sends mails through this server; `None`: every mail fails and names the missing setting.
    #[must_use]
    pub fn new(egress: Egress, server: Option<MailServer>) -> Self {
        Self { egress, server, templates: Templates::new(), turns: MailTurns::default() }
    }

    /// One attempt at a message for a person who waits for the answer: the wait for its turn is bounded as
    /// well.
    pub(super) async fn send_at_once(
        &self,
        endpoint: &Endpoint,
        message: &SubscriptionMessage,
        now: Timestamp,
    ) -> AttemptOutcome {
        let started = Instant::now();
        match timeout(endpoint.timeout, self.turns.take(&endpoint.app)).await {
            Ok(_turn) => self.send(endpoint, message, true, now).await.attempt,
            Err(_) => AttemptOutcome {
                result: Ok(LATER),
                retry_after: None,
                excerpt: "other mails of this server take too long".to_owned(),
                took: started.elapsed(),
                answer: None,
            },
        }
    }

    /// One attempt at a message of a subscription, whose turn the caller holds. It never fails: a failure is
    /// part of the outcome.
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        message: &SubscriptionMessage,
        is_last: bool,
        now: Timestamp,
    ) -> MailOutcome {
        let (started, in_doubt) = (Instant::now(), AtomicBool::new(false));
        let attempt = self.attempt(endpoint, message, is_last, now, &in_doubt);
        let attempted = timeout(endpoint.timeout, attempt).await.ok();
        let (result, text, refused) = match attempted {
            Some(Ok((said, refused))) => (Ok(TAKEN), said, refused),
            Some(Err(Trouble { step, fate: Fate::Never, text, refused })) => {
                (Ok(REFUSED), format!("{step}: {text}"), refused)
            }
            Some(Err(Trouble { step, fate: Fate::Later, text, .. })) => {
                (Ok(LATER), format!("{step}: {text}"), Vec::new())
            }
            None => {
                let text = format!("no answer within {} s", endpoint.timeout.as_secs_f32());
                (Err(SendFailure::Timeout), text, Vec::new())
            }
        };
        let attempt = AttemptOutcome {
            result,
            retry_after: None,
            excerpt: self.shown(&text),
            took: started.elapsed(),
            answer: None,
        };
        MailOutcome {
            attempt,
            refused: refused
                .into_iter()
                .map(|one| RefusedRecipient { reason: self.shown(&one.reason), ..one })
                .collect(),
            is_in_doubt: in_doubt.load(Ordering::SeqCst),
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        message: &SubscriptionMessage,
        is_last: bool,
        now: Timestamp,
        in_doubt: &AtomicBool,
    ) -> Result<(String, Vec<RefusedRecipient>), Trouble> {
        let server = self.server.as_ref().ok_or_else(|| later(&MailFault::Off.to_string()))?;
        let (to, mut left_out) = permitted(server, endpoint);
        if to.is_empty() {
            // The settings may be corrected, so the entries are kept for a later mail.
            let all: Vec<&str> = left_out.iter().map(|one| one.to.as_str()).collect();
            return Err(later(&format!("mail.allow does not list {}", all.join(", "))));
        }
        let (template, data) = facts::of(message);
        let rendered = self.templates.render(template, &data).map_err(|fault| later(&fault.to_string()))?;
        let mail = compose::compose(server, &to, message.id.as_str(), rendered, now);
        let mail = mail.map_err(|fault| later(&fault.to_string()))?;
        let (egress, on_step) = (&self.egress, &|_: MailStep, _: &str| {});
        let conversation = Conversation { egress, server, in_doubt, on_step };
        let envelope = Envelope { to: &to, content: &mail, is_last };
        let (said, refused) = conversation.send(&envelope).await?;
        left_out.extend(refused);
        Ok((said, left_out))
    }

    /// Sends the mail of a template, regardless of `mail.allow`: for the command line. `on_step` is called
    /// after each successful step. Returns the answer of the server. The whole mail is rendered before
    /// anything is sent.
    ///
    /// # Errors
    /// [`MailFault`] with the step that failed.
    pub async fn send_template(
        &self,
        to: &[String],
        template: Template,
        data: &Value,
        (id, now, limit): (&str, Timestamp, Duration),
        on_step: &(dyn Fn(MailStep, &str) + Sync),
    ) -> Result<String, MailFault> {
        let server = self.server.as_ref().ok_or(MailFault::Off)?;
        let read = |to: &String| {
            address::parsed(to).map_err(|fault| MailFault::Address { to: to.to_owned(), fault })
        };
        let to = to.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let rendered = self.templates.render(template, data);
        let rendered = rendered.map_err(|fault| MailFault::Unwritable(fault.to_string()))?;
        let mail = compose::compose(server, &to, id, rendered, now);
        let mail = mail.map_err(|fault| MailFault::Unwritable(fault.to_string()))?;
        let in_doubt = AtomicBool::new(false);
        let conversation = Conversation { egress: &self.egress, server, in_doubt: &in_doubt, on_step };
        let envelope = Envelope { to: &to, content: &mail, is_last: true };
        match timeout(limit, conversation.send(&envelope)).await {
            Ok(Ok((said, _))) => Ok(self.shown(&said)),
            Ok(Err(Trouble { step, text, .. })) => Err(MailFault::Step { step, text: self.shown(&text) }),
            Err(_) => Err(MailFault::Late(limit.as_secs_f32())),
        }
    }

    /// A text of the server without the password, escaped and short.
    fn shown(&self, text: &str) -> String {
        let login = self.server.as_ref().and_then(|server| server.login.as_ref());
        let secrets: Vec<Secret> = login.map(|(_, password)| password.clone()).into_iter().collect();
        excerpt(kept::clean(text, &secrets).as_bytes())
    }
}

/// Nothing was sent, and settings or time may change that.
fn later(text: &str) -> Trouble {
    Trouble { step: MailStep::Recipients, fate: Fate::Later, text: text.to_owned(), refused: Vec::new() }
}

/// The recipients of a sink that `mail.allow` permits now, and the others.
fn permitted(server: &MailServer, endpoint: &Endpoint) -> (Vec<Address>, Vec<RefusedRecipient>) {
    let (mut to, mut left_out) = (Vec::new(), Vec::new());
    for recipient in endpoint.address.recipients() {
        match address::parsed(recipient) {
            Ok(address) if server.allow.permits(recipient, &endpoint.contact) => to.push(address),
            Ok(_) => left_out.push((recipient, "mail.allow does not list it".to_owned())),
            Err(fault) => left_out.push((recipient, format!("it {fault}"))),
        }
    }
    let left_out = left_out.into_iter().map(|(to, reason)| RefusedRecipient { to: to.to_owned(), reason });
    (to, left_out.collect())
}
