//! What one app with hostile producers and workers may cost another app: the time in which the other app
//! creates, claims and completes one task, fifty times a second, undisturbed and beside each attack. Limits
//! of requests are those of the default settings; attackers come from an address of their own, on threads of
//! their own.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{client::Client, served::Served, support::figure};

/// Connections of an attack.
const ATTACKERS: usize = 16;
/// Tasks of one measure, and the time between two of them.
const TASKS: u32 = 500;
const BETWEEN: Duration = Duration::from_millis(20);
/// How often each attack is measured, each time after the undisturbed server; the medians are told.
const ROUNDS: usize = 3;
/// How long an attack has gone on when its cost is measured.
const BEGUN: Duration = Duration::from_secs(2);
const MEBIBYTE: usize = 1 << 20;

/// What a hostile app does.
#[derive(Clone, Copy)]
enum Attack {
    LargeBatches,
    DeepArrays,
    ManyNames,
    Heartbeats,
    Results,
}

impl Attack {
    const ALL: [(Self, &'static str); 5] = [
        (Self::LargeBatches, "batches of payloads of 1 MiB are created and claimed"),
        (Self::DeepArrays, "payloads of 100,000 nested arrays are created and claimed"),
        (Self::ManyNames, "queues that are not there are asked for, 100 with each request"),
        (Self::Heartbeats, "workers heartbeat without a pause"),
        (Self::Results, "results of 256 KiB are sent again and again"),
    ];
}

pub(crate) async fn hostile(home: &Path) {
    std::fs::create_dir_all(home).expect("a folder");
    let server = Served::start(home, &home.join("data"), &[("ONBOARDING__MODE", "open")]);
    let address = server.address(home);
    let victim = Client::onboard(address).await;
    let apart = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    for (attack, what) in Attack::ALL {
        let attacker = Client::onboard_from(address, IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1))).await;
        attacker.put("/api/queues/attack", &json!({ "payload_bytes": MEBIBYTE })).await;
        let (mut quiet, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            quiet.push(measured(&victim).await);
            let mut attacks = JoinSet::new();
            for number in 0..ATTACKERS {
                attacks.spawn_on(run(attack, attacker.clone(), number), apart.handle());
            }
            sleep(BEGUN).await;
            beside.push(measured(&victim).await);
            attacks.shutdown().await;
            sleep(BEGUN).await;
        }
        let what = format!("median of a task of another app while {what}");
        figure(&what, "ms", median(beside), median(quiet), "<= 1.20");
    }
    apart.shutdown_background();
}

/// The median time of one task of the victim, in milliseconds.
async fn measured(victim: &Client) -> f64 {
    let (mut requests, began) = (JoinSet::new(), Instant::now());
    for number in 0..TASKS {
        let (at, victim) = (began + BETWEEN * number, victim.clone());
        sleep_until(at).await;
        requests.spawn(async move {
            victim.create("modest", 1).await;
            let claimed = victim.claim(&json!({ "commands": ["modest"], "wait_seconds": 5 })).await;
            victim.complete(&claimed).await;
            at.elapsed().as_secs_f64() * 1e3
        });
    }
    median(requests.join_all().await)
}

fn median(mut took: Vec<f64>) -> f64 {
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

/// Attacks on one connection, whatever the answers are.
async fn run(attack: Attack, client: Client, number: usize) {
    let claim = |count: usize| json!({ "commands": ["attack"], "count": count }).to_string();
    let payload = format!("{{\"command\":\"attack\",\"payload\":\"{}\"}}", "x".repeat(MEBIBYTE - 2));
    let large = format!("{{\"tasks\":[{}]}}", vec![payload; 3].join(","));
    let arrays = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{{\"command\":\"attack\",\"payload\":{arrays}}}");
    let held = match attack {
        Attack::Heartbeats | Attack::Results => held(&client).await,
        _ => Value::Null,
    };
    let id = held["id"].as_str().unwrap_or_default().to_owned();
    let result = json!({ "token": held["token"], "result": "x".repeat((256 << 10) - 2) }).to_string();
    let beat = json!({ "token": held["token"], "extend_seconds": 3_600, "progress": number }).to_string();
    for turn in 0_usize.. {
        match attack {
            Attack::LargeBatches => {
                client.tried("/api/tasks/batch", &large).await;
                client.tried("/api/tasks/claim", &claim(100)).await;
            }
            Attack::DeepArrays => {
                client.tried("/api/tasks", &deep).await;
                client.tried("/api/tasks/claim", &claim(1)).await;
            }
            Attack::ManyNames => {
                let name = |place: usize| format!("no-{number}-{turn}-{place}");
                let names: Vec<String> = (0..100).map(name).collect();
                client.tried("/api/tasks/claim", &json!({ "commands": names }).to_string()).await;
            }
            Attack::Heartbeats => client.tried(&format!("/api/tasks/{id}/heartbeat"), &beat).await,
            Attack::Results => client.tried(&format!("/api/tasks/{id}/complete"), &result).await,
        }
    }
}

/// A task that the attacker has.
async fn held(client: &Client) -> Value {
    client.create("attack", 1).await;
    let claimed = client.claim(&json!({ "commands": ["attack"], "wait_seconds": 5 })).await;
    claimed.into_iter().next().expect("a task")
}
