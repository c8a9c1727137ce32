//! Receivers that do harm, each in a way of its own, on a runtime of their own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::misdeeds::{Misdeed, misdeeds};

/// Between two bytes of a receiver that drips.
const DRIP: Duration = Duration::from_millis(200);

/// Where hostile apps receive, and the runtime that does harm there.
pub(crate) struct Hostile {
    /// Base addresses by the name of what happens there.
    pub(crate) places: Vec<(&'static str, String)>,
    _runtime: tokio::runtime::Runtime,
}

impl Hostile {
    /// Listens for every misdeed. `elsewhere`: where redirects lead.
    pub(crate) fn start(elsewhere: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bench-hostile")
            .enable_all()
            .build()
            .expect("a runtime");
        let places = runtime.block_on(async {
            let mut places = Vec::new();
            for (name, misdeed) in misdeeds(elsewhere) {
                places.push((name, format!("http://{}", listen(misdeed).await)));
            }
            let hangs = listen(Misdeed::Hang).await;
            places.push(("TLS that never begins", format!("https://{hangs}")));
            let plain = listen(Misdeed::Say(b"HTTP/1.1 400 x\r\n\r\n".to_vec())).await;
            places.push(("no TLS where it is promised", format!("https://{plain}")));
            places.push(("a certificate of nobody", format!("https://{}", listen_tls().await)));
            let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr();
            places.push(("nobody listens", format!("http://{}", closed.expect("bound"))));
            places
        });
        Self { places, _runtime: runtime }
    }
}

async fn listen(misdeed: Misdeed) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let misdeed = Arc::new(misdeed);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(harm(stream, Arc::clone(&misdeed)));
        }
    });
    address
}

/// TLS as it should be, but for who vouches for it.
async fn listen_tls() -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            // The other side refuses the certificate, as it should.
            tokio::spawn(async move { drop(acceptor.accept(stream).await) });
        }
    });
    address
}

/// Reads one request, whatever it holds, and answers it badly.
async fn harm(mut stream: TcpStream, misdeed: Arc<Misdeed>) {
    if read_request(&mut stream).await.is_none() {
        return;
    }
    // The other side gives up sooner or later; what it no longer reads is not our concern.
    match &*misdeed {
        Misdeed::Hang => drop(stream.read(&mut [0]).await),
        Misdeed::TakeAndVanish => {}
        Misdeed::Vanish => drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await),
        Misdeed::Say(bytes) => drop(stream.write_all(bytes).await),
        Misdeed::Drip => {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
            while sent.is_ok() {
                tokio::time::sleep(DRIP).await;
                sent = stream.write_all(b".").await;
            }
        }
        Misdeed::Flood => {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n").await;
            let block = vec![b'x'; 1 << 16];
            while sent.is_ok() {
                sent = stream.write_all(&block).await;
            }
        }
    }
}

/// Reads to the end of the body, or of the first bytes of what is no HTTP.
async fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let mut piece = [0; 4_096];
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        read.extend_from_slice(&piece[..count]);
        if !read.starts_with(b"P") {
            return Some(());
        }
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if read.len() >= end + 4 + length.unwrap_or(0) {
                return Some(());
            }
        }
    }
}
