//! Connections to the mail server. Only settings name it (`mail.server`), no app can: the setting permits
//! this host at this port, also a private one. The connection never goes to this server itself, and never
//! through `egress.proxy`, which speaks only HTTP.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Egress, EgressError, refused::Refused, resolver::Guard, tls};

/// Bytes that are read from a mail server on one connection; after that the connection ends.
const SAID_BYTES_MAX: u64 = 64 * 1024;

/// Why there is no connection to the mail server.
#[derive(Debug, Error)]
pub enum MailDialError {
    /// The rules, the name or the setup of TLS.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// No connection to the mail server could be made.
    #[error("no connection: {0}")]
    Connection(#[source] io::Error),
    /// The certificate of the server is not the expected one, or the server does not speak TLS.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
}

/// A connection to the mail server. It reads at most 64 KiB.
pub struct MailLine {
    wire: Wire,
    peer: SocketAddr,
    left: u64,
}

enum Wire {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Egress {
    /// Connects to the mail server, in clear text so far.
    ///
    /// # Errors
    /// [`MailDialError`]. The caller gives it a deadline.
    pub async fn dial_mail(&self, host: &str, port: u16) -> Result<MailLine, MailDialError> {
        let recipe = &self.shared.recipe;
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) if recipe.rules.is_own(address, Some(port)) => {
                return Err(EgressError::Refused(Refused::Own(address.to_string())).into());
            }
            Ok(address) => vec![address],
            Err(_) => {
                let rules = Arc::new((*recipe.rules).clone().with_host(host));
                let guard = Guard { rules, port: Some(port), lookup: recipe.lookup.clone() };
                guard.addresses(host).await.map_err(|error| match error.downcast::<Refused>() {
                    Ok(refused) => EgressError::Refused(*refused),
                    Err(_) => EgressError::Unresolved,
                })?
            }
        };
        let mut last = io::Error::other("the name has no address");
        for address in addresses {
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => {
                    let peer = SocketAddr::new(address, port);
                    return Ok(MailLine { wire: Wire::Plain(stream), peer, left: SAID_BYTES_MAX });
                }
                Err(error) => last = error,
            }
        }
        Err(MailDialError::Connection(last))
    }

    /// Encrypts a connection: the certificate must be for `host`, by the bundled roots and `egress.ca_file`.
    ///
    /// # Errors
    /// [`MailDialError::Tls`], and [`MailDialError::Egress`] for a host that is no valid name for TLS.
    pub async fn encrypt_mail(&self, line: MailLine, host: &str) -> Result<MailLine, MailDialError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| EgressError::InvalidUrl("the host is no name that TLS knows".into()))?;
        let config = tls::config_named(self.shared.recipe.roots.clone(), None, host)?;
        let Wire::Plain(stream) = line.wire else {
            return Err(MailDialError::Tls(io::Error::other("it is encrypted already")));
        };
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.map_err(MailDialError::Tls)?;
        Ok(MailLine { wire: Wire::Encrypted(Box::new(stream)), ..line })
    }
}

impl MailLine {
    /// The address of the other end.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(self.wire, Wire::Encrypted(_))
    }
}

impl fmt::Debug for MailLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MailLine({}, encrypted: {})", self.peer, self.is_encrypted())
    }
}

impl AsyncRead for MailLine {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        if line.left == 0 {
            return Poll::Ready(Err(io::Error::other("the mail server says more than 64 KiB")));
        }
        let room = usize::try_from(line.left).unwrap_or(usize::MAX).min(buffer.remaining());
        let mut limited = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let polled = match &mut line.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, &mut limited),
            Wire::Encrypted(stream) => Pin::new(stream).poll_read(context, &mut limited),
        };
        let read = limited.filled().len();
        line.left -= read as u64;
        buffer.advance(read);
        polled
    }
}

impl AsyncWrite for MailLine {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
