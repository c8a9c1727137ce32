//! What the benchmarks share: a receiver that only says 200, repositories made by fast-import, a
//! house with registered watches, and the words in which a figure is printed.

#![expect(clippy::disallowed_methods, reason = "a benchmark is its own composition root")]

use std::{
    convert::Infallible,
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tidings::{app::Adapters, git::address::Address, settings::Settings};
use tidings_actors::{
    ports::{
        DeliverySettings, GitSource as _, NewApp, NewWatch, Remote, RepositoryFacts, Selector, Start,
        Store as _,
    },
    secret::Secret,
    view::View,
};
use tidings_entity::{
    id::{AppId, RepositoryId, Sha256Hash, WatchId},
    kind::{HistoryMode, SelectorKind},
};

/// A receiver that reads and acknowledges.
pub struct Receiver {
    pub address: SocketAddr,
    count: Arc<AtomicU64>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket");
                let counted = counted.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request: hyper::Request<Incoming>| {
                        let counted = counted.clone();
                        async move {
                            drop(request.into_body().collect().await);
                            counted.fetch_add(1, Relaxed);
                            Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::default()))
                        }
                    });
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, count }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub async fn until(&self, expected: u64) {
        while self.count() < expected {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Makes a bare repository with `files` files of `size` bytes, spread over directories of 100, and
/// `branches` branches that all name the same commit; then one more commit on `main` that changes
/// one file, where `second` says so.
pub fn repository(path: &Path, files: usize, size: usize, branches: usize, second: bool) {
    git(path.parent().expect("a parent"), &["init", "-q", "--bare", path.to_str().expect("utf-8")]);
    let mut child = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("git is installed");
    let mut input = std::io::BufWriter::new(child.stdin.take().expect("piped"));
    let who = "A <a@example.org> 1700000000 +0000";
    write!(input, "commit refs/heads/main\nmark :1\ncommitter {who}\ndata 3\none\n").expect("piped");
    for file in 0..files {
        let mut content = format!("file {file}\n");
        let mut state = file as u64 + 1;
        while content.len() < size {
            // Text that does not compress to nothing.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            content.push_str(&format!("{:016x}\n", state));
        }
        content.truncate(size);
        write!(input, "M 644 inline d{:04}/f{file:06}.txt\ndata {}\n{content}\n", file / 100, content.len())
            .expect("piped");
    }
    for branch in 0..branches {
        write!(input, "reset refs/heads/b{branch}\nfrom :1\n\n").expect("piped");
    }
    if second {
        write!(input, "commit refs/heads/main\ncommitter {who}\ndata 3\ntwo\nfrom :1\n").expect("piped");
        write!(input, "M 644 inline d0003/f000300.txt\ndata 8\nchanged\n\n").expect("piped");
    }
    drop(input);
    assert!(child.wait().expect("git ends").success());
    git(path, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    git(path, &["repack", "-adq"]);
}

pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output =
        Command::new("git").args(arguments).current_dir(directory).output().expect("git is installed");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Settings for loopback, with everything below `data_dir`.
pub fn settings(data_dir: &Path) -> Settings {
    let mut settings = Settings { data_dir: data_dir.to_owned(), ..Settings::default() };
    settings.egress.allow = vec!["127.0.0.0/8".to_owned()];
    settings.egress.allow_http = true;
    settings.git.allow_local = true;
    settings
}

/// Registers an app that receives at `base_url`.
pub async fn app(adapters: &Adapters, base_url: &str) -> AppId {
    let now = adapters.clock.now();
    let ulid = adapters.random.ulid(now);
    let id = AppId::new(ulid);
    let app = NewApp {
        id: id.clone(),
        name: "benchmark".into(),
        email: String::new(),
        base_url: Some(base_url.into()),
        website: None,
        description: None,
        token_public_id: ulid.to_string(),
        token_hash: Sha256Hash::of(ulid.to_string().as_bytes()),
        signing_key: Secret::new("0123456789abcdef".into()),
        delivery: DeliverySettings::default(),
        created_at: now,
    };
    adapters.store.create_app(&app).await.expect("registered");
    id
}

/// Registers a watch of one branch.
pub async fn watch(adapters: &Adapters, app: &AppId, repository: &str, branch: &str) -> WatchId {
    let now = adapters.clock.now();
    let address = Address::parse(repository, true, true).expect("an address");
    let name = format!("refs/heads/{branch}");
    let remote = Remote {
        repository: RepositoryId::new(adapters.random.ulid(now)),
        location: address.location.clone(),
        credential: None,
    };
    let listing = adapters.git.list_refs(&remote, &vec![name]).await.expect("listed");
    let id = WatchId::new(adapters.random.ulid(now));
    let watch = NewWatch {
        id: id.clone(),
        app: app.clone(),
        url: address.normalised,
        facts: RepositoryFacts {
            repository_id: id,
            github_url: address.display,
            owner: address.owner,
            name: address.name,
        },
        is_private: false,
        credential: None,
        selector: Selector { kind: SelectorKind::Branch, value: branch.into() },
        view: View::default(),
        mode: HistoryMode::Net,
        start: Start::All,
        listing,
        deliver_after: now,
        created_at: now,
    };
    adapters.store.register_watch(&watch).await.expect("registered").id
}

/// Prints a figure beside its baseline of the same run.
pub fn figure(what: &str, unit: &str, figure: f64, baseline: f64, wanted: &str) {
    println!(
        "{what}: {figure:.1} {unit}, baseline {baseline:.1} {unit}, ratio {:.2} (wanted {wanted})",
        figure / baseline
    );
}

/// How many a second.
pub fn rate(count: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are small")]
    let count = count as f64;
    count / took.as_secs_f64()
}

/// Measures one future.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let result = work.await;
    (result, start.elapsed())
}
