//! The accept loop, written here because a silent client must not keep a connection for ever. HTTP/1.1 only,
//! in TLS where a certificate is set; deadlines for the handshake, for headers, for idleness and for unread
//! answers, and a least rate of reading them; limits on connections, in all and per address, except for
//! trusted proxies. A connection beyond the limit of its address is closed at once, without reading a byte.
//! When all places are taken, a connection from an address with more than an equal part of them is closed as
//! well; for any other, a connection that waits for its client is closed, as `open_connections` decides.

mod limits;
mod open_connections;
pub mod tls;
mod write_deadline;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::{debug, info, warn};
use warp::{filters::BoxedFilter, reply::Response};

use self::{
    limits::{Limits, ListenerPlace},
    open_connections::{Answering, Arriving, Member, OpenConnections},
    tls::Certificate,
    write_deadline::{Bounds, WriteDeadline},
};
use super::{
    edge::{Edge, Peer},
    request::ConnectionPlace,
};
use crate::{settings::ServerSettings, telemetry::Metrics};

/// Bytes of a request line with its headers.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// The send buffer of a connection, in bytes; Linux doubles the number. Without this bound Linux lets the
/// buffer grow to 4 MiB, so a thousand clients that read nothing would hold gigabytes.
const UNREAD_BYTES: usize = 128 << 10;
/// How long to wait after a failed accept: the process is out of descriptors, and only time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener and the routes that it serves.
pub struct Door {
    /// The socket that connections arrive at.
    pub tcp: TcpListener,
    /// The routes that are served on these connections.
    pub routes: BoxedFilter<(Response,)>,
    /// The TLS certificate; `None`: connections are plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    /// The checks before the route: trusted proxies, rate limits, CORS.
    pub edge: Arc<Edge>,
}

/// Serves until `shutdown` resolves, then finishes running requests until `drain_deadline`.
pub async fn serve(door: Door, settings: &ServerSettings, shutdown: impl Future<Output = ()>) {
    let Door { tcp, routes, certificate, edge } = door;
    // Accepted connections inherit the size.
    if let Err(error) = SockRef::from(&tcp).set_send_buffer_size(UNREAD_BYTES) {
        warn!(%error, "the send buffers of connections are not bounded");
    }
    let mut shutdown = std::pin::pin!(shutdown);
    let graceful = GracefulShutdown::new();
    let (limits, open) = (Limits::new(settings), OpenConnections::default());
    let mut connections = JoinSet::new();
    let tls = certificate.as_ref().map(Certificate::acceptor);
    let mut renewals = std::pin::pin!(async {
        match &certificate {
            Some(certificate) => certificate.keep_fresh().await,
            None => std::future::pending().await,
        }
    });
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = tcp.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
            () = &mut renewals => continue,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(error = %error, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let share = if edge.is_proxy(address.ip()) { None } else { Some(limits.share(address.ip())) };
        if let Some(None) = share {
            debug!("an address has too many connections, the newest was closed");
            continue;
        }
        let slot = tokio::select! {
            () = &mut shutdown => break,
            slot = limits.slot(&open) => slot,
        };
        let connection = Connection {
            member: open.enter(),
            place: Arc::new(limits.place(slot, share.flatten())),
            address,
            is_tls: tls.is_some(),
            routes: routes.clone(),
            header_timeout: settings.header_timeout,
            deadlines: Bounds { limit: settings.write_timeout, rate: settings.write_bytes_per_second_min },
            headers_max: settings.headers_max,
            watcher: graceful.watcher(),
        };
        let (tls, connected) = (tls.clone(), Metrics::of_process().connected());
        connections.spawn(async move {
            let _held_until_the_end = connected;
            connection.serve(stream, tls).await;
        });
    }
    drop(tcp);
    info!(connections = connections.len(), "no new connections are accepted");
    if timeout(settings.drain_deadline, graceful.shutdown()).await.is_err() {
        warn!("requests were still being answered at the drain deadline");
    }
    connections.shutdown().await;
}

/// A connection, and its limits.
struct Connection {
    member: Arc<Member>,
    place: Arc<ListenerPlace>,
    address: SocketAddr,
    is_tls: bool,
    routes: BoxedFilter<(Response,)>,
    header_timeout: Duration,
    deadlines: Bounds,
    headers_max: usize,
    watcher: Watcher,
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(error = %error, "a connection keeps its delay");
        }
        let member = self.member.clone();
        tokio::select! {
            () = member.told_to_leave() => debug!("a connection that waited made room for another"),
            () = self.talk(stream, tls) => {}
        }
    }

    async fn talk(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let stream = WriteDeadline::new(stream, self.deadlines, self.member.clone());
        let Some(tls) = tls else { return self.exchange(stream).await };
        // The handshake has the same deadline as the first headers.
        match timeout(self.header_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.exchange(stream).await,
            Ok(Err(error)) => debug!(error = %error, "a handshake failed"),
            Err(_) => debug!("a handshake took too long"),
        }
    }

    async fn exchange(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { member, place, address, is_tls, routes, header_timeout, headers_max, watcher, .. } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let mut service = warp::service(routes.clone());
            let peer = Peer { address, is_tls, version: request.version() };
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert::<Arc<dyn ConnectionPlace>>(place.clone());
            let (member, place) = (member.clone(), place.clone());
            let request = request.map(|body| Arriving::new(body, member.clone()));
            async move {
                let mut answer = service.call(request).await?;
                if place.is_aside() {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer.map(|body| Answering::new(body, member)))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_headers(headers_max)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            debug!(error = %error, "a connection ended early");
        }
    }
}

#[cfg(test)]
mod tests;
