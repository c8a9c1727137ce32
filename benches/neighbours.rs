//! What one app may cost the others at the front door: the time of another app's `GET /api/app`, each on a
//! connection of its own, undisturbed and while one app sends costly globs on 64 connections, waits for
//! changes of 1,040 watches at once, or reads no answer on 1,200 connections from eight addresses. Each attack
//! is measured five times, each time after the undisturbed server; shown are the medians.

#![expect(clippy::disallowed_methods, reason = "the benchmark is a client of its own")]

#[path = "served.rs"]
#[expect(dead_code, reason = "what counts here is time")]
mod served;
#[path = "support.rs"]
#[expect(dead_code, reason = "what counts here is time")]
mod support;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use reqwest::Client;
use serde_json::{Value, json};
use served::Served;
use support::{figure, repository, settings};
use tidings::settings::Settings;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

const WATCHES: usize = 1_040;
const GLOBS: usize = 64;
const POLLS: usize = 1_100;
const SILENT: usize = 1_200;
/// Requests of one figure, and the time between two of them.
const REQUESTS: u32 = 500;
const BETWEEN: Duration = Duration::from_millis(20);
/// How often each attack is measured, with a measure of the undisturbed server before each.
const ROUNDS: usize = 5;
/// How long an attack has gone on when its cost is measured.
const BEGUN: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shared.git");
    repository(&path, 1, 10, WATCHES, false);
    let (_server, address) = start(folder.path(), &settings(&folder.path().join("data")));
    let client = Client::builder().no_proxy().build().expect("a client");
    let (victim, in_flight) = (onboard(&client, address).await, onboard(&client, address).await);
    let ids = Arc::new(watches(&client, address, &in_flight, &path).await);
    println!("{} watches are registered", ids.len());

    measured(address, &victim).await;
    let (apart, in_flight) = (Apart::start(), Arc::new(in_flight));
    let beside = Beside { apart: &apart, address, victim: &victim };
    let globs = |_| send_globs(client.clone(), address, Arc::clone(&in_flight), ids[0].clone());
    beside.show("64 connections send costly globs", GLOBS, globs).await;
    let wait = |number| wait(address, number, Arc::clone(&in_flight), ids[number % ids.len()].clone());
    beside.show("1,100 requests wait for changes", POLLS, wait).await;
    beside.show("1,200 connections read nothing", SILENT, |number| never_read(address, number)).await;
    apart.0.shutdown_background();
}

/// Threads that only attackers use: the victim's clock does not wait for them.
struct Apart(Runtime);

impl Apart {
    fn start() -> Self {
        Self(Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime"))
    }
}

/// Measures of one app's reads beside attacks of another app.
struct Beside<'a> {
    apart: &'a Apart,
    address: SocketAddr,
    victim: &'a str,
}

impl Beside<'_> {
    /// Measures the reads undisturbed and beside this many attackers, in turn; shows the medians of the p99.
    async fn show<F>(&self, what: &str, attackers: usize, attack: impl Fn(usize) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (mut quiet, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            quiet.push(measured(self.address, self.victim).await);
            let mut attacks = JoinSet::new();
            for number in 0..attackers {
                attacks.spawn_on(attack(number), self.apart.0.handle());
            }
            sleep(BEGUN).await;
            beside.push(measured(self.address, self.victim).await);
            attacks.shutdown().await;
            sleep(BEGUN).await;
        }
        let (quiet, beside) = (median(quiet), median(beside));
        figure(&format!("p99 while {what}"), "ms", beside, quiet, "<= 2.00");
    }
}

/// The median, in milliseconds.
fn median(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    took[took.len() / 2].as_secs_f64() * 1e3
}

/// The p99 of reads at their times, each on a new connection.
async fn measured(address: SocketAddr, token: &str) -> Duration {
    let request = format!(
        "GET /api/app HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    let request: Arc<str> = request.into();
    let (mut requests, began) = (JoinSet::new(), Instant::now());
    for number in 0..REQUESTS {
        let (at, request) = (began + BETWEEN * number, Arc::clone(&request));
        sleep_until(at).await;
        requests.spawn(async move {
            while !answered(address, &request).await {
                // Who is turned away asks again; the time goes on.
                sleep(BETWEEN).await;
            }
            at.elapsed()
        });
    }
    let mut took = requests.join_all().await;
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

async fn answered(address: SocketAddr, request: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut answer = Vec::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

/// Globs as long and as costly as a view may have, each time other ones.
async fn send_globs(client: Client, address: SocketAddr, token: Arc<String>, id: String) {
    for turn in 0_u64.. {
        let glob = |number: usize| format!("{turn}/{number}/**/{}*", "?".repeat(20));
        let globs: Vec<String> = (0..200).map(glob).collect();
        let request = client.patch(format!("http://{address}/api/repositories/{id}"));
        // Whatever the answer is.
        let body = json!({ "include": globs }).to_string();
        let request = request.bearer_auth(&token).header("content-type", "application/json").body(body);
        drop(request.send().await);
    }
}

/// Waits for changes that never come, again and again.
async fn wait(address: SocketAddr, number: usize, token: Arc<String>, id: String) {
    let request = format!(
        "GET /api/repositories/{id}/pending?wait_seconds=60 HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    loop {
        if let Ok(mut stream) = connect(address, number, None).await {
            let sent = stream.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            if sent.is_ok() {
                drop(stream.read_to_end(&mut answer).await);
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Asks for large answers and reads none of them.
async fn never_read(address: SocketAddr, number: usize) {
    let request = format!("GET /openapi.json HTTP/1.1\r\nhost: {address}\r\n\r\n").repeat(50);
    loop {
        if let Ok(mut stream) = connect(address, number, Some(2_048)).await {
            drop(stream.write_all(request.as_bytes()).await);
            // Until the server closes it.
            drop(stream.writable().await);
            let closed = async {
                while stream.write_all(b"\r\n").await.is_ok() {
                    sleep(Duration::from_millis(500)).await;
                }
            };
            closed.await;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// From one of eight addresses.
async fn connect(address: SocketAddr, number: usize, receive: Option<u32>) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(SocketAddr::from(([127, 0, 1, (number % 8) as u8 + 1], 0)))?;
    socket.connect(address).await
}

async fn onboard(client: &Client, address: SocketAddr) -> String {
    let body = json!({ "app_name": "an app", "email": "a@example.org" });
    let answer = asked(client, &format!("http://{address}/api/apps/onboard"), None, &body).await;
    answer["token"].as_str().expect("a token").to_owned()
}

/// Watches of the branches of one repository.
async fn watches(client: &Client, address: SocketAddr, token: &str, path: &Path) -> Vec<String> {
    let mut ids = Vec::with_capacity(WATCHES);
    for branch in 0..WATCHES {
        let body = json!({ "url": path, "branch": format!("b{branch}") });
        let answer = asked(client, &format!("http://{address}/api/repositories"), Some(token), &body).await;
        ids.push(answer["repository_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned());
    }
    ids
}

async fn asked(client: &Client, url: &str, token: Option<&str>, body: &Value) -> Value {
    let mut request = client.post(url).header("content-type", "application/json").body(body.to_string());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.expect("an answer").bytes().await.expect("a body");
    serde_json::from_slice(&answer).expect("JSON")
}

fn start(home: &Path, settings: &Settings) -> (Served, SocketAddr) {
    let own =
        [("SERVER__ADDRESS_RATE", "100000/s"), ("ONBOARDING__MODE", "open"), ("GIT__ALLOW_LOCAL", "true")];
    let server = Served::start(home, &settings.data_dir, &own);
    let address = server.address(home);
    (server, address)
}
