//! Sends one mail to the mail server: connect, encrypt, log in, hand over. Each step may fail; the failure
//! says whether the mail is to be tried again, is refused for good, or may have arrived.
//!
//! The password is sent only over TLS or to this machine itself, never to a server that does not offer TLS.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use lettre::{
    Address,
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, AsyncTokioStream},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
    },
};
use tidings_actors::ports::RefusedRecipient;
use tidings_egress::{Egress, mail::MailLine};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{MailServer, MailTls, starttls};

/// Ways to log in, the first that the server offers: the password is protected by TLS, not by the way.
const LOGINS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];
/// The greeting that the library expects, although the real one was read before STARTTLS.
const GREETING: &[u8] = b"220 ready\r\n";

/// The steps of handing over a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailStep {
    /// The TCP connection is being made.
    Connect,
    /// The TLS handshake, after the connection or after `STARTTLS`.
    Tls,
    /// The greeting of the server.
    Greeting,
    /// `AUTH` with the login name and the password.
    Login,
    /// The address of the sender.
    Sender,
    /// The addresses of the recipients.
    Recipients,
    /// `DATA`: headers and body of the mail.
    Content,
}

impl fmt::Display for MailStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connect => "connect",
            Self::Tls => "TLS",
            Self::Greeting => "greeting",
            Self::Login => "login",
            Self::Sender => "sender",
            Self::Recipients => "recipients",
            Self::Content => "content",
        })
    }
}

/// What happens to a mail that was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The server does not accept the mail now.
    Later,
    /// The server will never take it.
    Never,
}

/// Why a mail was not taken.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) step: MailStep,
    pub(super) fate: Fate,
    pub(super) text: String,
    /// Recipients that were refused.
    pub(super) refused: Vec<RefusedRecipient>,
}

/// The addresses and the bytes of a mail to hand over.
pub(super) struct Envelope<'a> {
    pub(super) to: &'a [Address],
    pub(super) content: &'a [u8],
    /// Whether a recipient that is not accepted now is left out, so that it does not delay the mail for the
    /// others any more.
    pub(super) is_last: bool,
}

/// The way to the mail server.
pub(super) struct Conversation<'a> {
    pub(super) egress: &'a Egress,
    pub(super) server: &'a MailServer,
    /// Set while the server may have the mail without having said so.
    pub(super) in_doubt: &'a AtomicBool,
    /// Called after each successful step.
    pub(super) on_step: &'a (dyn Fn(MailStep, &str) + Sync),
}

impl Conversation<'_> {
    /// Hands over a mail. Returns the answer of the server, and the recipients that it refused.
    pub(super) async fn send(
        &self,
        envelope: &Envelope<'_>,
    ) -> Result<(String, Vec<RefusedRecipient>), Trouble> {
        let mut connection = self.connect().await?;
        self.log_in(&mut connection).await?;
        let from = self.server.from.email.clone();
        let said = connection.command(Mail::new(Some(from), Vec::new())).await;
        // A sender that is refused is a matter of settings, not of this mail.
        said.map_err(|error| later(MailStep::Sender, &error))?;
        (self.on_step)(MailStep::Sender, self.server.from.email.as_ref());
        let refused = recipients(&mut connection, envelope).await?;
        let taken = envelope.to.len() - refused.len();
        (self.on_step)(MailStep::Recipients, &format!("{taken} of {} accepted", envelope.to.len()));
        let ready = connection.command(Data).await;
        ready.map_err(|error| answered(MailStep::Content, &error))?;
        self.in_doubt.store(true, Ordering::SeqCst);
        let said = connection.message(envelope.content).await;
        let said = said.map_err(|error| {
            // A reply code is an answer about the mail; without one the server may have the mail.
            self.in_doubt.store(error.status().is_none(), Ordering::SeqCst);
            answered(MailStep::Content, &error)
        })?;
        self.in_doubt.store(false, Ordering::SeqCst);
        // The mail is taken: how the connection ends changes nothing.
        drop(connection.quit().await);
        let said = format!("{} {}", said.code(), said.message().collect::<Vec<_>>().join(" "));
        (self.on_step)(MailStep::Content, &said);
        Ok((said, refused))
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Trouble> {
        let MailServer { host, port, tls, hello, .. } = self.server;
        let dialled = self.egress.dial_mail(host, *port).await;
        let line = dialled.map_err(|error| trouble(MailStep::Connect, error.to_string()))?;
        (self.on_step)(MailStep::Connect, &format!("{host}:{port} ({})", line.peer()));
        let (line, greeting): (MailLine, &'static [u8]) = match tls {
            MailTls::None => (line, b""),
            MailTls::Implicit => (self.encrypt(line).await?, b""),
            MailTls::Starttls => {
                let ready = starttls::ask(line, hello).await;
                let ready = ready.map_err(|error| trouble(MailStep::Tls, error.to_string()))?;
                (self.encrypt(ready).await?, GREETING)
            }
        };
        let wire = Box::new(Greeted { line, greeting });
        let hello = ClientId::Domain(hello.clone());
        let connection = AsyncSmtpConnection::connect_with_transport(wire, &hello).await;
        let connection = connection.map_err(|error| later(MailStep::Greeting, &error))?;
        (self.on_step)(MailStep::Greeting, &format!("the server is {}", connection.server_info().name()));
        Ok(connection)
    }

    async fn encrypt(&self, line: MailLine) -> Result<MailLine, Trouble> {
        let encrypted = self.egress.encrypt_mail(line, &self.server.host).await;
        let line = encrypted.map_err(|error| {
            let said = error.to_string();
            // The words of rustls for an answer in clear text.
            if said.contains("InvalidContentType") {
                let text = "the port answers in clear text: set mail.tls to \"starttls\", or to \"none\"";
                return trouble(MailStep::Tls, text.to_owned());
            }
            trouble(MailStep::Tls, said)
        })?;
        (self.on_step)(MailStep::Tls, &format!("the certificate is that of {}", self.server.host));
        Ok(line)
    }

    async fn log_in(&self, connection: &mut AsyncSmtpConnection) -> Result<(), Trouble> {
        let Some((name, password)) = &self.server.login else { return Ok(()) };
        if self.server.tls == MailTls::None && !self.egress.may_carry_secrets_to(&self.server.host) {
            let text = "the password goes over TLS only: set mail.tls".to_owned();
            return Err(trouble(MailStep::Login, text));
        }
        let credentials = Credentials::new(name.clone(), password.expose().to_owned());
        let said = connection.auth(&LOGINS, &credentials).await;
        said.map_err(|error| later(MailStep::Login, &error))?;
        (self.on_step)(MailStep::Login, &format!("as {name}"));
        Ok(())
    }
}

/// Names the recipients. Returns those that the server refused, if it accepted others.
async fn recipients(
    connection: &mut AsyncSmtpConnection,
    envelope: &Envelope<'_>,
) -> Result<Vec<RefusedRecipient>, Trouble> {
    let (mut refused, mut for_now) = (Vec::new(), false);
    for to in envelope.to {
        let Err(error) = connection.command(Rcpt::new(to.clone(), Vec::new())).await else { continue };
        if error.status().is_none() {
            return Err(later(MailStep::Recipients, &error));
        }
        for_now |= error.is_transient();
        refused.push(RefusedRecipient { to: to.to_string(), reason: said(&error) });
    }
    let is_left = refused.len() < envelope.to.len();
    if is_left && (!for_now || envelope.is_last) {
        return Ok(refused);
    }
    connection.abort().await;
    let text = refused.iter().map(|one| format!("{}: {}", one.to, one.reason)).collect::<Vec<_>>().join("; ");
    let fate = if for_now { Fate::Later } else { Fate::Never };
    // A mail that is tried again has left no recipient out.
    let refused = if for_now { Vec::new() } else { refused };
    Err(Trouble { step: MailStep::Recipients, fate, text, refused })
}

fn trouble(step: MailStep, text: String) -> Trouble {
    Trouble { step, fate: Fate::Later, text, refused: Vec::new() }
}

/// The server, or the way to it, is not well: every mail would meet the same.
fn later(step: MailStep, error: &lettre::transport::smtp::Error) -> Trouble {
    trouble(step, said(error))
}

/// An answer to this mail: a permanent code refuses the mail for good.
fn answered(step: MailStep, error: &lettre::transport::smtp::Error) -> Trouble {
    let fate = if error.is_permanent() { Fate::Never } else { Fate::Later };
    Trouble { fate, ..later(step, error) }
}

/// An error with its causes, in a few words.
fn said(error: &lettre::transport::smtp::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    match error.status() {
        Some(code) => format!("{code} {cause}").trim().to_owned(),
        None if cause.is_empty() => error.to_string(),
        None => cause,
    }
}

/// A connection of which a greeting is read first.
#[derive(Debug)]
struct Greeted {
    line: MailLine,
    greeting: &'static [u8],
}

impl AsyncTokioStream for Greeted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.line.peer())
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let greeted = self.get_mut();
        if greeted.greeting.is_empty() {
            return Pin::new(&mut greeted.line).poll_read(context, buffer);
        }
        let (now, rest) = greeted.greeting.split_at(greeted.greeting.len().min(buffer.remaining()));
        buffer.put_slice(now);
        greeted.greeting = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().line).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().line).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().line).poll_shutdown(context)
    }
}
