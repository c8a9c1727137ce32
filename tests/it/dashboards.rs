//! Every query of every dashboard and alert in deploy/, asked of a real Prometheus that scrapes a real
//! server at work. Runs where `TIDINGS_PROMETHEUS` names the binary; `.ci/metrics` sets it.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    endpoints::Owner,
    support::{
        http,
        patience::eventually,
        peer::{Peer, Word},
        project::Project,
        remote::Host,
        server::Server,
    },
};

const PROMETHEUS: &str = "TIDINGS_PROMETHEUS";
/// Rates need some scrapes, a breaker some failures.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a port is looked for that nobody else takes meanwhile.
const PORTS: u32 = 5;

/// A Prometheus that ends with the story.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    fn start(binary: &str, target: SocketAddr) -> Self {
        (0..PORTS).find_map(|_| Self::try_start(binary, target)).expect("a Prometheus that keeps running")
    }

    /// `None`: it ended, as where another process took its port.
    fn try_start(binary: &str, target: SocketAddr) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let rules = deploy().join("prometheus/alerts.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\nscrape_configs:\n  \
             - job_name: tidings\n    static_configs: [{{targets: [\"{target}\"]}}]\n",
            rules.display().to_string()
        );
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, config).expect("written");
        // It takes no port 0 that it would tell of: a port that was free just now.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let child = Command::new(binary)
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).expect("a log"))
            .spawn()
            .expect("Prometheus starts");
        let mut prometheus = Self { child, address, _folder: folder };
        let is_ready = eventually("ready Prometheus", PATIENCE, || {
            if prometheus.child.try_wait().expect("a child").is_some() {
                return Some(false);
            }
            let reply = http::ask(address, "GET", "/-/ready", None, None).ok()?;
            (reply.status == 200).then_some(true)
        });
        is_ready.then_some(prometheus)
    }

    /// The answer of its API.
    fn ask(&self, path: &str) -> Value {
        http::ask(self.address, "GET", path, None, None).expect("an answer").json()
    }

    /// The series that a query gives now.
    fn query(&self, query: &str) -> Vec<Value> {
        let text = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let answer = self.ask(&format!("/api/v1/query?query={text}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("a result").clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The texts of every `expr` below a value.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| expressions(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The queries of every dashboard, each with its file.
fn dashboards() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir(deploy().join("grafana"))
        .expect("dashboards")
        .flatten()
        .map(|file| file.path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert_eq!(files.len(), 5, "{files:?}");
    for path in files {
        let text = fs::read_to_string(&path).expect("a dashboard");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let mut found = Vec::new();
        expressions(&dashboard["panels"], &mut found);
        assert!(!found.is_empty(), "{}", path.display());
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        // A variable of the page stands for any value; one that the page does not declare is left as it is.
        let declared = dashboard["templating"]["list"].as_array().expect("variables").clone();
        let filled = |query: String| {
            declared.iter().fold(query.replace("$__rate_interval", "1m"), |query, variable| {
                query.replace(&format!("${}", variable["name"].as_str().expect("a name")), ".*")
            })
        };
        queries.extend(found.into_iter().map(|query| (name.clone(), filled(query))));
    }
    queries
}

/// A condition without its threshold.
fn without_threshold(query: &str) -> &str {
    let at = [" > ", " < ", " == "].iter().filter_map(|sign| query.rfind(sign)).max();
    &query[..at.unwrap_or_else(|| panic!("{query} has no threshold"))]
}

/// Creates a task, has it done and creates another.
fn work(server: &Server, owner: &Owner) {
    for _ in 0..2 {
        let made = owner.ask(server, "POST", "/api/tasks", Some(&json!({ "command": "work" })));
        assert_eq!(made.status, 201, "{}", made.json());
    }
    let given = owner.ask(server, "POST", "/api/tasks/claim", Some(&json!({ "commands": ["work"] }))).json();
    let task = &given["tasks"][0];
    let path = format!("/api/tasks/{}/complete", task["id"].as_str().expect("an id"));
    let ended = owner.ask(server, "POST", &path, Some(&json!({ "token": task["token"] })));
    assert_eq!(ended.status, 200, "{}", ended.json());
}

#[test]
fn the_queries_of_dashboards_are_found_in_their_files() {
    let queries = dashboards();
    assert!(queries.len() > 50, "{}", queries.len());
    assert!(queries.iter().all(|(_, query)| !query.contains('$')), "{queries:?}");
    assert_eq!(without_threshold("sum(x{y=\"open\"}) > 0"), "sum(x{y=\"open\"})");
}

#[test]
fn every_query_of_dashboards_and_alerts_returns_data_of_a_server_at_work() {
    let Some(binary) = std::env::var_os(PROMETHEUS) else {
        println!("skipped: {PROMETHEUS} names no binary of Prometheus");
        return;
    };
    let mut server = Server::prepare().with("telemetry.survey_interval", "500ms");
    server.run();
    let prometheus = Prometheus::start(&binary.to_string_lossy(), server.address());
    let (host, project) = (Host::start(), Project::with(&[("docs/a", "1"), ("b", "1")]));
    host.publish(&project, "o/r");
    // One takes everything; one refuses what comes after the first, so that it is given up; one is not well.
    let receivers = [[200, 200], [200, 422], [503, 503]].map(|[first, then]| {
        let mut status = first;
        Peer::plain(move |_| Word::status(std::mem::replace(&mut status, then)))
    });
    for receiver in &receivers {
        let owner = Owner::at(&server, Some(&receiver.url()));
        // One of them sees a folder only: contents are fetched apart from commits.
        let body = json!({ "url": host.url("o/r"), "include": ["docs/**"] });
        let watched = owner.ask(&server, "POST", "/api/repositories", Some(&body));
        assert_eq!(watched.status, 201, "{}", watched.json());
        receiver.wait_for(1);
    }
    let missing = json!({ "url": format!("{}/nothing", host.url("o")), "branch": "main" });
    let owner = Owner::at(&server, Some(&receivers[0].url()));
    assert_eq!(owner.ask(&server, "POST", "/api/repositories", Some(&missing)).status, 404);
    // Its changes become tasks, which nobody does.
    let sink = json!({ "kind": "tasks", "command": "index", "window": 1 });
    let body = json!({ "url": host.url("o/r"), "watch_name": "work", "sink": sink });
    assert_eq!(owner.ask(&server, "POST", "/api/repositories", Some(&body)).status, 201);
    let mut left = dashboards();
    let rules = prometheus.ask("/api/v1/rules");
    let groups = rules["data"]["groups"].as_array().expect("groups");
    let rules: Vec<&Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
    assert!(rules.len() > 10, "{rules:?}");
    let conditions = rules.iter().map(|rule| rule["query"].as_str().expect("a query"));
    left.extend(conditions.map(|query| ("alerts.yml".to_owned(), without_threshold(query).to_owned())));
    let mut number = 0;
    let began = std::time::Instant::now();
    while !left.is_empty() {
        number += 1;
        project.write("docs/a", number.to_string().as_bytes());
        project.commit("more");
        host.publish(&project, "o/r");
        work(&server, &owner);
        std::thread::sleep(Duration::from_secs(1));
        left.retain(|(_, query)| prometheus.query(query).is_empty());
        assert!(began.elapsed() < PATIENCE, "no data for {left:#?}");
    }
    let health = prometheus.ask("/api/v1/rules");
    assert!(!health.to_string().contains("\"lastError\":"), "{health}");
    // Counters begin at nothing, so that the panels have data before the last try of what is refused.
    eventually("a count of what was given up", PATIENCE, || {
        prometheus.query("sum(tidings_dead_letters_parked_total) > 0").pop()
    });
    let up = prometheus.query("up{job=\"tidings\"} == 1");
    assert_eq!(up.len(), 1, "the server is scraped without an error");
}
