//! The accept loop: our own, because a silent client must not keep a connection for ever. HTTP/1.1
//! only, in TLS where a certificate is set; deadlines for the handshake, for headers, for idleness and
//! for unread answers, and a least rate of reading them; limits on connections, in all and per address, but
//! for trusted proxies. A client beyond the limit of its address is closed at once, before it has cost a
//! byte. Where all together are too many, so is one whose address has more than an equal part of them; for
//! any other a connection makes room that waits for its client, as `crowd` says.

mod crowd;
mod patience;
pub mod tls;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::{debug, info, warn};
use warp::{filters::BoxedFilter, reply::Response};

use self::{
    crowd::{Answering, Arriving, Crowd, Member},
    patience::{Bounds, Patience},
    tls::Certificate,
};
use super::edge::{Edge, Peer, counted};
use crate::{settings::ServerSettings, telemetry::Metrics};

/// Bytes of a request line with its headers.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// The send buffer of a connection, in bytes; Linux doubles the number. Without this bound Linux lets the
/// buffer grow to 4 MiB, so a thousand clients that read nothing would hold gigabytes.
const UNREAD_BYTES: usize = 128 << 10;
/// How long to wait after a failed accept: the process is out of descriptors, and only time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One place where connections come in.
pub struct Door {
    /// Where they arrive.
    pub tcp: TcpListener,
    /// What is served there.
    pub routes: BoxedFilter<(Response,)>,
    /// What is shown there; `None`: plain http.
    pub certificate: Option<Arc<Certificate>>,
    /// Knows the proxies.
    pub edge: Arc<Edge>,
}

/// Serves until `shutdown` resolves, then answers what was begun, until `drain_deadline`.
pub async fn serve(door: Door, settings: &ServerSettings, shutdown: impl Future<Output = ()>) {
    let Door { tcp, routes, certificate, edge } = door;
    // Accepted connections inherit the size.
    if let Err(error) = SockRef::from(&tcp).set_send_buffer_size(UNREAD_BYTES) {
        warn!(%error, "the send buffers of connections are not bounded");
    }
    let mut shutdown = std::pin::pin!(shutdown);
    let graceful = GracefulShutdown::new();
    let (limits, crowd) = (Limits::new(settings), Crowd::default());
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
            slot = limits.slot(&crowd) => slot,
        };
        let connection = Connection {
            member: crowd.enter(),
            address,
            is_tls: tls.is_some(),
            routes: routes.clone(),
            header_timeout: settings.header_timeout,
            patience: Bounds { limit: settings.write_timeout, rate: settings.write_bytes_per_second_min },
            headers_max: settings.headers_max,
            watcher: graceful.watcher(),
        };
        let (tls, connected) = (tls.clone(), Metrics::of_process().connected());
        connections.spawn(async move {
            let _held_until_the_end = (slot, share, connected);
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

/// A connection, and what it may cost.
struct Connection {
    member: Arc<Member>,
    address: SocketAddr,
    is_tls: bool,
    routes: BoxedFilter<(Response,)>,
    header_timeout: Duration,
    patience: Bounds,
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
        let stream = Patience::new(stream, self.patience, self.member.clone());
        let Some(tls) = tls else { return self.exchange(stream).await };
        // A handshake is what the first headers are in plain http, and has as long.
        match timeout(self.header_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.exchange(stream).await,
            Ok(Err(error)) => debug!(error = %error, "a handshake failed"),
            Err(_) => debug!("a handshake took too long"),
        }
    }

    async fn exchange(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { member, address, is_tls, routes, header_timeout, headers_max, watcher, .. } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let mut service = warp::service(routes.clone());
            let peer = Peer { address, is_tls, version: request.version() };
            request.extensions_mut().insert(peer);
            let member = member.clone();
            let request = request.map(|body| Arriving::new(body, member.clone()));
            async move {
                service.call(request).await.map(|answer| answer.map(|body| Answering::new(body, member)))
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

/// How many connections there may be.
struct Limits {
    slots: Arc<Semaphore>,
    all: usize,
    per_address: usize,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's part of what its address may have.
struct Share {
    address: IpAddr,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Limits {
    fn new(settings: &ServerSettings) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(settings.connections_max)),
            all: settings.connections_max,
            per_address: settings.connections_per_address_max,
            addresses: Arc::default(),
        }
    }

    /// Room for one more, made if need be.
    async fn slot(&self, crowd: &Crowd) -> OwnedSemaphorePermit {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return slot;
        }
        let mut slot = std::pin::pin!(self.slots.clone().acquire_owned());
        loop {
            // Who begins to wait after this look is told of as well.
            let waits = crowd.next_to_wait();
            crowd.make_room();
            tokio::select! {
                slot = &mut slot => return slot.expect("the semaphore is never closed"),
                () = waits => {}
            }
        }
    }

    /// One more connection of an address, if it may have one.
    fn share(&self, address: IpAddr) -> Option<Share> {
        let address = counted(address);
        let mut addresses = self.addresses.lock();
        let equal_part = self.all / (addresses.len() + usize::from(!addresses.contains_key(&address)));
        let most = match self.slots.available_permits() {
            0 => self.per_address.min(equal_part.saturating_add(1)),
            _ => self.per_address,
        };
        let count = addresses.entry(address).or_default();
        // Whoever has none is never refused here, so that no entry stays empty.
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Share { address, addresses: self.addresses.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
