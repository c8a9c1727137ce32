//! The API of GitHub, GitLab or Gitea as far as it takes the statuses of commits, in front of a real Git host:
//! what is no request to the API goes there. It keeps every status that it was told, says what a script wants,
//! and knows what no status may do: be told twice in a row, or while another one of the same commit is.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidings_entity::kind::StatusHost;

use super::{
    github_api::GithubApi,
    http::{Message, read_body, read_head},
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
};

/// What the thread of an answer gets to count its request down.
const SETTLED: Duration = Duration::from_secs(2);

/// What is done with a status.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// It is shown from now on.
    Take,
    /// The same, and the connection ends before that is said.
    TakeAndVanish,
    /// The same, and nothing is said until the other side gives up.
    TakeAndHang,
    /// The connection ends before an answer; the status is not shown.
    Vanish,
    /// It is refused with this status code, header lines and body.
    Refuse(u16, &'static str, &'static str),
}

/// A status as it was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The commit that the status stands on.
    pub(crate) commit: String,
    /// The name of the status, `tidings/<app>/<watch>`.
    pub(crate) context: String,
    /// The state, in the word of this host.
    pub(crate) state: String,
    /// The line beside it.
    pub(crate) description: String,
    /// What it was shown with.
    pub(crate) authorization: String,
    /// Whether it is shown.
    pub(crate) is_taken: bool,
    /// Whether the other side knows what became of it.
    pub(crate) is_sure: bool,
}

type Script = Box<dyn FnMut(&Told) -> Verdict + Send>;

struct State {
    kind: StatusHost,
    git: SocketAddr,
    app: Option<SocketAddr>,
    script: Script,
    told: Vec<Told>,
    /// Requests under way, by their commit.
    under_way: BTreeMap<String, u32>,
    most_under_way: u32,
}

/// The host; its threads end with the process.
pub(crate) struct Forge {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    host: Host,
}

impl Forge {
    /// Listens at an address of its own: what happens here happens at no other host.
    pub(crate) fn start(kind: StatusHost) -> Self {
        static FORGES: AtomicU8 = AtomicU8::new(1);
        let host = Host::start();
        let git = host.url("").strip_prefix("http://").and_then(|url| url.strip_suffix('/')?.parse().ok());
        let own = Ipv4Addr::new(127, 200, FORGES.fetch_add(1, Ordering::SeqCst), 1);
        let listener = TcpListener::bind((own, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = State {
            kind,
            git: git.expect("an address"),
            app: None,
            script: Box::new(|_| Verdict::Take),
            told: Vec::new(),
            under_way: BTreeMap::new(),
            most_under_way: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that goes away is an ordinary event here.
                thread::spawn(move || drop(converse(stream, &shared)));
            }
        });
        Self { state, address, host }
    }

    /// Serves what the project is now as `one/two`.
    pub(crate) fn publish(&self, project: &Project) {
        self.host.publish(project, "one/two");
    }

    /// The address of `one/two`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/one/two", self.address)
    }

    /// From now on tokens of a GitHub App are issued here as well; the app as a field of a registration.
    pub(crate) fn with_app(&self, api: &GithubApi) -> Value {
        let url: url::Url = api.url().parse().expect("an address");
        let port = url.port().expect("a port");
        self.state().app = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let mut app = api.app();
        app["api_url"] = json!(format!("http://{}/api/v3/", self.address));
        app
    }

    /// From now on this decides.
    pub(crate) fn script(&self, script: impl FnMut(&Told) -> Verdict + Send + 'static) {
        self.state().script = Box::new(script);
    }

    /// From now on everything is taken.
    pub(crate) fn take_all(&self) {
        self.script(|_| Verdict::Take);
    }

    /// Everything that it was told so far, also what it did not take.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.state().told.clone()
    }

    /// The words of a commit that it took, in their order.
    pub(crate) fn words(&self, commit: &str) -> Vec<String> {
        let told = self.told();
        told.into_iter()
            .filter(|told| told.commit == commit && told.is_taken)
            .map(|told| told.state)
            .collect()
    }

    /// Waits until a commit is shown so; the line beside it.
    pub(crate) fn wait_for(&self, commit: &str, state: &str) -> String {
        eventually(&format!("{state} of {commit} in {:?}", self.address), 3 * SOON, || {
            let told = self.told();
            let last = told.iter().rev().find(|told| told.commit == commit && told.is_taken)?;
            (last.state == state).then(|| last.description.clone())
        })
    }

    /// No commit is shown as pending, none was told the same twice in a row unless one of its requests was not
    /// answered with success, and at no time two statuses of one commit.
    pub(crate) fn assert_straight(&self) {
        let state = self.state();
        assert!(state.most_under_way <= 1, "{} at a time", state.most_under_way);
        let unsure = state.told.iter().filter(|told| !told.is_taken || !told.is_sure);
        let doubted: BTreeSet<&str> = unsure.map(|told| told.commit.as_str()).collect();
        let mut last: BTreeMap<(&str, &str), &Told> = BTreeMap::new();
        for told in state.told.iter().filter(|told| told.is_taken) {
            if let Some(before) = last.insert((&told.commit, &told.context), told) {
                let is_same = before.state == told.state && before.description == told.description;
                assert!(!is_same || doubted.contains(&*told.commit), "twice: {before:?} {told:?}");
            }
        }
        let pending: Vec<_> = last.values().filter(|told| told.state == "pending").collect();
        assert!(pending.is_empty(), "{pending:?}");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn converse(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some((first_line, headers)) = read_head(&mut reader)? {
        let mut message = Message { first_line, headers, body: Vec::new() };
        message.body = read_body(&mut reader, &message, false)?;
        let path = message.first_line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (git, app) = {
            let state = locked(state);
            (state.git, state.app)
        };
        match app.filter(|_| path.starts_with("/api/v3/app/")) {
            Some(app) => return hand_on(&message, &stream, app),
            None if !path.starts_with("/api/") => return hand_on(&message, &stream, git),
            None => {}
        }
        if !answer(&message, &path, &stream, state)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Hands a request on, and its answer back.
fn hand_on(message: &Message, mut stream: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut other = TcpStream::connect(to)?;
    let mut head = format!("{}\r\nconnection: close\r\n", message.first_line);
    for (name, value) in &message.headers {
        if !["connection", "transfer-encoding", "content-length"].contains(&name.as_str()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", message.body.len()));
    other.write_all(head.as_bytes())?;
    other.write_all(&message.body)?;
    if to.ip().is_loopback() && message.first_line.contains("/access_tokens ") {
        // That one keeps its connection open.
        let mut reader = BufReader::new(other);
        let Some((first_line, headers)) = read_head(&mut reader)? else { return Ok(()) };
        let answer = Message { first_line, headers, body: Vec::new() };
        let body = read_body(&mut reader, &answer, false)?;
        let head =
            format!("{}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.first_line, body.len());
        stream.write_all(head.as_bytes())?;
        return stream.write_all(&body);
    }
    io::copy(&mut other, &mut stream).map(drop)
}

/// Answers a request to the API; whether the connection goes on.
fn answer(message: &Message, path: &str, mut stream: &TcpStream, state: &Mutex<State>) -> io::Result<bool> {
    let Some(told) = read(message, path, locked(state).kind) else {
        return say(stream, 404, "", r#"{"message":"Not Found"}"#).map(|()| true);
    };
    *locked(state).under_way.entry(told.commit.clone()).or_default() += 1;
    // The client may have its answer, and ask again, before the thread of the request before has counted down.
    let until = Instant::now() + SETTLED;
    while locked(state).under_way[&told.commit] > 1 && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    let verdict = {
        let mut state = locked(state);
        let now = state.under_way[&told.commit];
        state.most_under_way = state.most_under_way.max(now);
        let verdict = decide(&mut state, &told);
        let (is_taken, is_sure) = match verdict {
            Verdict::Take => (true, true),
            Verdict::TakeAndVanish | Verdict::TakeAndHang => (true, false),
            Verdict::Vanish | Verdict::Refuse(..) => (false, true),
        };
        state.told.push(Told { is_taken, is_sure, ..told.clone() });
        verdict
    };
    let said = match verdict {
        Verdict::Take => say(stream, 201, "", r#"{"id":1}"#).map(|()| true),
        Verdict::Refuse(status, lines, body) => say(stream, status, lines, body).map(|()| true),
        Verdict::TakeAndVanish | Verdict::Vanish => Ok(false),
        Verdict::TakeAndHang => stream.read(&mut [0]).map(|_| false),
    };
    if let Some(under_way) = locked(state).under_way.get_mut(&told.commit) {
        *under_way -= 1;
    }
    said
}

/// The script decides, but for what GitLab never takes: the state that a commit has, while it is undecided.
fn decide(state: &mut State, told: &Told) -> Verdict {
    let verdict = (state.script)(told);
    let last = state.told.iter().rev().find(|before| before.is_taken && before.commit == told.commit);
    let is_same = last.is_some_and(|last| last.state == told.state && told.state == "pending");
    match verdict {
        Verdict::Take if state.kind == StatusHost::Gitlab && is_same => Verdict::Refuse(
            400,
            "",
            r#"{"message":"Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition via \"enqueue\")"}"#,
        ),
        verdict => verdict,
    }
}

fn say(mut stream: &TcpStream, status: u16, lines: &str, body: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} x\r\n{lines}content-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes())
}

/// A status, where a request is one that this kind of host knows.
fn read(message: &Message, path: &str, kind: StatusHost) -> Option<Told> {
    let (place, states): (&str, &[&str]) = match kind {
        StatusHost::Github => {
            ("/api/v3/repos/one/two/statuses/", &["pending", "success", "failure", "error"])
        }
        StatusHost::Gitea => ("/api/v1/repos/one/two/statuses/", &["pending", "success", "failure", "error"]),
        StatusHost::Gitlab => {
            ("/api/v4/projects/one%2Ftwo/statuses/", &["pending", "success", "failed", "canceled"])
        }
    };
    let commit = path.strip_prefix(place).filter(|_| message.first_line.starts_with("POST "))?;
    let body: Value = serde_json::from_slice(&message.body).ok()?;
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let state = text("state").filter(|state| states.contains(&state.as_str()))?;
    let description = text("description").filter(|line| line.chars().count() <= 140)?;
    Some(Told {
        commit: commit.to_owned(),
        context: text("context")?,
        state,
        description,
        authorization: message.header("authorization").unwrap_or_default().to_owned(),
        is_taken: false,
        is_sure: true,
    })
}
