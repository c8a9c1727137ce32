//! A real receiver that records what arrives and misbehaves on command.
//!
//! It speaks HTTP/1.1 by hand over real sockets, because a well-behaved server library would not
//! let it send half a header, a byte a second, or a reset.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tidings::sinks::signature::{SigningKey, check};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Bytes that one read or write moves at most.
const PIECE: usize = 16 * 1024;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// The path with its query.
    pub(crate) path: String,
    /// The header fields of the request.
    pub(crate) headers: HeaderMap,
    /// The body of the request.
    pub(crate) body: Vec<u8>,
    /// When its last byte arrived.
    pub(crate) at: Instant,
}

impl Recorded {
    /// A header as text; empty where it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// What a receiver does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Answers with this status and no body.
    Status(u16),
    /// Answers with a status, header fields and a body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Waits, then behaves otherwise.
    After(Duration, Box<Behaviour>),
    /// Never answers and keeps the connection open.
    Hang,
    /// Resets the connection instead of answering.
    Reset,
    /// Resets the connection in the middle of the header block.
    ResetInHeaders,
    /// Closes the connection instead of answering.
    Close,
    /// Announces a long body, sends half of it and closes.
    HalfBody,
    /// Sends the header block a byte at a time, this long apart.
    DripHeaders(Duration),
    /// Answers 200 at once and then sends the body a byte at a time, this long apart.
    DripBody(Duration),
    /// Answers with this status and a body that never ends.
    EndlessBody(u16),
    /// Answers 200 with this many header fields.
    ManyHeaders(usize),
    /// Answers 200 with a header field of this many bytes.
    LongHeader(usize),
    /// Interim answers (103) without end.
    EndlessInterim,
    /// Something that is not HTTP.
    Garbage,
}

/// How much of a request is read.
#[derive(Clone, Copy)]
enum Reading {
    All,
    Nothing,
    /// The header block; then this status is the answer and the rest stays unread.
    Head(u16),
}

struct Shared {
    script: Mutex<VecDeque<Behaviour>>,
    always: Mutex<Behaviour>,
    keys: Vec<SigningKey>,
    requests: watch::Sender<Vec<Recorded>>,
    connections: AtomicUsize,
    written: AtomicU64,
    reading: Reading,
}

/// A receiver on a free port of the loopback interface; it ends when it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    /// Answers 200 to everything until told otherwise.
    pub(crate) async fn start() -> Self {
        Self::bind(Vec::new(), Reading::All).await
    }

    /// Answers 401 to what is not signed with `secret` under every scheme that it carries.
    pub(crate) async fn verifying(secret: &str) -> Self {
        Self::bind(SigningKey::readings(secret), Reading::All).await
    }

    /// Accepts connections and never reads from them.
    pub(crate) async fn never_reading() -> Self {
        Self::bind(Vec::new(), Reading::Nothing).await
    }

    /// Answers with `status` once it has the header block and reads no further.
    pub(crate) async fn refusing_early(status: u16) -> Self {
        Self::bind(Vec::new(), Reading::Head(status)).await
    }

    async fn bind(keys: Vec<SigningKey>, reading: Reading) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            script: Mutex::default(),
            always: Mutex::new(Behaviour::Status(200)),
            keys,
            requests: watch::Sender::new(Vec::new()),
            connections: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            reading,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _tasks: tasks }
    }

    /// Its base address, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next requests are answered so, one each; then as [`Receiver::always`] says.
    pub(crate) fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.script.lock().expect("unpoisoned").extend(behaviours);
    }

    /// Every request beyond the script is answered so.
    pub(crate) fn always(&self, behaviour: Behaviour) {
        *self.shared.always.lock().expect("unpoisoned") = behaviour;
    }

    /// What has arrived, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.borrow().clone()
    }

    /// Waits until what has arrived satisfies `enough`, and returns it.
    ///
    /// # Panics
    /// When that takes longer than `deadline`.
    pub(crate) async fn wait_until(
        &self,
        deadline: Duration,
        mut enough: impl FnMut(&[Recorded]) -> bool,
    ) -> Vec<Recorded> {
        let mut arrivals = self.shared.requests.subscribe();
        let arrived = timeout(deadline, arrivals.wait_for(|requests| enough(requests))).await;
        match arrived {
            Ok(requests) => requests.expect("the receiver lives").clone(),
            Err(_) => panic!("not within {deadline:?}; arrived: {:?}", paths(&self.requests())),
        }
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many bytes of answers it got rid of.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::SeqCst)
    }
}

/// The paths of requests, for messages.
pub(crate) fn paths(requests: &[Recorded]) -> Vec<&str> {
    requests.iter().map(|request| request.path.as_str()).collect()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, _) = listener.accept().await.expect("the listener lives");
        shared.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(stream, Arc::clone(&shared)));
    }
}

/// Serves one connection until either side has had enough of it.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    match shared.reading {
        Reading::All => {}
        Reading::Nothing => return std::future::pending().await,
        Reading::Head(status) => {
            drop(stream.peek(&mut [0]).await);
            shared.write(&mut stream, head(status, &[], Some(0)).as_bytes()).await;
            return std::future::pending().await;
        }
    }
    let mut unread = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut unread).await {
        let known = shared.keys.is_empty()
            || check(&shared.keys, &request.headers, &request.body, Some(unix_seconds())).is_good();
        let behaviour = if known { shared.next() } else { Behaviour::Status(401) };
        shared.requests.send_modify(|requests| requests.push(request));
        if !behave(&mut stream, behaviour, &shared).await {
            return;
        }
    }
}

impl Shared {
    fn next(&self) -> Behaviour {
        let scripted = self.script.lock().expect("unpoisoned").pop_front();
        scripted.unwrap_or_else(|| self.always.lock().expect("unpoisoned").clone())
    }

    async fn write(&self, stream: &mut TcpStream, bytes: &[u8]) -> bool {
        let written = stream.write(bytes).await.unwrap_or(0);
        self.written.fetch_add(written as u64, Ordering::SeqCst);
        written > 0 && (written == bytes.len() || Box::pin(self.write(stream, &bytes[written..])).await)
    }

    async fn drip(&self, stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> bool {
        for byte in bytes {
            if !self.write(stream, &[*byte]).await {
                return false;
            }
            sleep(pause).await;
        }
        true
    }
}

/// Answers one request; false ends the connection.
async fn behave(stream: &mut TcpStream, behaviour: Behaviour, shared: &Shared) -> bool {
    match behaviour {
        Behaviour::Status(status) => shared.write(stream, head(status, &[], Some(0)).as_bytes()).await,
        Behaviour::Answer(status, fields, body) => {
            let head = head(status, &fields, Some(body.len()));
            shared.write(stream, format!("{head}{body}").as_bytes()).await
        }
        Behaviour::After(wait, then) => {
            sleep(wait).await;
            Box::pin(behave(stream, *then, shared)).await
        }
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Reset => reset(stream),
        Behaviour::ResetInHeaders => {
            shared.write(stream, b"HTTP/1.1 200 OK\r\ncontent-le").await;
            reset(stream)
        }
        Behaviour::Close => false,
        Behaviour::HalfBody => {
            shared.write(stream, format!("{}half", head(200, &[], Some(8))).as_bytes()).await;
            false
        }
        Behaviour::DripHeaders(pause) => {
            let head = head(200, &[("x-long", "x".repeat(PIECE))], Some(0));
            shared.drip(stream, head.as_bytes(), pause).await
        }
        Behaviour::DripBody(pause) => {
            shared.write(stream, head(200, &[], Some(PIECE)).as_bytes()).await;
            shared.drip(stream, &[b'x'; PIECE], pause).await
        }
        Behaviour::EndlessBody(status) => {
            shared
                .write(stream, head(status, &[("transfer-encoding", "chunked".into())], None).as_bytes())
                .await;
            let piece = format!("{PIECE:x}\r\n{}\r\n", "x".repeat(PIECE));
            while shared.write(stream, piece.as_bytes()).await {}
            false
        }
        Behaviour::ManyHeaders(count) => {
            let fields: String = (0..count).map(|number| format!("x-{number}: y\r\n")).collect();
            let head = head(200, &[], Some(0)).replace("\r\n\r\n", &format!("\r\n{fields}\r\n"));
            shared.write(stream, head.as_bytes()).await
        }
        Behaviour::LongHeader(bytes) => {
            shared.write(stream, head(200, &[("x-long", "x".repeat(bytes))], Some(0)).as_bytes()).await
        }
        Behaviour::EndlessInterim => {
            while shared.write(stream, b"HTTP/1.1 103 Early Hints\r\nlink: </>\r\n\r\n").await {}
            false
        }
        Behaviour::Garbage => {
            shared.write(stream, b"\x16\x03\x01 this is not HTTP \0\r\n\r\n").await;
            false
        }
    }
}

fn head(status: u16, fields: &[(&str, String)], length: Option<usize>) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = length.map_or(String::new(), |length| format!("content-length: {length}\r\n"));
    format!("HTTP/1.1 {status} Scripted\r\n{fields}{length}\r\n")
}

/// Makes the end of the connection a reset.
fn reset(stream: &TcpStream) -> bool {
    stream.set_zero_linger().expect("the socket is open");
    false
}

/// Reads one request; nothing when the peer is gone.
async fn read_request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<Recorded> {
    let end = loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, unread).await?;
    };
    let head = String::from_utf8(unread[..end].to_vec()).expect("a header block is text");
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: HeaderName = name.parse().expect("a header name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("a header value"));
    }
    let length = headers.get("content-length").map_or("0", |length| length.to_str().expect("a number"));
    let whole = end + length.parse::<usize>().expect("a number");
    while unread.len() < whole {
        more(stream, unread).await?;
    }
    let rest = unread.split_off(whole);
    let body = std::mem::replace(unread, rest).split_off(end);
    Some(Recorded { path, headers, body, at: Instant::now() })
}

async fn more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; PIECE];
    let read = stream.read(&mut piece).await.ok().filter(|read| *read > 0)?;
    unread.extend_from_slice(&piece[..read]);
    Some(())
}

#[expect(clippy::disallowed_methods, reason = "a receiver has a clock of its own")]
fn unix_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the end of time")
}
