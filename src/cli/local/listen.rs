//! `tidings listen`: a receiver that checks signatures, prints what arrives and can mirror it.
//!
//! It answers 2xx only after the effect is on disk, and 401 to a request that is not signed with the secret
//! under every scheme that it carries. The status tells a sender whether to try again
//! ([`mirror::MirrorError::status`]), for each change of a batch separately. Headers must arrive within 10 s,
//! a body within 2 minutes; the signature headers are checked before the body is read, and all bodies
//! together have a bounded size. With `--pull` it asks a server for changes instead.

pub mod assembly;
pub mod envelope;
pub mod folder;
pub mod journal;
pub mod message;
pub mod mirror;
mod pull;

use std::{
    convert::Infallible,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::json;
use thiserror::Error;
use tidings_actors::ports::Clock;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
    time::timeout,
};

use crate::cli::{
    Code, Failure,
    client::{Client, ServerArgs},
    verify::{InputError, SecretArgs},
};
use crate::sinks::{
    excerpt,
    signature::{self, SigningKey},
};
use envelope::Change;
use message::{Message, Verb};
use mirror::{Effect, Mirror, MirrorError, OpenMirrorError};

/// Time for a header block, and longest silence between two requests of a connection.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// The time limit for receiving a body.
const BODY_WITHIN: Duration = Duration::from_secs(120);
/// Bytes of a body: a text of the largest admitted file, a third of it escaped.
const BODY_MAX: usize = 448 << 20;
/// Connections served at the same time; others wait.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of all bodies that are held at the same time; a body waits until it fits.
const BODIES_MAX: usize = BODY_MAX;
/// The unit of the memory limit for bodies, in bytes.
const BODY_UNIT: usize = 64 << 10;

/// Receives deliveries, checks their signatures, prints them and may mirror them into a folder.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// Address and port to listen on, or only a port of 127.0.0.1; port 0 takes a free port
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDRESS", value_parser = socket_address)]
    pub listen: SocketAddr,
    /// The secret that signatures are checked with.
    #[command(flatten)]
    pub secret: SecretArgs,
    /// Prints each body instead of a line about it; set from the option that every verb has.
    #[arg(skip)]
    pub json: bool,
    /// Keep this folder equal to the files of one branch of one watch
    #[arg(long, value_name = "FOLDER")]
    pub mirror: Option<PathBuf>,
    /// Mirror into the folder even if it holds other files, or mirrors another watch or branch: files with
    /// the same path are overwritten
    #[arg(long, requires = "mirror")]
    pub mirror_into_existing: bool,
    /// Pull the changes of this watch from a server instead of listening; names the watch by its id, or by
    /// owner/name or address of its repository
    #[arg(long, value_name = "REPOSITORY", conflicts_with_all = ["listen", "secret_file"])]
    pub pull: Option<String>,
    /// With --pull: end when no change is pending. Without --mirror and --settle: print the next pending
    /// changes, give them back, and end
    #[arg(long, requires = "pull")]
    pub once: bool,
    /// With --pull, without --mirror: settle each change that is printed, so that it is not handed out again
    #[arg(long, requires = "pull", conflicts_with = "mirror")]
    pub settle: bool,
    /// With --pull: the server that changes are claimed from.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// The reason why the receiver does not run.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The secret cannot be read from its file or the environment.
    #[error(transparent)]
    Secret(#[from] InputError),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}; name another address or port with --listen")]
    Address(SocketAddr, #[source] io::Error),
    /// The folder of the mirror cannot be used.
    #[error("cannot mirror into {}: {}", _0.display(), _1)]
    Mirror(PathBuf, #[source] OpenMirrorError),
    /// The socket cannot accept connections any more.
    #[error("cannot accept connections: {0}")]
    Accept(#[source] io::Error),
}

/// The output for printed lines.
pub type Output = Box<dyn Write + Send>;

/// A receiver that is bound and not yet serving.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    receiver: Arc<Receiver>,
}

struct Receiver {
    keys: Vec<SigningKey>,
    clock: Arc<dyn Clock>,
    json: bool,
    mirror: Option<Arc<Mutex<Mirror>>>,
    output: Mutex<Output>,
    room: Semaphore,
}

/// An answer in the making.
type Answer = (StatusCode, String);

impl Listener {
    /// Binds the address, reads the secret and opens the mirror.
    ///
    /// # Errors
    /// [`ListenError`] says which of these failed.
    pub async fn bind(args: &ListenArgs, clock: Arc<dyn Clock>, output: Output) -> Result<Self, ListenError> {
        let receiver = Receiver::open(args, args.secret.strong_keys()?, clock, output)?;
        let bind = async {
            let socket = TcpListener::bind(args.listen).await?;
            Ok((socket.local_addr()?, socket))
        };
        let (address, socket) = bind.await.map_err(|error| ListenError::Address(args.listen, error))?;
        Ok(Self { socket, address, receiver: Arc::new(receiver) })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready.
    ///
    /// # Errors
    /// [`ListenError::Accept`] when the socket fails.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ListenError> {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
                Ok((self.socket.accept().await?.0, permit))
            };
            let (stream, permit) = tokio::select! {
                () = &mut stop => return Ok(()),
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted.map_err(ListenError::Accept)?,
            };
            let receiver = Arc::clone(&self.receiver);
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let receiver = Arc::clone(&receiver);
                    async move { Ok::<_, Infallible>(receiver.answer(request).await) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADERS_WITHIN)
                    .serve_connection(TokioIo::new(stream), service);
                // A broken connection is not our failure: the sender sends again what was not acknowledged.
                drop(served.await);
                drop(permit);
            });
        }
    }
}

/// Listens until interrupted, printing to standard output.
///
/// # Errors
/// As [`Listener::bind`] and [`Listener::run`].
pub async fn run(args: &ListenArgs, clock: Arc<dyn Clock>) -> Result<(), ListenError> {
    let listener = Listener::bind(args, clock, Box::new(io::stdout())).await?;
    // On standard error, because standard output carries events only. A closed standard error is no failure.
    drop(writeln!(io::stderr(), "listening on http://{}", listener.address()));
    listener.run(interrupted()).await
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Pulls the pending changes of one watch until interrupted, and prints them to standard output.
///
/// # Errors
/// If the mirror fails, or the server refuses.
pub(crate) async fn pull(
    args: &ListenArgs,
    watch: &str,
    client: Client,
    clock: Arc<dyn Clock>,
) -> Result<(), Failure> {
    let mode = match (args.mirror.is_some() || args.settle, args.once) {
        (true, once) => pull::PullMode::Settle { once },
        (false, true) => pull::PullMode::Print,
        (false, false) => {
            let text = "--pull alone would print the same changes again and again, because printing settles \
                        nothing: add --mirror FOLDER to keep a folder equal, --settle to settle what is \
                        printed, or --once to print the next pending changes";
            return Err(Failure::new(Code::Usage, text));
        }
    };
    let watch = client.watch(watch).await?;
    let receiver = Receiver::open(args, Vec::new(), clock, Box::new(io::stdout()));
    let receiver = receiver.map_err(|error| Failure::of_error(Code::CannotCreate, &error))?;
    let ended = match receiver.claim(watch.as_str(), None, None) {
        Ok(()) => pull::run(client, &receiver, watch.as_str(), mode, interrupted()).await,
        Err(failure) => Err(failure),
    };
    if let (Err(_), Some(mirror)) = (&ended, &receiver.mirror)
        && let Err(error) = mirror.lock().take_back()
    {
        // The verb already ends with the failure itself.
        drop(writeln!(io::stderr(), "tidings: the new mirror folder could not be removed: {error}"));
    }
    ended
}

/// Reads an address with a port, or a port of this machine alone.
fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')).unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| "write an address and a port, such as 127.0.0.1:9000, or a port".to_owned())
}

impl Receiver {
    fn open(
        args: &ListenArgs,
        keys: Vec<SigningKey>,
        clock: Arc<dyn Clock>,
        output: Output,
    ) -> Result<Self, ListenError> {
        let open = |path: &PathBuf| {
            let opened = Mirror::open(path, args.mirror_into_existing);
            let opened = opened.map_err(|error| ListenError::Mirror(path.clone(), error))?;
            Ok::<_, ListenError>(Arc::new(Mutex::new(opened)))
        };
        let mirror = args.mirror.as_ref().map(open).transpose()?;
        let room = Semaphore::new(BODIES_MAX / BODY_UNIT);
        Ok(Self { keys, clock, json: args.json, mirror, output: Mutex::new(output), room })
    }

    /// Records the watch and cursor of the mirror, before any of their changes is applied.
    fn claim(&self, watch: &str, cursor: Option<&str>, branch: Option<&str>) -> Result<(), Failure> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        let claimed = mirror.lock().claim(watch, cursor, branch);
        claimed.map_err(|error| Failure::of_error(Code::CannotCreate, &error))
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match self.receive(request).await {
            Ok(answer) | Err(answer) => answer,
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    }

    async fn receive(&self, request: Request<Incoming>) -> Result<Answer, Answer> {
        let refuse = |status: StatusCode, text: &str| (status, text.to_owned());
        if request.method() != Method::POST {
            return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "deliveries are posted"));
        }
        let (parts, body) = request.into_parts();
        let (verb, word) = Verb::of(parts.uri.path())
            .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "no delivery goes to this path"))?;
        let seconds = self.clock.now().0.div_euclid(1000);
        signature::check_freshness(&parts.headers, seconds)
            .map_err(|fault| refuse(StatusCode::UNAUTHORIZED, &fault.to_string()))?;
        let reading = timeout(BODY_WITHIN, self.read(body)).await;
        let (body, _room) =
            reading.map_err(|_| refuse(StatusCode::REQUEST_TIMEOUT, "the body took too long"))??;
        let verdict = signature::check(&self.keys, &parts.headers, &body, Some(seconds));
        if !verdict.is_good() {
            let faults = [verdict.standard, verdict.docora].into_iter().flatten().filter_map(Result::err);
            let text = faults.map(|fault| fault.to_string()).next().unwrap_or_default();
            self.print(&format!("{word:9} refused: {text}"));
            return Err(refuse(StatusCode::UNAUTHORIZED, &text));
        }
        let unusable = |error: serde_json::Error| {
            refuse(StatusCode::BAD_REQUEST, &format!("the body is not usable: {error}"))
        };
        if verb == Verb::Test {
            if self.json {
                self.print_body(&body);
            }
            self.print(&format!("{word:9} a test delivery with a valid signature"));
            return Ok((StatusCode::OK, String::new()));
        }
        let is_event = envelope::is_event(&parts.headers);
        if verb == Verb::Batch {
            let changes = envelope::changes(&body, is_event).map_err(unusable)?;
            return Ok((StatusCode::OK, self.receive_batch(changes).await));
        }
        let message: Message = envelope::message(&body, is_event).map_err(unusable)?;
        match self.take(verb, word, message, &body).await {
            None | Some(Ok(_)) => Ok((StatusCode::OK, String::new())),
            Some(Err(error)) => {
                let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
                Err((status, error.to_string()))
            }
        }
    }

    /// Applies the changes of a batch one after another, and reports the result of each.
    async fn receive_batch(&self, changes: Vec<Change>) -> String {
        let mut results = Vec::with_capacity(changes.len());
        for Change { verb, word, message, text } in changes {
            let id = message.event.as_ref().map_or_else(String::new, |event| event.id.clone());
            results.push(match self.take(verb, word, message, text.as_bytes()).await {
                None | Some(Ok(_)) => json!({ "id": id, "outcome": "accepted" }),
                Some(Err(error)) => {
                    let outcome = if matches!(error.status(), 400 | 422) { "refused" } else { "retry" };
                    json!({ "id": id, "outcome": outcome, "reason": error.to_string() })
                }
            });
        }
        json!({ "results": results }).to_string()
    }

    /// Has its effect on the mirror, and is printed.
    async fn take(
        &self,
        verb: Verb,
        word: &str,
        message: Message,
        body: &[u8],
    ) -> Option<Result<Effect, MirrorError>> {
        let message = Arc::new(message);
        let effect = self.apply(verb, &message).await;
        if self.json {
            self.print_body(body);
        } else {
            self.print(&line(word, &message, effect.as_ref()));
        }
        effect
    }

    /// Reads a body of known length, once there is room for it.
    async fn read(&self, body: Incoming) -> Result<(Bytes, SemaphorePermit<'_>), Answer> {
        let refuse = |status: StatusCode, text: &str| (status, text.to_owned());
        let length = body.size_hint().exact();
        let length = length.ok_or_else(|| refuse(StatusCode::LENGTH_REQUIRED, "the body has no length"))?;
        let units = usize::try_from(length).ok().filter(|length| *length <= BODY_MAX);
        let units = units.and_then(|length| u32::try_from(length.div_ceil(BODY_UNIT)).ok());
        let units = units.ok_or_else(|| refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"))?;
        let room = self.room.acquire_many(units).await;
        let room = room.map_err(|_| refuse(StatusCode::SERVICE_UNAVAILABLE, "this receiver is stopping"))?;
        let body = body.collect().await;
        let body = body.map_err(|_| refuse(StatusCode::BAD_REQUEST, "the body broke off"))?;
        Ok((body.to_bytes(), room))
    }

    /// Applies a message to the mirror; does nothing without a mirror.
    async fn apply(&self, verb: Verb, message: &Arc<Message>) -> Option<Result<Effect, MirrorError>> {
        let (mirror, message) = (Arc::clone(self.mirror.as_ref()?), Arc::clone(message));
        let applied = tokio::task::spawn_blocking(move || mirror.lock().apply(verb, &message));
        Some(applied.await.unwrap_or_else(|error| Err(io::Error::other(error).into())))
    }

    fn print(&self, line: &str) {
        if self.json {
            return;
        }
        self.write(format!("{line}\n").as_bytes());
    }

    /// Prints a body in one line: in a body that is not compact, line ends between tokens become spaces.
    fn print_body(&self, body: &[u8]) {
        let mut line: Vec<u8> =
            body.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
        line.push(b'\n');
        self.write(&line);
    }

    fn write(&self, bytes: &[u8]) {
        let mut output = self.output.lock();
        // The mirror goes on when standard output is closed.
        drop(output.write_all(bytes).and_then(|()| output.flush()));
    }
}

/// One line about a message, safe for a terminal.
fn line(word: &str, message: &Message, effect: Option<&Result<Effect, MirrorError>>) -> String {
    let mut parts = vec![format!("{word:9}")];
    if let Some(file) = &message.file {
        parts.push(file.path.clone());
        parts.extend(file.size.map(|size| format!("{size} B")));
        parts
            .extend(file.chunk.as_ref().map(|chunk| format!("chunk {} of {}", chunk.index + 1, chunk.total)));
    } else {
        parts.push(message.repository.github_url.clone());
    }
    if let Some(event) = &message.event {
        parts.extend(event.branch.clone());
        if let (Some(position), Some(total)) = (event.position, event.total) {
            parts.push(format!("{} of {total}", position.saturating_add(1)));
        }
    }
    parts.extend(message.error_message.clone());
    match effect {
        None | Some(Ok(Effect::Applied | Effect::Stored | Effect::Noted)) => {}
        Some(Ok(Effect::Omitted)) => parts.push("content left out: no file kept".into()),
        Some(Ok(Effect::Repeat)) => parts.push("a repeat: no effect".into()),
        Some(Ok(Effect::Late)) => parts.push("comes late: no effect".into()),
        Some(Ok(Effect::Dropped(count))) => parts.push(format!("{count} files dropped")),
        Some(Err(error)) => parts.push(format!("refused: {error}")),
    }
    excerpt(parts.join("  ").as_bytes())
}

#[cfg(test)]
mod tests;
