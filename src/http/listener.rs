//! The accept loop: our own, because a silent client must not keep a connection for ever. HTTP/1.1
//! only; deadlines for headers, for idleness and for unread answers; limits on connections, in all
//! and per address. A client beyond a limit is closed at once, before it has cost a byte.

mod patience;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::Service;
use tracing::{debug, info, warn};
use warp::{filters::BoxedFilter, reply::Response};

use self::patience::Patience;
use crate::settings::ServerSettings;

/// Bytes of a request line with its headers.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// How long to wait after a failed accept: the process is out of descriptors, and only time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` resolves, then answers what was begun, until `drain_deadline`.
pub async fn serve(
    tcp: TcpListener,
    routes: BoxedFilter<(Response,)>,
    settings: &ServerSettings,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    let graceful = GracefulShutdown::new();
    let limits = Limits::new(settings);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&tcp, &limits) => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(error = %error, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(share) = limits.share(peer.ip()) else {
            debug!("an address has too many connections, the newest was closed");
            continue;
        };
        let connection = graceful.watch(connection(stream, routes.clone(), settings));
        connections.spawn(async move {
            let _held_until_the_end = (slot, share);
            if let Err(error) = connection.await {
                debug!(error = %error, "a connection ended early");
            }
        });
    }
    drop(tcp);
    info!(connections = connections.len(), "no new connections are accepted");
    if timeout(settings.drain_deadline, graceful.shutdown()).await.is_err() {
        warn!("requests were still being answered at the drain deadline");
    }
    connections.shutdown().await;
}

async fn accept(
    tcp: &TcpListener,
    limits: &Limits,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // Beyond the limit connections wait in the kernel's queue, where they cost nothing here.
    let slot = limits.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
    let (stream, peer) = tcp.accept().await?;
    Ok((stream, peer, slot))
}

fn connection(
    stream: TcpStream,
    routes: BoxedFilter<(Response,)>,
    settings: &ServerSettings,
) -> impl GracefulConnection<Error = hyper::Error> + Send + 'static {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = %error, "a connection keeps its delay");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let mut service = warp::service(routes.clone());
        async move { service.call(request).await }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_headers(settings.headers_max)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Patience::new(stream, settings.write_timeout)), service)
}

/// How many connections there may be.
struct Limits {
    slots: Arc<Semaphore>,
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
            per_address: settings.connections_per_address_max,
            addresses: Arc::default(),
        }
    }

    fn share(&self, address: IpAddr) -> Option<Share> {
        let address = address.to_canonical();
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let count = addresses.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Share { address, addresses: self.addresses.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
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
