//! A front door on a port of its own, and a client that can send anything, also what no honest
//! client would.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tidings_actors::{
    context::Context,
    handle::Handle,
    limits::budget::Budget,
    limits::in_flight::InFlightLimits,
    limits::pace::Paces,
    limits::scan_slots::ScanSlots,
    limits::turns::Turns,
    ownership::shards::Shards,
    ownership::terms::Terms,
    ports::{
        Administration, App, AppStore, HistoryStore, SealingKeys, SourceStore, Store, Watch, WatchFilter,
    },
    signals::causes::Causes,
    signals::untold::Untold,
    supervision::directory::Directory,
    testing::{MemoryMeter, MemoryObjects, MemoryTransport, NoTracer, OpenBoard},
};
use tidings_entity::kind::ReplicaRole;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::super::{Served, front::Front, handler_state::HandlerState, hooks::Bounds, routes};
use super::{git::GitDouble, histories::Past};
use crate::http::door::{
    auth::{admin_token::AdminToken, session},
    lifecycle::Lifecycle,
    listener::{self, Door},
    pipeline::Pipeline,
};
use crate::{
    egress::{Egress, replicas::ToReplicas},
    machine::{MachineClock, MachineRandom},
    secrets::AuditKeyring,
    settings::{OnboardingMode, Settings},
    store::SqlStore,
};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The admin token of every house.
pub(crate) const ADMIN: &str = "the-admin-token-of-every-test-house";

/// A running front door.
pub(crate) struct House {
    pub(crate) address: SocketAddr,
    pub(crate) lifecycle: Lifecycle,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) serving: JoinHandle<()>,
    sqlite: Arc<SqlStore>,
    pub(crate) git: Arc<GitDouble>,
    /// Where its database lies, where it made one.
    _folder: Option<TempDir>,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// A problem's body without what differs from time to time.
    pub(crate) fn problem(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let mut problem = self.json();
        let id = problem.as_object_mut().and_then(|problem| problem.remove("request_id"));
        let id = id.as_ref().and_then(Value::as_str);
        assert!(id.is_some_and(|id| id.starts_with("req_")), "{self:?}");
        assert_eq!(id, self.header("x-request-id"));
        assert_eq!(problem["status"], self.status);
        problem
    }
}

/// A facade over a tree in which nobody runs: what it tells goes nowhere.
fn handle(store: Arc<dyn Store>) -> Handle {
    Handle::new(Context {
        in_flight: InFlightLimits::default(),
        paces: Paces::new(store.clone(), Arc::new(MachineClock)),
        read_turns: Turns::new(1),
        rows: Turns::new(1),
        outbound: Turns::new(1),
        scan_slots: ScanSlots::new(1),
        store,
        git: Arc::<GitDouble>::default(),
        transport: Arc::new(MemoryTransport::default()),
        board: Arc::new(OpenBoard),
        objects: Arc::<MemoryObjects>::default(),
        clock: Arc::new(MachineClock),
        random: Arc::new(MachineRandom),
        meter: Arc::new(MemoryMeter::default()),
        tracer: Arc::new(NoTracer),
        causes: Causes::default(),
        policy: Arc::default(),
        budget: Budget::new(1 << 20),
        shards: Shards::sole(),
        terms: Terms::default(),
        untold: Untold::default(),
        leases: None,
        directory: Directory::default(),
        fatal: tokio::sync::watch::channel(None).0,
    })
}

impl House {
    /// A front door over the real store, on a database of its own.
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let house = Self::real(super::sqlite::store(folder.path()).await, change).await;
        Self { _folder: Some(folder), ..house }
    }

    /// A front door over the real store, but without ended rounds.
    pub(crate) async fn with_past(past: &Arc<Past>, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = super::sqlite::store(folder.path()).await;
        let (keys, past) = (store.clone(), past.clone());
        let house = Self::assembled(store, keys, past, Bounds::default(), change).await;
        Self { _folder: Some(folder), ..house }
    }

    /// A front door over the real store, its keys included.
    pub(crate) async fn real(store: Arc<SqlStore>, change: impl FnOnce(&mut Settings)) -> Self {
        let keys = store.clone();
        Self::over(store, keys, Bounds::default(), change).await
    }

    /// One over the real store, with other keys and other bounds for hooks.
    pub(crate) async fn over<K: SealingKeys + AuditKeyring>(
        store: Arc<SqlStore>,
        keys: Arc<K>,
        hooks: Bounds,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let history = store.clone();
        Self::assembled(store, keys, history, hooks, change).await
    }

    async fn assembled<K: SealingKeys + AuditKeyring>(
        store: Arc<SqlStore>,
        keys: Arc<K>,
        history: Arc<dyn HistoryStore>,
        hooks: Bounds,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut settings = Settings::default();
        settings.onboarding.mode = OnboardingMode::Open;
        settings.onboarding.apps_per_hour = 1_000_000;
        change(&mut settings);
        let settings = Arc::new(settings);
        let (lifecycle, git) = (Lifecycle::default(), Arc::<GitDouble>::default());
        let front = Arc::new(Front {
            store: store.clone(),
            requests: store.clone(),
            history,
            administration: store.clone(),
            ledgers: store.clone(),
            subscriptions: store.clone(),
            hooks: store.clone(),
            tasks: store.clone(),
            artifacts: store.clone(),
            objects: Arc::<MemoryObjects>::default(),
            keys: keys.clone(),
            audit_keyring: keys,
            git: git.clone(),
            handle: handle(store.clone()),
            egress: Egress::new(&settings.egress).expect("valid"),
            session_cookie: session::cookie_name(store.identity()),
            to_replicas: ToReplicas::new(&settings.egress).expect("valid"),
            settings: settings.clone(),
            clock: Arc::new(MachineClock),
            random: Arc::new(MachineRandom),
        });
        let state = HandlerState::new(&settings, lifecycle.clone());
        let state = HandlerState { hooks: Arc::new(hooks), ..state };
        let pipeline = Arc::new(Pipeline::new(front, state, AdminToken::of(ADMIN)));
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "the test's own server, joined at its end")]
        let serving = tokio::spawn(async move {
            let edge = pipeline.edge();
            let door = Door {
                tcp,
                routes: routes(&pipeline, Served::of(ReplicaRole::All, false)),
                certificate: None,
                edge,
            };
            listener::serve(door, &settings.server, async {
                let _asked_or_dropped = stopped.await;
            })
            .await;
        });
        Self { address, lifecycle, stop: Some(stop), serving, sqlite: store, git, _folder: None }
    }

    /// The real store, to look at what is written.
    pub(crate) fn sqlite(&self) -> &SqlStore {
        &self.sqlite
    }

    /// All apps of the real store.
    pub(crate) async fn apps(&self) -> Vec<App> {
        self.sqlite().apps(None, 100).await.expect("read")
    }

    /// The app with this name.
    pub(crate) async fn app_named(&self, name: &str) -> App {
        self.apps().await.into_iter().find(|app| app.name == name).expect("an app of that name")
    }

    /// All watches of the real store.
    pub(crate) async fn watches(&self) -> Vec<Watch> {
        self.sqlite().all_watches(&WatchFilter::default(), None, 100).await.expect("read")
    }

    /// The watch with this id.
    pub(crate) async fn watch(&self, id: &str) -> Watch {
        self.watches().await.into_iter().find(|watch| watch.id.as_str() == id).expect("a watch")
    }

    /// The credential of the watch with this id, as it is kept.
    pub(crate) async fn credential(&self, id: &str) -> Option<String> {
        let watch = self.watch(id).await;
        let sources = self.sqlite().sources(&watch.repository).await.expect("read");
        let own = sources.into_iter().find(|source| source.id == watch.source).expect("its source");
        own.remote.credential.map(|secret| secret.expose().to_owned())
    }

    /// Asks the house to stop.
    pub(crate) fn close(&mut self) {
        self.stop.take().expect("closed once").send(()).expect("it listens");
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    /// One request on a connection of its own.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Answered {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        if let Some(token) = token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        if !body.is_empty() {
            head.push_str("content-type: application/json\r\n");
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        self.send(&[head.as_bytes(), body.as_bytes()].concat()).await
    }

    /// Sends bytes as they are and reads until the end.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Answered {
        raw(&mut self.connect().await, bytes).await
    }

    /// Registers an app and gives its token.
    pub(crate) async fn app(&self) -> String {
        let body =
            serde_json::json!({ "app_name": "an app", "email": "a@b.c", "base_url": "https://app.example" });
        let answered = self.call("POST", "/api/apps/onboard", None, Some(&body)).await;
        assert_eq!(answered.status, 201, "{answered:?}");
        answered.json()["token"].as_str().expect("a token").to_owned()
    }

    /// Registers a repository and gives its id.
    pub(crate) async fn repository(&self, token: &str, url: &str) -> String {
        self.registered(token, &serde_json::json!({ "github_url": url })).await
    }

    /// The same of one whose app has what is there already.
    pub(crate) async fn held_repository(&self, token: &str, url: &str) -> String {
        self.registered(token, &serde_json::json!({ "url": url, "start": "now" })).await
    }

    async fn registered(&self, token: &str, body: &Value) -> String {
        let answered = self.call("POST", "/api/repositories", Some(token), Some(body)).await;
        assert_eq!(answered.status, 201, "{answered:?}");
        answered.json()["repository_id"].as_str().expect("an id").to_owned()
    }
}

/// Sends bytes and reads until the other side closes.
pub(crate) async fn raw(stream: &mut TcpStream, bytes: &[u8]) -> Answered {
    let exchange = async {
        // The other side may close before it has read all; its answer counts.
        let _sent = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.expect("the server answers and closes");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answered { status, head: head.to_owned(), body: body.to_owned() }
}
