//! A peer that answers as a story says, request by request, in clear text or over TLS: an endpoint
//! that asks for credentials or client certificates, or the token server that gives them out.

use std::{
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer,
    server::WebPkiClientVerifier,
};
use serde_json::Value;

use super::{
    http::{Message, read_body, read_head},
    patience::{SOON, eventually},
};

/// Longest silence of a client in the middle of something.
const SILENCE: Duration = Duration::from_secs(60);

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The path of the request, with its query.
    pub(crate) path: String,
    /// The head and the body of the request.
    pub(crate) message: Message,
    /// The client certificate that was shown and proved, in base64; empty without one.
    pub(crate) proof: String,
}

impl Seen {
    /// A header; empty where it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.message.header(name).unwrap_or_default()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.message.body).expect("JSON")
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.message.body.clone()).expect("text")
    }
}

/// How the peer answers a request.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    /// A status and a body.
    Say(u16, String),
    /// Never answers and keeps the connection open.
    Hang,
}

impl Word {
    /// A status without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self::Say(status, String::new())
    }
}

type Script = Box<dyn FnMut(&Seen) -> Word + Send>;

struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    stopped: AtomicBool,
    secure: Option<Arc<ServerConfig>>,
}

/// The peer; it ends when it is dropped.
pub(crate) struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Peer {
    /// Starts a peer that speaks plain HTTP.
    pub(crate) fn plain(script: impl FnMut(&Seen) -> Word + Send + 'static) -> Self {
        Self::start(None, Box::new(script))
    }

    /// Starts a peer that speaks HTTP over TLS.
    pub(crate) fn secure(config: ServerConfig, script: impl FnMut(&Seen) -> Word + Send + 'static) -> Self {
        Self::start(Some(Arc::new(config)), Box::new(script))
    }

    fn start(secure: Option<Arc<ServerConfig>>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            seen: Mutex::default(),
            stopped: AtomicBool::new(false),
            secure,
        });
        let door = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if door.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&door);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// Its address as a base address.
    pub(crate) fn url(&self) -> String {
        match self.shared.secure {
            Some(_) => format!("https://localhost:{}", self.address.port()),
            None => format!("http://{}", self.address),
        }
    }

    /// From now on this answers.
    pub(crate) fn script(&self, script: impl FnMut(&Seen) -> Word + Send + 'static) {
        *locked(&self.shared.script) = Box::new(script);
    }

    /// What arrived so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        locked(&self.shared.seen).clone()
    }

    /// Waits for this many requests.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Seen> {
        eventually(&format!("request {count}"), SOON, || {
            let seen = self.seen();
            (seen.len() >= count).then_some(seen)
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // It waits at its door for the next one: this is the last.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    stream.set_read_timeout(Some(SILENCE)).expect("a socket");
    let Some(config) = &shared.secure else {
        return converse(stream, shared, |_| String::new());
    };
    let connection = ServerConnection::new(Arc::clone(config)).expect("a connection");
    converse(StreamOwned::new(connection, stream), shared, |stream| {
        let shown = stream.conn.peer_certificates().and_then(|chain| chain.first());
        shown.map(|certificate| BASE64.encode(certificate)).unwrap_or_default()
    });
}

fn converse<S: Read + Write>(stream: S, shared: &Shared, proof: impl Fn(&S) -> String) {
    let mut reader = BufReader::new(stream);
    while let Ok(Some((first_line, headers))) = read_head(&mut reader) {
        let path = first_line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut message = Message { first_line, headers, body: Vec::new() };
        let Ok(body) = read_body(&mut reader, &message, false) else { return };
        message.body = body;
        let seen = Seen { path, message, proof: proof(reader.get_ref()) };
        let word = locked(&shared.script)(&seen);
        locked(&shared.seen).push(seen);
        let Word::Say(status, body) = word else {
            while !shared.stopped.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(20));
            }
            return;
        };
        let answer = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if reader.get_mut().write_all(answer.as_bytes()).and_then(|()| reader.get_mut().flush()).is_err() {
            return;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An authority that vouches for peers and clients.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    /// The certificate as [`Seen::proof`] has it.
    pub(crate) fn proof(&self) -> String {
        self.certificate.lines().filter(|line| !line.starts_with('-')).map(str::trim).collect()
    }
}

impl Authority {
    /// One of its own.
    pub(crate) fn new() -> Self {
        let mut root = CertificateParams::new(Vec::new()).expect("parameters");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "an authority of a story");
        root.distinguished_name = name;
        let issuer = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key"));
        Self(issuer.expect("an authority"))
    }

    /// The certificate of this authority, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `name`, valid until the given year.
    pub(crate) fn pair(&self, name: &str, until: i32) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        leaf.not_after = rcgen::date_time_ymd(until, 1, 1);
        let leaf = leaf.signed_by(&key, &self.0).expect("signed");
        Pair { certificate: leaf.pem(), key: key.serialize_pem() }
    }

    /// What a peer at `localhost` serves with; `clients`: who vouches for those it listens to.
    pub(crate) fn server(&self, clients: Option<&Self>) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let leaf = leaf.signed_by(&key, &self.0).expect("signed");
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).expect("an authority");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        config.with_single_cert(vec![leaf.der().clone()], private).expect("a certificate")
    }
}
