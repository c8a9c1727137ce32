//! The API with 10,000 apps: how long an authenticated read takes at 1,000 requests a second, sent at
//! their times whether or not the ones before were answered, beside a route that asks nothing of the
//! database; and what a wrong token costs the server.

#![expect(clippy::disallowed_methods, reason = "the benchmark is a client of its own")]

#[path = "served.rs"]
#[expect(dead_code, reason = "memory is measured elsewhere")]
mod served;
#[path = "support.rs"]
#[expect(dead_code, reason = "there is no repository here")]
mod support;

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::{Client, StatusCode};
use served::Served;
use support::{figure, timed};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

const APPS: usize = 10_000;
/// Requests that are sent each second.
const RATE: u32 = 1_000;
/// Requests of one figure.
const REQUESTS: u32 = 10_000;
/// Registrations on their way together.
const REGISTERING: usize = 32;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let folder = tempfile::tempdir().expect("a folder");
    let (server, base) = start(folder.path());
    let client = Client::builder().no_proxy().build().expect("a client");
    let (tokens, took) = timed(register(&client, &base)).await;
    println!("registered {APPS} apps in {took:.1?}");
    let tokens = Arc::new(tokens);

    let paced = async |path: &str, token: fn(&[String], usize) -> Option<String>, wanted| {
        let before = server.cpu();
        let mut took = pace(&client, &format!("{base}{path}"), &tokens, token, wanted).await;
        took.sort_unstable();
        (took[took.len() * 99 / 100], (server.cpu() - before) / REQUESTS)
    };
    let milliseconds = |span: Duration| span.as_secs_f64() * 1e3;
    // The first ones open connections.
    paced("/livez", |_, _| None, StatusCode::OK).await;
    let (bare, bare_cpu) = paced("/livez", |_, _| None, StatusCode::OK).await;
    let (read, _) =
        paced("/api/app", |tokens, number| Some(tokens[number % APPS].clone()), StatusCode::OK).await;
    figure("p99 of an authenticated read", "ms", milliseconds(read), milliseconds(bare), "<= 10 ms");
    let (_, wrong_cpu) =
        paced("/api/app", |tokens, number| Some(wrong(&tokens[number % APPS])), StatusCode::UNAUTHORIZED)
            .await;
    figure("CPU of a wrong token", "ms", milliseconds(wrong_cpu), milliseconds(bare_cpu), "<= 1 ms");
    let (_, unknown_cpu) =
        paced("/api/app", |_, _| Some("tdg_nobody".to_owned()), StatusCode::UNAUTHORIZED).await;
    figure("CPU of what is no token", "ms", milliseconds(unknown_cpu), milliseconds(bare_cpu), "<= 1 ms");
}

/// A token with this one's public part and another secret: it is found, and does not fit.
fn wrong(token: &str) -> String {
    let (rest, _) = token.rsplit_once('_').expect("parts");
    let (public, secret) = rest.rsplit_once('_').expect("parts");
    let body = format!("{public}_{}", secret.chars().rev().collect::<String>());
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = crc32fast::hash(body.as_bytes()) as usize;
    let mut checksum = [b'0'; 6];
    for digit in checksum.iter_mut().rev() {
        *digit = digits[number % digits.len()];
        number /= digits.len();
    }
    format!("{body}_{}", String::from_utf8_lossy(&checksum))
}

/// Sends requests at their times; how long each took from then on.
async fn pace(
    client: &Client,
    url: &str,
    tokens: &Arc<Vec<String>>,
    token: fn(&[String], usize) -> Option<String>,
    wanted: StatusCode,
) -> Vec<Duration> {
    let mut requests = JoinSet::new();
    let began = Instant::now();
    for number in 0..REQUESTS {
        let at = began + Duration::from_secs(1) / RATE * number;
        sleep_until(at).await;
        let mut request = client.get(url);
        // Far from each other: neighbours lie on one page of the database.
        if let Some(token) = token(tokens, number as usize * 7_919) {
            request = request.bearer_auth(token);
        }
        requests.spawn(async move {
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), wanted);
            answer.bytes().await.expect("its body");
            at.elapsed()
        });
    }
    requests.join_all().await
}

async fn register(client: &Client, base: &str) -> Vec<String> {
    let mut registering = JoinSet::new();
    let mut tokens = Vec::with_capacity(APPS);
    for number in 0..APPS {
        if registering.len() >= REGISTERING {
            tokens.push(registering.join_next().await.expect("some").expect("no panic"));
        }
        let body =
            format!(r#"{{"app_name":"app {number}","email":"a@b.c","base_url":"http://127.0.0.1:9000"}}"#);
        let request = client.post(format!("{base}/api/apps/onboard"));
        let request = request.header("content-type", "application/json").body(body);
        registering.spawn(async move {
            let answer = request.send().await.expect("an answer").bytes().await.expect("a body");
            let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
            answer["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
        });
    }
    tokens.extend(registering.join_all().await);
    tokens
}

/// Starts the release binary, with open onboarding, and returns it with its address.
fn start(home: &Path) -> (Served, String) {
    let own = [
        ("ONBOARDING__MODE", "open"),
        // All of it comes from one address.
        ("SERVER__ADDRESS_RATE", "100000/s"),
        ("ONBOARDING__APPS_PER_HOUR", "1000000"),
    ];
    let server = Served::start(home, &home.join("data"), &own);
    let base = format!("http://{}", server.address(home));
    (server, base)
}
