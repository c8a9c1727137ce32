//! What one app may cost another at Git hosts: the time from a commit to the receiver of an app, undisturbed
//! and while another app watches 80 repositories that send a word of progress a second and no pack, or
//! follows a malformed branch, 45,000 refs, or 900 release branches over a directory of 2,000 files, of the
//! same public repository. Shown are the medians; each case has a server of its own.

#![expect(clippy::disallowed_methods, reason = "the benchmark is a client of its own")]

#[path = "../tests/it/support/git_host.rs"]
#[expect(dead_code, reason = "these hosts have one misdeed")]
mod git_host;
#[path = "receiver.rs"]
mod receiver;
#[path = "../tests/it/support/repository.rs"]
#[expect(dead_code, reason = "its commits are few")]
mod repository;
#[path = "served.rs"]
#[expect(dead_code, reason = "what counts here is time")]
mod served;
#[path = "support.rs"]
#[expect(dead_code, reason = "this repository is made by hand")]
mod support;

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, Instant},
};

use git_host::{Fault, GitHost};
use receiver::Receiver;
use repository::Repository;
use reqwest::Client;
use serde_json::{Value, json};
use served::Served;
use support::figure;
use tempfile::TempDir;

/// Hosts that send slowly, and repositories of each.
const HOSTS: usize = 8;
const REPOSITORIES: usize = 10;
const REFS: usize = 45_000;
const BRANCHES: usize = 900;
const FILES: usize = 2_000;
const POLL: &str = "200ms";
/// Commits of one figure.
const COMMITS: usize = 25;
/// How long the neighbour has been there when its cost is measured.
const BEGUN: Duration = Duration::from_secs(15);

/// What the neighbour does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    Drips,
    BadBranch,
    ManyRefs,
    WideBranches,
}

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    for (what, neighbour) in [
        ("80 watches drip", Neighbour::Drips),
        ("a neighbour follows a malformed branch", Neighbour::BadBranch),
        ("a neighbour follows 45,000 refs", Neighbour::ManyRefs),
        ("a neighbour follows 900 wide branches", Neighbour::WideBranches),
    ] {
        let scene = Scene::begin(neighbour).await;
        let alone = scene.median().await;
        let hosts = scene.let_in(neighbour).await;
        tokio::time::sleep(BEGUN).await;
        let beside = scene.median().await;
        figure(&format!("commit to receiver while {what}"), "ms", beside, alone, "<= 2.00");
        drop(hosts);
    }
}

/// A server, a public repository, and an app that follows its `main`.
struct Scene {
    client: Client,
    address: SocketAddr,
    host: GitHost,
    repository: Repository,
    receiver: Receiver,
    _server: Served,
    _folder: TempDir,
}

impl Scene {
    async fn begin(neighbour: Neighbour) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let own = [
            ("GIT__POLL_MIN", POLL),
            ("GIT__POLL_MAX", POLL),
            ("GIT__HOST_RATE", "1000/s"),
            ("DELIVERY__FIRST_DELAY", "10ms"),
            ("SERVER__ADDRESS_RATE", "100000/s"),
            ("ONBOARDING__MODE", "open"),
        ];
        let server = Served::start(folder.path(), &folder.path().join("data"), &own);
        let (address, host) = (server.address(folder.path()), GitHost::start().await);
        let repository = host.repository("o/r");
        fill(&repository, neighbour);
        let client = Client::builder().no_proxy().build().expect("a client");
        let receiver = Receiver::start();
        let scene = Self { client, address, host, repository, receiver, _server: server, _folder: folder };
        let victim = scene.onboard(Some(scene.receiver.address)).await;
        scene.watch(&victim, &json!({ "url": scene.host.url("o/r").as_str(), "start": "now" })).await;
        scene.deliver(0).await;
        scene
    }

    /// The median time from a commit to the receiver, in milliseconds.
    async fn median(&self) -> f64 {
        let mut took = Vec::with_capacity(COMMITS);
        for number in 0..COMMITS {
            took.push(self.deliver(number).await);
        }
        took.sort_unstable();
        took[COMMITS / 2].as_secs_f64() * 1e3
    }

    async fn deliver(&self, number: usize) -> Duration {
        let (before, began) = (self.receiver.count(), Instant::now());
        let content = format!("{before} {number}");
        self.repository.commit("main", &[("own", Some(("100644", content.as_bytes())))]);
        self.receiver.until(before + 1).await;
        began.elapsed()
    }

    /// The neighbour begins; its own hosts, which go on until they are dropped.
    async fn let_in(&self, neighbour: Neighbour) -> Vec<GitHost> {
        let token = self.onboard(None).await;
        let url = self.host.url("o/r");
        let branch = match neighbour {
            Neighbour::Drips => return self.drip(&token).await,
            Neighbour::BadBranch => "evil",
            Neighbour::ManyRefs => "many/*",
            Neighbour::WideBranches => "release/*",
        };
        let mut watch = json!({ "url": url.as_str(), "branch": branch });
        // What a pattern matches always starts with all files.
        if !branch.contains('*') {
            watch["start"] = "now".into();
        }
        self.watch(&token, &watch).await;
        Vec::new()
    }

    async fn drip(&self, token: &str) -> Vec<GitHost> {
        let mut hosts = Vec::with_capacity(HOSTS);
        for _ in 0..HOSTS {
            let host = GitHost::start_apart().await;
            for number in 0..REPOSITORIES {
                let repository = host.repository(&format!("o/{number}"));
                repository.commit("main", &[("a", Some(("100644", b"1")))]);
            }
            host.set_fault(Some(Fault::ProgressAlone));
            for number in 0..REPOSITORIES {
                let url = host.url(&format!("o/{number}"));
                self.watch(token, &json!({ "url": url.as_str() })).await;
            }
            hosts.push(host);
        }
        hosts
    }

    /// Registers an app that follows patterns; its token.
    async fn onboard(&self, receives_at: Option<SocketAddr>) -> String {
        let mut body = json!({ "app_name": "an app", "email": "a@example.org" });
        body["delivery"] = json!({ "multi_branch": true });
        if let Some(address) = receives_at {
            body["base_url"] = json!(format!("http://{address}"));
        }
        let answer = self.ask("apps/onboard", None, &body).await;
        answer["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    async fn watch(&self, token: &str, body: &Value) {
        let answer = self.ask("repositories", Some(token), body).await;
        assert!(answer["repository_id"].is_string(), "{answer}");
    }

    async fn ask(&self, path: &str, token: Option<&str>, body: &Value) -> Value {
        let request = self.client.post(format!("http://{}/api/{path}", self.address));
        let mut request = request.header("content-type", "application/json").body(body.to_string());
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("an answer").bytes().await.expect("a body");
        serde_json::from_slice(&answer).expect("JSON")
    }
}

/// A first commit, and what the neighbour will follow.
fn fill(repository: &Repository, neighbour: Neighbour) {
    let who = "A <a@example.org> 1700000000 +0000";
    let mut stream = format!("commit refs/heads/main\nmark :1\ncommitter {who}\ndata 3\none\n");
    let file = |number: usize| format!("wide/file-{number:06}.txt");
    let files = if neighbour == Neighbour::WideBranches { FILES } else { 1 };
    for number in 0..files {
        write!(stream, "M 644 inline {}\ndata 6\n{number:06}\n", file(number)).expect("a String takes all");
    }
    if neighbour == Neighbour::WideBranches {
        for branch in 0..BRANCHES {
            write!(
                stream,
                "commit refs/heads/release/{branch:03}\ncommitter {who}\ndata 3\ntwo\nfrom :1\n\
                 M 644 inline {}\ndata 5\nr{branch:04}\n",
                file(branch)
            )
            .expect("a String takes all");
        }
    }
    repository.import(stream.as_bytes());
    match neighbour {
        Neighbour::ManyRefs => repository.many_refs(REFS, repository.resolve("refs/heads/main")),
        Neighbour::BadBranch => {
            let inner = repository.write_object("tree", b"");
            let tree = [b"40000 .git\0".as_slice(), inner.as_bytes()].concat();
            let tree = repository.write_object("tree", &tree);
            repository.commit_tree("evil", tree);
        }
        Neighbour::Drips | Neighbour::WideBranches => {}
    }
}
