//! A receiver that reads and acknowledges, and does nothing else.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

/// A receiver that reads and acknowledges.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    count: Arc<AtomicU64>,
}

impl Receiver {
    /// On a thread of its own, as another process would be.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let serving = async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket");
                let counted = counted.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request: hyper::Request<Incoming>| {
                        let counted = counted.clone();
                        async move {
                            drop(request.into_body().collect().await);
                            counted.fetch_add(1, Relaxed);
                            Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::default()))
                        }
                    });
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        };
        // It ends with the process.
        drop(std::thread::spawn(move || runtime.block_on(serving)));
        Self { address, count }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub(crate) async fn until(&self, expected: u64) {
        while self.count() < expected {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
