//! A real Git host: HTTP on port 0 in front of `git http-backend`, serving the repositories of a
//! temporary folder. It records what was asked and how many bytes went by, can demand a
//! credential, speak only version 0, and misbehave on demand.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command, sync::watch, task::JoinSet};
use url::Url;

use super::repository::{Repository, git_command};

/// How the host misbehaves, at requests that fetch or list (POST) unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Never answers, not even the discovery.
    Hang,
    /// Sends the first half of the answer, then closes the connection.
    CutInHalf,
    /// Sends the first half of the answer, then nothing, for ever.
    Stall,
    /// Answers this many bytes a second.
    Drip(usize),
    /// Answers fetches with a word of progress a second, and never with a pack.
    ProgressAlone,
    /// Answers fetches with the beginning of a pack, and then with plenty of progress alone.
    ProgressInPack,
    /// Answers HTML with status 200, as Git.
    Html,
    /// Answers a web page with its own content type.
    WebPage,
    /// Answers with this status and this `Retry-After`.
    Status(u16, Option<&'static str>),
    /// Answers with this status and these headers.
    Headers(u16, &'static [(&'static str, &'static str)]),
    /// Lists so many bytes of refs, some of whose names are no text.
    FloodOfRefs(usize),
    /// Answers that the repository has moved there.
    Moved(String),
    /// Refuses in the words of the protocol, repeating the credential in clear and as it came.
    Echo,
    /// Says that the pack has so many objects.
    ObjectCount(u32),
    /// Refuses, in the words of the protocol, whoever says what it has.
    RefusesHaves,
    /// Leaves contents out of a fetch where it is asked to, and refuses each of them by its id.
    NoBlobsById,
    /// Answers a fetch with this pack.
    Pack(Bytes),
    /// Flips one bit in the middle of the answer.
    FlippedBit,
}

/// What a request was and what went by.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) body: String,
    pub(crate) authorization: Option<String>,
    pub(crate) at: Instant,
}

#[derive(Default)]
struct State {
    faults: Mutex<Option<Fault>>,
    credential: Mutex<Option<String>>,
    version_0: Mutex<bool>,
    shown: Mutex<Vec<(String, String, String)>>,
    renamed: Mutex<Vec<(String, String)>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    root: PathBuf,
}

/// The host; it stops when dropped.
pub(crate) struct GitHost {
    state: Arc<State>,
    address: SocketAddr,
    began: watch::Receiver<usize>,
    _root: TempDir,
    _server: JoinSet<()>,
}

type Body = BoxBody<Bytes, std::io::Error>;

impl GitHost {
    /// At `127.0.0.1`, whose ports are all one host to the server.
    pub(crate) async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// At a loopback address that no other host of these stories has.
    pub(crate) async fn start_apart() -> Self {
        static HOSTS: AtomicU16 = AtomicU16::new(0);
        let [high, low] = HOSTS.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        Self::start_at(Ipv4Addr::new(127, 1 + high, low, 1)).await
    }

    async fn start_at(address: Ipv4Addr) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let state = Arc::new(State { root: root.path().to_owned(), ..State::default() });
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (begin, began) = watch::channel(0);
        let mut server = JoinSet::new();
        let served = Arc::clone(&state);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let (state, begin) = (Arc::clone(&served), begin.clone());
                state.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&state);
                        begin.send_modify(|count| *count += 1);
                        async move { Ok::<_, Infallible>(answer(&state, request).await) }
                    });
                    // A client that goes away is an ordinary event here.
                    drop(http1::Builder::new().serve_connection(TokioIo::new(connection), service).await);
                });
            }
        });
        Self { state, address, began, _root: root, _server: server }
    }

    /// Makes a repository that is served as `name`.
    pub(crate) fn repository(&self, name: &str) -> Repository {
        let repository = Repository::create(&self.state.root.join(name));
        repository.config("uploadpack.allowAnySHA1InWant", "true");
        repository.config("uploadpack.allowFilter", "true");
        repository
    }

    pub(crate) fn url(&self, name: &str) -> Url {
        format!("http://{}/{name}", self.address).parse().expect("a valid address")
    }

    /// Misbehaves from now on, or stops doing so.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        *self.state.faults.lock().expect("no panic") = fault;
    }

    /// Demands `user:password`, or a bearer token where there is no colon.
    pub(crate) fn demand(&self, credential: &str) {
        let shown = match credential.contains(':') {
            true => format!("Basic {}", BASE64.encode(credential.as_bytes())),
            false => format!("Bearer {credential}"),
        };
        *self.state.credential.lock().expect("no panic") = Some(shown);
    }

    /// Shows `other` instead of `name` to whoever brings `user:password`: what one may see and
    /// another may not.
    pub(crate) fn show(&self, credential: &str, name: &str, other: &str) {
        let header = format!("Basic {}", BASE64.encode(credential.as_bytes()));
        self.state.shown.lock().expect("no panic").push((header, name.to_owned(), other.to_owned()));
    }

    /// Speaks only version 0.
    pub(crate) fn speak_version_0(&self) {
        *self.state.version_0.lock().expect("no panic") = true;
    }

    /// From now on what is served as `name` is said to have moved for good to this address.
    pub(crate) fn rename(&self, name: &str, to: &str) {
        self.state.renamed.lock().expect("no panic").push((name.to_owned(), to.to_owned()));
    }

    /// What was asked since the last time.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.state.seen.lock().expect("no panic"))
    }

    /// Waits until a request has begun that is not counted in `before`.
    pub(crate) async fn request_after(&self, before: usize) {
        let mut began = self.began.clone();
        let wait = began.wait_for(|count| *count > before);
        drop(
            tokio::time::timeout(Duration::from_secs(20), wait)
                .await
                .expect("a request in time")
                .expect("it runs"),
        );
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many requests have begun so far.
    pub(crate) fn requests(&self) -> usize {
        *self.began.borrow()
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> Response<Body> {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let fault = state.faults.lock().expect("no panic").clone();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if fault == Some(Fault::Hang) {
        std::future::pending::<()>().await;
    }
    let authorization =
        parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let demanded = state.credential.lock().expect("no panic").clone();
    let is_allowed = demanded.is_none_or(|demanded| authorization == Some(demanded));
    let mut misbehaves = fault.filter(|_| parts.method == Method::POST);
    let made_up = made_up(state, misbehaves.as_ref(), &parts, &body, authorization.as_deref()).await;
    if made_up.is_none() && matches!(misbehaves, Some(Fault::ProgressAlone | Fault::ProgressInPack)) {
        misbehaves = None;
    }
    let moved = moved(state, &parts.uri);
    let (status, kind, bytes) = match (&misbehaves, made_up) {
        _ if moved.is_some() => (301, "text/plain".to_owned(), Bytes::new()),
        _ if !is_allowed => (401, "text/plain".to_owned(), Bytes::from_static(b"who are you?")),
        (_, Some(answer)) => (200, "application/x-git-upload-pack-result".to_owned(), answer),
        (Some(Fault::Status(status, _) | Fault::Headers(status, _)), _) => {
            (*status, "text/plain".to_owned(), Bytes::from_static(b"no"))
        }
        (Some(Fault::Moved(_)), _) => (302, "text/plain".to_owned(), Bytes::new()),
        (Some(Fault::WebPage), _) => (200, "text/html".to_owned(), Bytes::from_static(b"<html></html>")),
        _ => backend(state, &parts, &body).await,
    };
    state.seen.lock().expect("no panic").push(Seen {
        path: parts.uri.to_string(),
        sent: body.len() as u64,
        answered: bytes.len() as u64,
        body: String::from_utf8_lossy(&body).into_owned(),
        authorization,
        at: began,
    });
    let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    if let Some(Fault::Status(_, Some(patience))) = &misbehaves {
        response = response.header(header::RETRY_AFTER, *patience);
    }
    if let Some(Fault::Headers(_, headers)) = &misbehaves {
        for (name, value) in *headers {
            response = response.header(*name, *value);
        }
    }
    if let Some(target) = moved {
        response = response.header(header::LOCATION, target);
    }
    if let Some(Fault::Moved(target)) = &misbehaves {
        response = response.header(header::LOCATION, target);
    }
    response.body(misbehave(misbehaves, bytes)).expect("a valid answer")
}

/// The answer in the words of the protocol that a fault makes up.
async fn made_up(
    state: &State,
    fault: Option<&Fault>,
    parts: &hyper::http::request::Parts,
    body: &[u8],
    authorization: Option<&str>,
) -> Option<Bytes> {
    Some(match fault? {
        Fault::FloodOfRefs(bytes) => flood_of_refs(*bytes),
        Fault::Pack(pack) if is_fetch(body) => in_band(pack),
        Fault::ProgressAlone if is_fetch(body) => progress_alone(),
        Fault::ProgressInPack if is_fetch(body) => progress_in_pack(),
        Fault::Echo => echo(authorization),
        Fault::RefusesHaves if body.windows(5).any(|window| window == b"have ") => {
            Bytes::from_static(b"0026ERR upload-pack: haves are unwelcome")
        }
        Fault::NoBlobsById => {
            let want = first_want(body)?;
            if !is_blob(state, parts.uri.path(), &want).await {
                return None;
            }
            let words = format!("ERR want {want} not valid\n");
            format!("{:04x}{words}", words.len() + 4).into()
        }
        _ => return None,
    })
}

/// Where what is asked for moved, with or without `.git`.
fn moved(state: &State, uri: &hyper::Uri) -> Option<String> {
    let renamed = state.renamed.lock().expect("no panic");
    renamed.iter().rev().find_map(|(name, to)| {
        let rest = uri.path().strip_prefix(&format!("/{name}"))?;
        let rest = rest.strip_prefix(".git").unwrap_or(rest);
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        rest.starts_with('/').then(|| format!("{to}{rest}{query}"))
    })
}

/// A refusal that holds what it should not.
fn echo(authorization: Option<&str>) -> Bytes {
    let shown = authorization.unwrap_or_default();
    let pair = shown.strip_prefix("Basic ").and_then(|pair| BASE64.decode(pair.as_bytes()).ok());
    let pair = String::from_utf8(pair.unwrap_or_default()).expect("text");
    let words = format!("ERR {pair} or {shown}\n");
    format!("{:04x}{words}", words.len() + 4).into()
}

fn is_fetch(body: &[u8]) -> bool {
    body.windows(13).any(|window| window == b"command=fetch")
}

/// The id that a fetch names first.
fn first_want(body: &[u8]) -> Option<String> {
    let at = body.windows(5).position(|window| window == b"want ")? + 5;
    Some(String::from_utf8_lossy(body.get(at..at + 40)?).into_owned())
}

/// Whether an id names a blob of the repository that is asked.
async fn is_blob(state: &State, path: &str, id: &str) -> bool {
    let name = path.trim_start_matches('/').trim_end_matches("/git-upload-pack");
    let kind = Command::from(git_command(&state.root.join(name))).args(["cat-file", "-t", id]).output().await;
    kind.expect("git runs").stdout.starts_with(b"blob")
}

/// Bytes of one word of progress.
const PROGRESS_BYTES: usize = 6;

fn progress_alone() -> Bytes {
    let mut answer = BytesMut::from(&b"000dpackfile\n"[..]);
    (0..3_600).for_each(|_| answer.extend_from_slice(b"0006\x02."));
    answer.freeze()
}

/// The header of a pack, and then words without end.
fn progress_in_pack() -> Bytes {
    let mut answer = BytesMut::from(&b"000dpackfile\n0011\x01PACK\0\0\0\x02\0\0\0\x09"[..]);
    for _ in 0..1_000 {
        answer.extend_from_slice(b"03ed\x02");
        answer.extend_from_slice(&[b'.'; 1_000]);
    }
    answer.freeze()
}

/// An answer of version 2 that brings a pack.
fn in_band(pack: &[u8]) -> Bytes {
    let mut answer = BytesMut::from(&b"000dpackfile\n"[..]);
    for piece in pack.chunks(60_000) {
        answer.extend_from_slice(format!("{:04x}\u{1}", piece.len() + 5).as_bytes());
        answer.extend_from_slice(piece);
    }
    answer.extend_from_slice(b"0000");
    answer.freeze()
}

fn misbehave(fault: Option<Fault>, bytes: Bytes) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    match fault {
        Some(Fault::CutInHalf) => {
            let frames = [Ok(Frame::data(half)), Err(std::io::Error::other("cut"))];
            StreamBody::new(stream::iter(frames)).boxed()
        }
        Some(Fault::Stall) => dripping(half, usize::MAX, true),
        Some(Fault::Drip(rate)) => dripping(bytes, rate, false),
        Some(Fault::ProgressAlone) => dripping(bytes, PROGRESS_BYTES, false),
        Some(Fault::ProgressInPack) => dripping(bytes, 20_000, false),
        Some(Fault::Html) => whole(Bytes::from_static(b"<html><body>Please log in</body></html>")),
        Some(Fault::ObjectCount(count)) => {
            let mut bytes = BytesMut::from(&bytes[..]);
            if let Some(at) = bytes.windows(4).position(|window| window == b"PACK") {
                bytes[at + 8..at + 12].copy_from_slice(&count.to_be_bytes());
            }
            whole(bytes.freeze())
        }
        Some(Fault::FlippedBit) => {
            let mut bytes = BytesMut::from(&bytes[..]);
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            whole(bytes.freeze())
        }
        _ => whole(bytes),
    }
}

/// A listing that does not want to end.
fn flood_of_refs(bytes: usize) -> Bytes {
    let mut listing = BytesMut::with_capacity(bytes + 1_024);
    let mut number = 0_u64;
    while listing.len() < bytes {
        let mut line = format!("{:040x} refs/heads/{number:0200}", number + 1).into_bytes();
        if number.is_multiple_of(2) {
            line.extend_from_slice(b"-\xff\xfe");
        }
        line.push(b'\n');
        listing.extend_from_slice(format!("{:04x}", line.len() + 4).as_bytes());
        listing.extend_from_slice(&line);
        number += 1;
    }
    listing.extend_from_slice(b"0000");
    listing.freeze()
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// So many bytes a second, and perhaps silence at the end.
fn dripping(bytes: Bytes, rate: usize, never_ends: bool) -> Body {
    let frames = stream::unfold((bytes, 0_u64), move |(mut rest, tick)| async move {
        if rest.is_empty() && never_ends {
            std::future::pending::<()>().await;
        }
        if rest.is_empty() {
            return None;
        }
        if tick > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let piece = rest.split_to(rate.div_ceil(10).min(rest.len()));
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), (rest, tick + 1)))
    });
    // A body must be Sync to be boxed; the mutex makes it so.
    BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(frames)))))
}

struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().expect("no panic").as_mut().poll_next(context)
    }
}

/// Runs `git http-backend` as CGI.
async fn backend(state: &State, parts: &hyper::http::request::Parts, body: &Bytes) -> (u16, String, Bytes) {
    let mut command = Command::from(git_command(Path::new("/")));
    let header = |name: header::HeaderName| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    };
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &state.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_HTTP_MAX_REQUEST_BUFFER", "100M")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", shown(state, parts))
        .env("QUERY_STRING", parts.uri.query().unwrap_or(""))
        .env("CONTENT_TYPE", header(header::CONTENT_TYPE))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("REMOTE_ADDR", "127.0.0.1")
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if !*state.version_0.lock().expect("no panic") {
        let protocol = parts.headers.get("git-protocol").and_then(|value| value.to_str().ok());
        command.env("GIT_PROTOCOL", protocol.unwrap_or(""));
    }
    let mut child = command.spawn().expect("git http-backend runs");
    let mut stdin = child.stdin.take().expect("piped");
    let input = body.clone();
    let write = async move {
        // The backend may answer an error without reading everything.
        drop(stdin.write_all(&input).await);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    cgi(&output.expect("git http-backend ends").stdout)
}

/// The path that is served, which may depend on who asks.
fn shown(state: &State, parts: &hyper::http::request::Parts) -> String {
    let path = parts.uri.path();
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = state.shown.lock().expect("no panic");
    let other = shown.iter().find_map(|(credential, name, other)| {
        let rest = path.strip_prefix(&format!("/{name}"))?;
        (authorization == Some(credential)).then(|| format!("/{other}{rest}"))
    });
    other.unwrap_or_else(|| path.to_owned())
}

/// Takes a CGI answer apart.
fn cgi(output: &[u8]) -> (u16, String, Bytes) {
    let Some(end) = output.windows(4).position(|window| window == b"\r\n\r\n") else {
        return (StatusCode::INTERNAL_SERVER_ERROR.as_u16(), "text/plain".to_owned(), Bytes::new());
    };
    let (mut status, mut kind) = (200, "text/plain".to_owned());
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        match line.split_once(": ") {
            Some(("Status", value)) => {
                status = value.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(500);
            }
            Some(("Content-Type", value)) => kind = value.to_owned(),
            _ => {}
        }
    }
    (status, kind, Bytes::copy_from_slice(&output[end + 4..]))
}
