//! A real Git host: HTTP on port 0 in front of `git http-backend`, serving the repositories of a
//! temporary folder. It records what was asked and how many bytes went by, can demand a
//! credential, speak only version 0, and misbehave on demand. A repository that did not change is not listed
//! again by Git: what Git listed before is said once more.

use std::{
    collections::HashMap,
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

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command, sync::watch, task::JoinSet};
use url::Url;

use super::repository::{Repository, git_command};
pub(crate) use faults::Fault;
use faults::{misbehave, said};
use listings::{Listings, Question, made_of};

// Said in full: a benchmark takes this file by its path.
#[path = "git_host/faults.rs"]
mod faults;
#[path = "git_host/listings.rs"]
mod listings;

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

/// The status, content type and body of an answer.
type Answer = (u16, String, Bytes);

#[derive(Default)]
struct State {
    /// The fault, and for how many requests of any kind; `None`: until it is taken back.
    fault: Mutex<Option<(Fault, Option<u64>)>>,
    /// What Git listed of repositories that are still the same.
    made: Listings,
    /// What was listed last, oldest first.
    listed: Mutex<HashMap<Question, Vec<Answer>>>,
    credential: Mutex<Option<String>>,
    /// Admitted beside the one that is demanded.
    second: Mutex<Option<String>>,
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

/// The header that shows a credential.
fn shown_as(credential: &str) -> String {
    match credential.contains(':') {
        true => format!("Basic {}", BASE64.encode(credential.as_bytes())),
        false => format!("Bearer {credential}"),
    }
}

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

    /// Serves a repository that lies elsewhere as `name`.
    pub(crate) fn link(&self, name: &str, repository: &Path) {
        std::os::unix::fs::symlink(repository, self.state.root.join(name)).expect("a link");
    }

    /// Misbehaves from now on, or stops doing so.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        *self.state.fault.lock().expect("no panic") = fault.map(|fault| (fault, None));
    }

    /// Misbehaves at the next requests, also at those that only look (GET).
    pub(crate) fn set_fault_for(&self, fault: Fault, requests: u64) {
        *self.state.fault.lock().expect("no panic") = Some((fault, Some(requests)));
    }

    /// Demands `user:password`, or a bearer token where there is no colon.
    pub(crate) fn demand(&self, credential: &str) {
        *self.state.credential.lock().expect("no panic") = Some(shown_as(credential));
    }

    /// Admits this credential as well.
    pub(crate) fn admit(&self, credential: &str) {
        *self.state.second.lock().expect("no panic") = Some(shown_as(credential));
    }

    /// Shows `other` instead of `name` to a client with `user:password`: what one may see and
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
            tokio::time::timeout(Duration::from_secs(120), wait)
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
    let fault = fault_of(state, &parts.method);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    match fault {
        Some(Fault::Hang) => std::future::pending::<()>().await,
        Some(Fault::Late(wait)) => tokio::time::sleep(wait).await,
        _ => {}
    }
    let authorization =
        parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let demanded = state.credential.lock().expect("no panic").clone();
    let second = state.second.lock().expect("no panic").clone();
    let is_allowed = demanded.is_none_or(|demanded| authorization == Some(demanded))
        || second.is_some() && authorization == second;
    let moved = moved(state, &parts.uri);
    // Progress is a way to answer fetches.
    let is_progress = |fault: &Fault| matches!(fault, Fault::ProgressAlone | Fault::ProgressInPack);
    let misbehaves = fault.filter(|fault| !is_progress(fault) || is_fetch(&body));
    let said = match &misbehaves {
        Some(Fault::NoBlobsById) => refused_blob(state, &parts, &body).await,
        Some(fault) => said(fault, &body, authorization.as_deref()),
        None => None,
    };
    let (status, kind, bytes) = match said {
        _ if moved.is_some() => (301, "text/plain".to_owned(), Bytes::new()),
        _ if !is_allowed => (401, "text/plain".to_owned(), Bytes::from_static(b"who are you?")),
        Some(said) => said,
        None => listed(state, &parts, &body, honest(state, &parts, &body).await, misbehaves.as_ref()),
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
    if let Some(Fault::Headers(_, headers) | Fault::Says(headers, _)) = &misbehaves {
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

/// How this request is misbehaved at, if it is.
fn fault_of(state: &State, method: &Method) -> Option<Fault> {
    let mut current = state.fault.lock().expect("no panic");
    let (fault, left) = current.as_mut()?;
    let fault = fault.clone();
    let Some(left) = left else {
        return Some(fault).filter(|fault| *method == Method::POST || *fault == Fault::Hang);
    };
    *left -= 1;
    if *left == 0 {
        *current = None;
    }
    Some(fault)
}

/// Listings that are remembered of a question.
const LISTED: usize = 4;

/// Remembers an honest listing; or gives an earlier listing instead.
fn listed(
    state: &State,
    parts: &hyper::http::request::Parts,
    body: &Bytes,
    honest: Answer,
    fault: Option<&Fault>,
) -> Answer {
    if !lists(parts, body) {
        return honest;
    }
    let mut listed = state.listed.lock().expect("no panic");
    let before = listed.entry((parts.uri.to_string(), body.clone())).or_default();
    match fault {
        Some(Fault::Stale) => before.first().cloned().unwrap_or(honest),
        Some(_) => honest,
        None => {
            if honest.0 == 200 && before.last() != Some(&honest) {
                before.push(honest.clone());
                before.drain(..before.len().saturating_sub(LISTED));
            }
            honest
        }
    }
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

fn lists(parts: &hyper::http::request::Parts, body: &[u8]) -> bool {
    parts.uri.path().ends_with("/info/refs") || is_listing(body)
}

fn is_fetch(body: &[u8]) -> bool {
    body.windows(13).any(|window| window == b"command=fetch")
}

fn is_listing(body: &[u8]) -> bool {
    body.windows(15).any(|window| window == b"command=ls-refs")
}

/// The refusal of a fetch that asks for a blob by its id.
async fn refused_blob(state: &State, parts: &hyper::http::request::Parts, body: &[u8]) -> Option<Answer> {
    let at = body.windows(5).position(|window| window == b"want ")? + 5;
    let want = String::from_utf8_lossy(body.get(at..at + 40)?).into_owned();
    let name = parts.uri.path().trim_start_matches('/').trim_end_matches("/git-upload-pack");
    let kind =
        Command::from(git_command(&state.root.join(name))).args(["cat-file", "-t", &want]).output().await;
    let words = format!("ERR want {want} not valid\n");
    let is_blob = kind.expect("git runs").stdout.starts_with(b"blob");
    is_blob.then(|| faults::in_protocol(format!("{:04x}{words}", words.len() + 4).into()))
}

/// What Git answers, or what it answered to this question when the repository was the same.
async fn honest(state: &State, parts: &hyper::http::request::Parts, body: &Bytes) -> Answer {
    if !lists(parts, body) {
        return backend(state, parts, body).await;
    }
    let path = shown(state, parts);
    let name =
        path.trim_start_matches('/').trim_end_matches("/info/refs").trim_end_matches("/git-upload-pack");
    let Some(repository) = made_of(&state.root.join(name)) else {
        return backend(state, parts, body).await;
    };
    let protocol = (protocol_of(state, parts), parts.method.as_str(), parts.uri.query().unwrap_or(""));
    let question: Question = (format!("{path} {protocol:?}"), body.clone());
    if let Some(answer) = state.made.of(&question, &repository) {
        return answer;
    }
    let answer = backend(state, parts, body).await;
    if answer.0 == 200 {
        state.made.keep(question, repository, &answer);
    }
    answer
}

/// The version of the protocol that the client asks for and this host speaks.
fn protocol_of(state: &State, parts: &hyper::http::request::Parts) -> Option<String> {
    let speaks = !*state.version_0.lock().expect("no panic");
    let asked = parts.headers.get("git-protocol").and_then(|value| value.to_str().ok());
    speaks.then(|| asked.unwrap_or("").to_owned())
}

/// Runs `git http-backend` as CGI.
async fn backend(state: &State, parts: &hyper::http::request::Parts, body: &Bytes) -> Answer {
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
    if let Some(protocol) = protocol_of(state, parts) {
        command.env("GIT_PROTOCOL", protocol);
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
fn cgi(output: &[u8]) -> Answer {
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
