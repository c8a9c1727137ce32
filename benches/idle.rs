//! What an idle house costs: 10,000 repositories of 10 apps on one loopback host, the real binary,
//! polled every 60 s. Prints how long until it is ready, what is resident, and the share of one core
//! that polling takes; and what an unchanged poll, and the first poll after a start, cost in CPU against
//! the bare HTTP client that makes the same request in the same run.

#[path = "served.rs"]
mod served;
#[path = "support.rs"]
mod support;
#[path = "unread.rs"]
mod unread;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use served::Served;
use support::{figure, settings, timed};
use tidings::{app::Adapters, egress::Egress};
use tidings_actors::{
    model::secret::Secret,
    model::sink::SinkAddress,
    ports::{
        Clock, DeliverySettings, EndpointAccess, Extent, Location, NewApp, Random, Reach, Remote,
        SourceStore, Store, WatchStore,
    },
};
use tidings_entity::id::{AppId, ObjectId, Sha256Hash, SourceId};
use tokio::{net::TcpListener, task::JoinSet};
use url::Url;

const APPS: usize = 10;
const REPOSITORIES: usize = 10_000;
const INTERVAL: Duration = Duration::from_secs(60);
const POLLS: u32 = 5_000;
const ADVERTISED: &str = "000eversion 2\n0014agent=git/bench\n0013ls-refs=unborn\n0012fetch=shallow\n\
                          0017object-format=sha1\n0000";

/// A host that serves any repository: one branch that never moves. Counts what it is asked.
struct Host {
    address: SocketAddr,
    asked: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
}

impl Host {
    fn start(commit: ObjectId) -> Self {
        // Its threads are told apart by their name when CPU time is added up.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bench-host")
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let listed = listed(commit);
        runtime.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, listed) = (Arc::clone(&counted), listed.clone());
                let service =
                    service_fn(move |request| answer(request, Arc::clone(&counted), listed.clone()));
                connections.spawn(async move {
                    // A client that hangs up is an ordinary event.
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, asked, _runtime: runtime }
    }

    fn url(&self, number: usize) -> String {
        format!("http://{}/o/{number:05}", self.address)
    }
}

fn listed(commit: ObjectId) -> String {
    let packet = |line: String| format!("{:04x}{line}", line.len() + 4);
    let head = packet(format!("{commit} HEAD symref-target:refs/heads/main\n"));
    format!("{head}{}0000", packet(format!("{commit} refs/heads/main\n")))
}

async fn answer(
    request: Request<Incoming>,
    asked: Arc<AtomicU64>,
    listed: String,
) -> Result<Response<Full<bytes::Bytes>>, std::convert::Infallible> {
    let is_discovery = request.uri().path().ends_with("/info/refs");
    drop(request.into_body().collect().await);
    asked.fetch_add(1, Ordering::Relaxed);
    let (kind, body) = if is_discovery {
        ("application/x-git-upload-pack-advertisement", ADVERTISED.to_owned())
    } else {
        ("application/x-git-upload-pack-result", listed)
    };
    let response = Response::builder().header(header::CONTENT_TYPE, kind);
    Ok(response.body(Full::from(body)).expect("a valid answer"))
}

fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let data = folder.path().join("data");
    let commit = mirrored_commit(folder.path());
    let host = Host::start(commit);
    let source = runtime.block_on(register(&data, &host, commit));
    // On one thread: what a poll costs does not depend on which threads were asleep.
    let alone = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    alone.block_on(one_poll(&data, &source));
    idle(folder.path(), &data, &host);
}

/// A commit of a real repository whose objects lie where the first mirror will be.
fn mirrored_commit(folder: &Path) -> ObjectId {
    let path = folder.join("model.git");
    support::repository(&path, 1, 32, 0, false);
    support::git(&path, &["rev-parse", "main"]).parse().expect("a commit")
}

/// 10 apps with their share of the watches each, which begin at the commit that is there.
async fn register(data: &Path, host: &Host, commit: ObjectId) -> SourceId {
    let adapters = Adapters::open(settings(data)).await.expect("the house opens");
    let (clock, random, store) = (adapters.clock.as_ref(), adapters.random.as_ref(), adapters.store.as_ref());
    let mut first = None;
    let (_, took) = timed(async {
        for number in 0..APPS {
            let app = app(store, clock, random, number).await;
            for number in (number * REPOSITORIES / APPS)..((number + 1) * REPOSITORIES / APPS) {
                let watch = unread::watch(random, clock, &app, host.url(number), commit);
                let watch = store.register_watch(&watch).await.expect("a watch");
                first.get_or_insert(watch.source);
            }
        }
    })
    .await;
    // Every repository has the same content: one mirror, copied.
    let model = data.parent().expect("a folder").join("model.git/objects");
    for (repository, _) in store.repositories(&Reach::All).await.expect("repositories") {
        let mirror = data.join("mirrors").join(repository.as_str());
        fs::create_dir_all(mirror.join("objects/pack")).expect("a mirror");
        for file in fs::read_dir(model.join("pack")).expect("packs") {
            let file = file.expect("a file");
            fs::copy(file.path(), mirror.join("objects/pack").join(file.file_name())).expect("copied");
        }
    }
    let rate = support::rate(REPOSITORIES as u64, took);
    println!("registered {REPOSITORIES} watches in {took:.1?}, {rate:.0} a second");
    store.close().await;
    first.expect("there are watches")
}

async fn app(store: &dyn Store, clock: &dyn Clock, random: &dyn Random, number: usize) -> AppId {
    let ulid = random.ulid(clock.now());
    let app = NewApp {
        id: AppId::new(ulid),
        name: format!("app {number}"),
        email: "bench@example.org".into(),
        is_from_anyone: false,
        receives_at: SinkAddress::Endpoint("http://127.0.0.1:9".into()),
        website: None,
        description: None,
        token_public_id: ulid.to_string(),
        token_hash: Sha256Hash::of(ulid.to_string().as_bytes()),
        signing_key: Secret::new("signing".into()),
        access: EndpointAccess::default(),
        delivery: DeliverySettings::default(),
        created_at: clock.now(),
        answer: None,
    };
    store.create_app(&app).await.expect("an app");
    app.id
}

/// The verbs of a scan that finds nothing, against the same request made by the bare client.
async fn one_poll(data: &Path, source: &SourceId) {
    let mut settings = settings(data);
    settings.git.host_rate = "100000/s".parse().expect("a rate");
    let egress = Egress::new(&settings.egress).expect("egress");
    let adapters = Adapters::open(settings).await.expect("the house opens");
    let repositories = adapters.store.repositories(&Reach::All).await.expect("repositories");
    let mut sources = repositories.into_iter().flat_map(|(_, sources)| sources);
    let remote: Remote = sources.find(|found| found.id == *source).expect("a source").remote;
    let Location::Http(base) = &remote.location else { panic!("a host") };
    let patterns = vec!["refs/heads/main".to_owned()];
    // The first poll after a start compares the listing with the mirror and the rows.
    let first = async || {
        let listing = adapters.git.list_refs(&remote, &patterns).await.expect("a listing");
        let order = tidings_actors::ports::FetchOrder {
            wants: listing.refs.iter().map(|found| found.commit).collect(),
            haves: listing.refs.iter().map(|found| found.commit).collect(),
            depth: 1,
            extent: Extent::Whole,
        };
        adapters.git.fetch(&remote, &order).await.expect("nothing to do");
        let moved =
            adapters.store.move_heads(source, &listing, adapters.clock.now()).await.expect("nothing new");
        assert!(!moved.changed);
        listing.answer.expect("a listing of one answer")
    };
    let answer = first().await;
    // Each later poll, until the answer is another one or ten minutes have passed.
    let unchanged = async || {
        let listed = adapters.git.list_refs_unless(&remote, &patterns, answer).await.expect("an answer");
        assert_eq!(listed, None);
    };
    let url = Url::parse(&format!("{base}/git-upload-pack")).expect("an address");
    let body = "0013command=ls-refs0016object-format=sha100010008peel000bsymrefs000aunborn\
                0013ref-prefix HEAD001eref-prefix refs/heads/main0000";
    let bare = async || {
        let request = egress.request(reqwest::Method::POST, &url).expect("a request").body(body);
        request.send().await.expect("an answer").bytes().await.expect("its body");
    };
    let first = cpu_of(async || assert_eq!(first().await, answer)).await;
    let (unchanged, bare) = (cpu_of(unchanged).await, cpu_of(bare).await);
    figure("CPU of an unchanged poll", "ms", unchanged, bare, "<= 0.5 ms, <= 2.00");
    figure("CPU of a poll that looks at the rows", "ms", first, bare, "<= 0.5 ms");
    println!("in microseconds: {:.0} and {:.0} against {:.0}", unchanged * 1e3, first * 1e3, bare * 1e3);
    adapters.store.close().await;
}

/// The CPU time of this process for one of [`POLLS`], in milliseconds.
async fn cpu_of(work: impl AsyncFn()) -> f64 {
    for _ in 0..100 {
        work().await;
    }
    let before = cpu_time();
    for _ in 0..POLLS {
        work().await;
    }
    (cpu_time() - before).as_secs_f64() * 1e3 / f64::from(POLLS)
}

/// CPU time of this process without the threads of the host.
fn cpu_time() -> Duration {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task").expect("threads") {
        let path = task.expect("a thread").path();
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        if read("comm").trim() != "bench-host" {
            total +=
                read("schedstat").split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(total)
}

/// The real binary over the 10,000.
fn idle(home: &Path, data: &Path, host: &Host) {
    let began = Instant::now();
    let own = [("GIT__HOST_RATE", "2000/s"), ("GIT__POLL_MIN", "60s"), ("GIT__POLL_MAX", "60s")];
    let mut server = Served::start(home, data, &own);
    let address = server.address(home);
    wait(Duration::from_secs(60), || is_ready(address));
    println!("ready after start with {REPOSITORIES} repositories: {:.2?} (wanted <= 1 s)", began.elapsed());
    // The first round learns what the host can do, and looks into each mirror.
    std::thread::sleep(2 * INTERVAL);
    let (asked, before, since) = (host.asked.load(Ordering::Relaxed), server.cpu(), Instant::now());
    std::thread::sleep(INTERVAL);
    let polls = host.asked.load(Ordering::Relaxed) - asked;
    let share = (server.cpu() - before).as_secs_f64() / since.elapsed().as_secs_f64() * 100.0;
    println!("{polls} polls in {:.0?} took {share:.1} % of one core (wanted < 10 %)", since.elapsed());
    let [resident, code] = ["VmRSS:", "RssFile:"].map(|kind| server.memory(kind) >> 20);
    println!("resident: {resident} MiB (wanted <= 200 MiB), {code} of them pages of the binary");
    assert!(server.0.try_wait().expect("a child").is_none(), "it still runs");
    server.stop();
}

fn is_ready(address: SocketAddr) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

fn wait(deadline: Duration, holds: impl Fn() -> bool) {
    let until = Instant::now() + deadline;
    while !holds() {
        assert!(Instant::now() < until, "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}
