//! What a hundred hostile apps of a thousand cost the others: the real binary delivers the same
//! changes of one tiny repository to 1,000 apps, first with all of them well, then with 100 of them
//! hostile in every way we know. Prints the rate of the 900 others while everything begins and in a
//! burst later, how long their changes take under a steady load, and what the server needs.

#![expect(clippy::disallowed_methods, reason = "a benchmark is its own composition root")]

#[path = "isolation/hostile.rs"]
mod hostile;
#[path = "../tests/it/support/misdeeds.rs"]
mod misdeeds;
#[path = "served.rs"]
#[expect(dead_code, reason = "what counts here is memory, not the processor")]
mod served;
#[path = "support.rs"]
#[expect(dead_code, reason = "this repository changes all the time and is not made by fast-import")]
mod support;

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use hostile::Hostile;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use served::Served;
use support::{figure, rate, settings};
use tidings::{app::Adapters, git::address::Address};
use tidings_actors::{
    model::secret::Secret,
    model::sink::SinkAddress,
    model::view::View,
    ports::{
        AppStore, DeliverySettings, EndpointAccess, Location, NewApp, NewWatch, RefListing, Remote,
        RepositoryFacts, Selector, Start, WatchStore,
    },
};
use tidings_entity::{
    id::{AppId, RepositoryId, Sha256Hash, WatchId},
    kind::{BranchGone, HistoryMode, SelectorKind},
};

const APPS: usize = 1_000;
/// The first ones are well in both runs.
const HEALTHY: usize = 900;
/// Files of the repository: all of them are changes at the beginning and in the burst.
const FILES: usize = 20;
/// Commits of one file, each a change for every app, come twice as far apart as one of them takes
/// with all apps well, for about so long.
const STEADY: Duration = Duration::from_secs(30);
/// Commits that show how long one takes.
const ALONE: usize = 5;
const COMMITS_LEAST: u32 = 5;
/// Turns of each rate; its figure is the median.
const TURNS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let well = run(None, None);
    let receiver = Receiver::start();
    let hostile = Hostile::start(&receiver.url(0));
    println!("{} kinds of hostile apps, {} apps of {APPS}", hostile.places.len(), APPS - HEALTHY);
    let beside = run(Some(&hostile), Some(well.between_commits));
    // A beginning is over in seconds: each is measured right after one with all apps well.
    let mut beginnings: Vec<(f64, f64)> =
        (0..TURNS).map(|_| (beginning(None), beginning(Some(&hostile)))).collect();
    beginnings.sort_by(|one, other| (one.1 / one.0).total_cmp(&(other.1 / other.0)));
    let (base, rate) = beginnings[TURNS / 2];
    assert!(receiver.arrivals().is_empty(), "a redirect was followed");

    figure("changes to the others while all begin", "/s", rate, base, ">= 0.95");
    figure("changes to the others in a burst", "/s", beside.burst, well.burst, ">= 0.95");
    let milliseconds = |span: Duration| span.as_secs_f64() * 1e3;
    let (p50, base) = (beside.percentile(50), well.percentile(50));
    figure("from commit to receiver, median", "ms", milliseconds(p50), milliseconds(base), "no more");
    let (p99, base) = (beside.percentile(99), well.percentile(99));
    figure("from commit to receiver, p99", "ms", milliseconds(p99), milliseconds(base), "<= 1.20");
    let (grown, base) = (beside.resident as f64 / 1_048_576.0, well.resident as f64 / 1_048_576.0);
    figure("most memory of the server", "MiB", grown, base, "at most 64 MiB more");
    println!("hostile apps cost {:.1} MiB", grown - base);
}

/// What one run showed of the apps that are well in both.
struct Shown {
    between_commits: Duration,
    burst: f64,
    /// From commit to receiver, sorted.
    latencies: Vec<Duration>,
    resident: u64,
}

impl Shown {
    fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

/// How fast the first round goes out of a server that just began.
fn beginning(hostile: Option<&Hostile>) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let project = Project::begin(&folder.path().join("tiny.git"));
    let receiver = Receiver::start();
    let (_server, began) = begin(folder.path(), &project, &receiver, hostile);
    let rate = receiver.rate(project.head, began, FILES);
    println!("{}: {rate:.0}/s at the beginning", named(hostile));
    rate
}

fn named(hostile: Option<&Hostile>) -> &'static str {
    hostile.map_or("all well", |_| "beside hostile ones")
}

/// Registers all apps and starts the server; when it started.
fn begin(
    folder: &Path,
    project: &Project,
    receiver: &Receiver,
    hostile: Option<&Hostile>,
) -> (Served, Instant) {
    let data = folder.join("data");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(register(&data, project, receiver, hostile));
    drop(runtime);
    (start(folder, &data), Instant::now())
}

/// The same work for a server of its own, with these among its apps. Without a time between commits
/// it follows from what is seen.
fn run(hostile: Option<&Hostile>, between_commits: Option<Duration>) -> Shown {
    let folder = tempfile::tempdir().expect("a folder");
    let mut project = Project::begin(&folder.path().join("tiny.git"));
    let receiver = Receiver::start();
    let (server, began) = begin(folder.path(), &project, &receiver, hostile);
    receiver.rate(project.head, began, FILES);
    // What failed at the beginning has its say before anything else is measured.
    sleep(Duration::from_secs(2));

    let mut alone = Duration::ZERO;
    for number in 1..=ALONE {
        let (commit, at) = (project.commit(1, number), Instant::now());
        alone = alone.max(Duration::from_secs_f64(HEALTHY as f64 / receiver.rate(commit, at, 1)));
    }
    let between_commits = between_commits.unwrap_or(2 * alone);
    let (latencies, number) = steady(&mut project, &receiver, between_commits);

    let mut bursts: Vec<f64> = (1..=TURNS)
        .map(|burst| receiver.rate(project.commit(FILES, ALONE + number + burst), Instant::now(), FILES))
        .collect();
    bursts.sort_by(f64::total_cmp);
    let burst = bursts[TURNS / 2];
    let resident = server.memory("VmHWM:");
    let shown = Shown { between_commits, burst, latencies, resident };
    println!(
        "{}: {burst:.0}/s in a burst, p50 {:.0?}, p99 {:.0?}, {} MiB",
        named(hostile),
        shown.percentile(50),
        shown.percentile(99),
        shown.resident >> 20
    );
    shown
}

/// Commits of one file at a steady pace; how long each change took to each healthy app, sorted, and
/// the number of commits.
fn steady(project: &mut Project, receiver: &Receiver, between: Duration) -> (Vec<Duration>, usize) {
    let number = (STEADY.div_duration_f64(between) as u32).max(COMMITS_LEAST);
    let mut commits = Vec::new();
    for number in 1..=number {
        commits.push((project.commit(1, ALONE + number as usize), Instant::now()));
        sleep(between);
    }
    let (last, at) = *commits.last().expect("commits");
    receiver.rate(last, at, 1);
    let mut latencies: Vec<Duration> = Vec::new();
    for (commit, at) in &commits {
        let arrived = receiver.arrivals().get(commit).cloned().unwrap_or_default();
        latencies.extend(arrived.into_iter().map(|arrived| arrived - *at));
    }
    latencies.sort();
    println!(
        "{number} commits, one in {between:.0?}: {} of {} changes came commit by commit",
        latencies.len(),
        HEALTHY * commits.len()
    );
    (latencies, commits.len())
}

/// A repository of some small files.
struct Project {
    path: PathBuf,
    git: git2::Repository,
    head: git2::Oid,
}

impl Project {
    fn begin(path: &Path) -> Self {
        let git = git2::Repository::init_bare(path).expect("a repository");
        git.set_head("refs/heads/main").expect("a branch");
        let mut project = Self { path: path.to_owned(), git, head: git2::Oid::ZERO_SHA1 };
        project.commit(FILES, 0);
        project
    }

    /// Changes the first `files` files.
    fn commit(&mut self, files: usize, number: usize) -> git2::Oid {
        let parent = self.git.find_commit(self.head).ok();
        let before = parent.as_ref().map(|parent| parent.tree().expect("its tree"));
        let mut tree = self.git.treebuilder(before.as_ref()).expect("a tree");
        for file in 0..files {
            let blob = self.git.blob(format!("file {file}, {number}\n").as_bytes()).expect("a blob");
            tree.insert(format!("f{file:03}"), blob, 0o100_644).expect("an entry");
        }
        let tree = self.git.find_tree(tree.write().expect("a tree")).expect("a tree");
        let time = git2::Time::new(1_700_000_000, 0);
        let who = git2::Signature::new("A", "a@example.org", &time).expect("somebody");
        let parents: Vec<_> = parent.iter().collect();
        let branch = Some("refs/heads/main");
        self.head = self.git.commit(branch, &who, &who, "next", &tree, &parents).expect("a commit");
        self.head
    }
}

/// When changes of a commit arrived at healthy apps.
type Arrivals = HashMap<git2::Oid, Vec<Instant>>;

/// Receives for every app that is well, and knows them by the path.
struct Receiver {
    address: SocketAddr,
    arrivals: Arc<Mutex<Arrivals>>,
    _runtime: tokio::runtime::Runtime,
}

impl Receiver {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bench-receiver")
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("bound");
        let arrivals: Arc<Mutex<Arrivals>> = Arc::default();
        let noted = Arc::clone(&arrivals);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket");
                let noted = Arc::clone(&noted);
                let service = service_fn(move |request| take(request, Arc::clone(&noted)));
                tokio::spawn(async move {
                    // A client that hangs up is an ordinary event.
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, arrivals, _runtime: runtime }
    }

    fn url(&self, app: usize) -> String {
        format!("http://{}/{app}", self.address)
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every healthy app has this many changes of a commit; how many a second that were.
    fn rate(&self, commit: git2::Oid, since: Instant, files: usize) -> f64 {
        let wanted = HEALTHY * files;
        let until = Instant::now() + PATIENCE;
        loop {
            let (count, last) =
                self.arrivals().get(&commit).map_or((0, None), |all| (all.len(), all.last().copied()));
            if let Some(last) = last.filter(|_| count >= wanted) {
                return rate(wanted as u64, last - since);
            }
            assert!(Instant::now() < until, "{count} of {wanted} changes arrived");
            sleep(Duration::from_millis(5));
        }
    }
}

async fn take(
    request: Request<Incoming>,
    noted: Arc<Mutex<Arrivals>>,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let app: usize = request.uri().path().split('/').nth(1).and_then(|app| app.parse().ok()).expect("an app");
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let key = br#""commit_sha":""#;
    let at = body.windows(key.len()).position(|window| window == key).expect("a change");
    let commit = std::str::from_utf8(&body[at + key.len()..][..40]).expect("a commit");
    if app < HEALTHY {
        let commit = commit.parse().expect("a commit");
        noted.lock().unwrap_or_else(PoisonError::into_inner).entry(commit).or_default().push(Instant::now());
    }
    Ok(Response::new(Full::default()))
}

/// Apps with a watch each; the last ones receive where harm is done.
async fn register(data: &Path, project: &Project, receiver: &Receiver, hostile: Option<&Hostile>) {
    let adapters = Adapters::open(settings(data)).await.expect("the house opens");
    let address = Address::parse(project.path.to_str().expect("utf-8"), true, true).expect("an address");
    let repository = RepositoryId::new(adapters.random.ulid(adapters.clock.now()));
    let Location::Local(_) = &address.location else { panic!("a path") };
    let remote =
        Remote { repository, location: address.location.clone(), credential: None, apps: Vec::new() };
    let listing = adapters.git.list_refs(&remote, &vec!["refs/heads/main".to_owned()]).await.expect("listed");
    for number in 0..APPS {
        let places = hostile.filter(|_| number >= HEALTHY).map(|hostile| &hostile.places);
        let base_url =
            places.map_or_else(|| receiver.url(number), |places| places[number % places.len()].1.clone());
        let app = app(&adapters, number, base_url).await;
        watch(&adapters, app, &address, &listing).await;
    }
    adapters.store.close().await;
}

async fn app(adapters: &Adapters, number: usize, base_url: String) -> AppId {
    let now = adapters.clock.now();
    let ulid = adapters.random.ulid(now);
    let app = NewApp {
        id: AppId::new(ulid),
        name: format!("app {number}"),
        email: "bench@example.org".into(),
        is_from_anyone: false,
        receives_at: SinkAddress::Endpoint(base_url),
        website: None,
        description: None,
        token_public_id: ulid.to_string(),
        token_hash: Sha256Hash::of(ulid.to_string().as_bytes()),
        signing_key: Secret::new("0123456789abcdef".into()),
        access: EndpointAccess::default(),
        delivery: DeliverySettings::default(),
        created_at: now,
        answer: None,
    };
    adapters.store.create_app(&app).await.expect("an app");
    app.id
}

async fn watch(adapters: &Adapters, app: AppId, address: &Address, listing: &RefListing) {
    let now = adapters.clock.now();
    let id = WatchId::new(adapters.random.ulid(now));
    let watch = NewWatch {
        facts: RepositoryFacts {
            repository_id: id.clone(),
            github_url: address.display.clone(),
            owner: address.owner.clone(),
            name: address.name.clone(),
        },
        id,
        app,
        url: address.normalised.clone(),
        is_private: false,
        credential: None,
        selector: Selector { kind: SelectorKind::Branch, value: "main".into() },
        alias: String::new(),
        may_replace: true,
        sink: None,
        status: None,
        view: View::default(),
        mode: HistoryMode::Net,
        on_branch_gone: BranchGone::Keep,
        start: Start::All,
        listing: listing.clone(),
        deliver_after: now,
        created_at: now,
    };
    adapters.store.register_watch(&watch).await.expect("a watch");
}

fn start(home: &Path, data: &Path) -> Served {
    let own = [
        ("GIT__ALLOW_LOCAL", "true"),
        ("GIT__POLL_MIN", "100ms"),
        ("GIT__POLL_MAX", "100ms"),
        ("GIT__HOST_RATE", "1000/s"),
    ];
    Served::start(home, data, &own)
}
