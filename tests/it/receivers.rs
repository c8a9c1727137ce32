//! Deliveries meet receivers of every kind: each costs an attempt at most its deadline and a
//! bounded number of bytes, and what it did is told as it was.

use std::{process::Command, sync::Arc, time::Duration};

use clap::Parser;
use tidings::{
    cli::listen::{ListenArgs, Listener},
    settings::EgressSettings,
    sinks::signature::{SigningKey, check},
};
use tidings_actors::{
    model::round::DeliveryId,
    model::secret::Secret,
    ownership::shards::{ShardHold, Shards},
    ports::{Action, AttemptOutcome, Endpoint, Fence, GitError, Notice, SendFailure, Shard, Transport},
    time::Timestamp,
};
use tidings_entity::kind::Operation;
use tokio::time::Instant;
use ulid::Ulid;

use crate::support::{
    patience::SOON,
    receiver::{Behaviour, Receiver, paths},
    sender::{DEADLINE, SECRET, WallClock, blob, endpoint as hurried, order, parcel, world, world_with},
};

/// How much later than its deadline an attempt may end on a busy machine. Every receiver that is given up
/// would hold the attempt for longer.
const GRACE: Duration = Duration::from_secs(15);

#[derive(Parser)]
struct ListenLine {
    #[command(flatten)]
    listen: ListenArgs,
}

/// An endpoint whose attempts a busy machine does not end: only [`hurried`] ones end at their deadline here.
fn endpoint(base_url: String) -> Endpoint {
    Endpoint { timeout: SOON, ..hurried(base_url) }
}

async fn attempt(receiver: &Receiver, behaviour: Behaviour) -> (AttemptOutcome, Duration) {
    attempt_at(endpoint(receiver.url()), receiver, behaviour).await
}

async fn attempt_at(
    endpoint: Endpoint,
    receiver: &Receiver,
    behaviour: Behaviour,
) -> (AttemptOutcome, Duration) {
    receiver.always(behaviour);
    let started = Instant::now();
    let outcome = world().send(&endpoint, &parcel("{}")).await;
    (outcome, started.elapsed())
}

#[tokio::test]
async fn a_delivery_is_signed_under_both_schemes_and_named() {
    let receiver = Receiver::verifying(SECRET).await;
    let world = world();
    world.git.put(blob(1), "hello");
    let order = order(Operation::Create, None, Some(1));
    let parcel = world.prepare(&order).await.expect("prepared");
    let outcome = world.send(&endpoint(format!("{}/hook", receiver.url())), &parcel).await;
    assert!(outcome.is_success(), "{outcome:?}");
    let requests = receiver.requests();
    let request = &requests[0];
    assert_eq!(paths(&requests), ["/hook/create"]);
    assert_eq!(request.header("webhook-id"), order.id.as_str());
    assert_eq!(request.header("x-docora-app-id"), "app_00000000010000000000000009");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("user-agent"), concat!("Tidings/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.header("webhook-timestamp"), request.header("x-docora-timestamp"));
    assert!(!request.headers.contains_key("traceparent") && !request.headers.contains_key("accept-encoding"));
    assert_eq!(request.json()["file"]["content"], "hello");
    let verdict = check(&SigningKey::readings(SECRET), &request.headers, &request.body, None);
    assert_eq!((verdict.standard, verdict.docora), (Some(Ok(())), Some(Ok(()))));
}

#[tokio::test]
async fn during_a_rotation_receivers_with_either_key_are_served() {
    for (old_is, docora_good) in [("the-old-key", true), ("the-new-key", false)] {
        let receiver = Receiver::start().await;
        let mut endpoint = endpoint(receiver.url());
        endpoint.keys = vec![Secret::new("the-new-key".into()), Secret::new("the-old-key".into())];
        world().send(&endpoint, &parcel("{}")).await;
        let request = &receiver.requests()[0];
        let verdict = check(&SigningKey::readings(old_is), &request.headers, &request.body, None);
        assert_eq!(verdict.standard, Some(Ok(())));
        assert_eq!(verdict.docora == Some(Ok(())), docora_good, "Docora's clients keep the old key");
    }
}

#[tokio::test]
async fn every_attempt_sends_the_same_bytes_under_a_fresh_signature() {
    let receiver = Receiver::verifying(SECRET).await;
    receiver.script([Behaviour::Status(503), Behaviour::Status(500)]);
    let world = world();
    world.git.put(blob(1), "hello");
    let parcel = world.prepare(&order(Operation::Create, None, Some(1))).await.expect("prepared");
    let endpoint = endpoint(receiver.url());
    let mut results = Vec::new();
    for _ in 0..3 {
        results.push(world.send(&endpoint, &parcel).await.result);
    }
    assert_eq!(results, [Ok(503), Ok(500), Ok(200)]);
    let requests = receiver.requests();
    assert!(requests.iter().all(|request| request.body == requests[0].body));
    assert!(requests.iter().all(|request| request.header("webhook-id") == requests[0].header("webhook-id")));
    assert_eq!(receiver.connections(), 1, "the connection is kept");
}

#[tokio::test]
async fn hostile_receivers_hold_an_attempt_for_its_deadline_at_most() {
    let receiver = Receiver::start().await;
    let drip = Duration::from_millis(20);
    for behaviour in [
        Behaviour::Hang,
        Behaviour::DripHeaders(drip),
        Behaviour::DripBody(drip),
        Behaviour::EndlessInterim,
        Behaviour::After(Duration::from_secs(30), Box::new(Behaviour::Status(200))),
    ] {
        let name = format!("{behaviour:?}");
        let (outcome, took) = attempt_at(hurried(receiver.url()), &receiver, behaviour).await;
        assert_eq!(outcome.result, Err(SendFailure::Timeout), "{name}: {outcome:?}");
        assert!(took >= DEADLINE && took < DEADLINE + GRACE, "{name} took {took:?}");
    }
    let early = Receiver::refusing_early(413).await;
    let outcome = world().send(&endpoint(early.url()), &parcel(vec![b'x'; 8 << 20])).await;
    assert_eq!(outcome.result, Ok(413), "an answer counts although the body was never read: {outcome:?}");
    let silent = Receiver::never_reading().await;
    let started = Instant::now();
    let outcome = world().send(&hurried(silent.url()), &parcel(vec![b'x'; 1 << 20])).await;
    assert_eq!(outcome.result, Err(SendFailure::Timeout), "{outcome:?}");
    let took = started.elapsed();
    assert!(took < DEADLINE + GRACE, "it took {took:?}");
}

#[tokio::test]
async fn broken_answers_are_connection_failures_at_once() {
    let receiver = Receiver::start().await;
    for behaviour in [
        Behaviour::Reset,
        Behaviour::ResetInHeaders,
        Behaviour::Close,
        Behaviour::HalfBody,
        Behaviour::Garbage,
        Behaviour::ManyHeaders(10_000),
        Behaviour::LongHeader(4 << 20),
    ] {
        let name = format!("{behaviour:?}");
        let (outcome, took) = attempt(&receiver, behaviour).await;
        // Nobody waits for the deadline of the attempt, which is a minute here.
        assert_eq!(outcome.result, Err(SendFailure::Cut), "{name} after {took:?}: {outcome:?}");
        assert!(took < SOON, "{name} took {took:?}");
        assert!(!outcome.excerpt.contains("127.0.0.1"), "{}", outcome.excerpt);
    }
}

#[tokio::test]
async fn an_endless_answer_is_read_no_further_than_agreed() {
    let receiver = Receiver::start().await;
    // What an acknowledgement says is shown to nobody.
    for (status, shown) in [(200, 0), (500, 1024)] {
        let before = receiver.written();
        let (outcome, took) = attempt(&receiver, Behaviour::EndlessBody(status)).await;
        assert_eq!(outcome.result, Ok(status), "{outcome:?}");
        assert_eq!(outcome.excerpt, "x".repeat(shown));
        assert!(took < SOON, "{took:?}");
        // The sockets' own buffers swallow a few megabytes; an unbounded reader would take all.
        assert!(receiver.written() - before < 16 << 20, "{}", receiver.written() - before);
    }
}

#[tokio::test]
async fn redirects_are_answers_and_their_target_is_never_visited() {
    let canary = Receiver::start().await;
    let receiver = Receiver::start().await;
    for status in [300, 301, 302, 303, 307, 308] {
        let location = vec![("location", format!("{}/stolen", canary.url()))];
        let (outcome, _) = attempt(&receiver, Behaviour::Answer(status, location, String::new())).await;
        assert_eq!((outcome.result, outcome.is_success()), (Ok(status), false));
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn an_answer_is_told_as_it_was() {
    let receiver = Receiver::start().await;
    let wait = |text: &str| vec![("retry-after", text.to_owned())];
    for (status, fields, seconds) in [
        (429, wait("7"), Some(7)),
        (503, wait("garbage"), None),
        (503, wait("-1"), None),
        (410, vec![], None),
        (204, vec![], None),
    ] {
        let body = if status == 204 { String::new() } else { "why\n\u{1b}[31m".into() };
        let (outcome, _) = attempt(&receiver, Behaviour::Answer(status, fields, body.clone())).await;
        assert_eq!((outcome.result, outcome.retry_after), (Ok(status), seconds.map(Duration::from_secs)));
        assert_eq!(outcome.excerpt, if body.is_empty() { "" } else { "why\\n\\u{1b}[31m" });
    }
    let at = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
    let (outcome, _) = attempt(&receiver, Behaviour::Answer(503, wait(&at), String::new())).await;
    assert!(outcome.retry_after.is_some_and(|wait| wait > Duration::from_secs(1_000_000_000)));
}

#[tokio::test]
async fn addresses_inside_are_refused_before_anything_is_sent() {
    let receiver = Receiver::start().await;
    let port = receiver.url().rsplit(':').next().expect("a port").to_owned();
    let world = world_with(&EgressSettings { allow_http: true, ..EgressSettings::default() });
    for host in ["127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "localhost"] {
        let endpoint = endpoint(format!("http://{host}:{port}"));
        let outcome = world.send(&endpoint, &parcel("{}")).await;
        assert_eq!(outcome.result, Err(SendFailure::Refused), "{host}: {outcome:?}");
    }
    for (base, failure) in [
        ("http://user:hush@127.0.0.1", SendFailure::InvalidUrl),
        ("not a url", SendFailure::InvalidUrl),
        ("file:///etc", SendFailure::InvalidUrl),
        ("http://8.8.8.8:25", SendFailure::Refused),
    ] {
        let outcome = world.send(&endpoint(base.into()), &parcel("{}")).await;
        assert_eq!(outcome.result, Err(failure), "{base}");
        assert!(!outcome.excerpt.contains("hush"), "{}", outcome.excerpt);
    }
    assert_eq!(receiver.connections(), 0);
}

/// Run by the next story in a process of its own, whose environment names a proxy.
#[tokio::test]
async fn a_delivery_arrives_also_where_the_environment_names_a_proxy() {
    let receiver = Receiver::start().await;
    let outcome = world().send(&endpoint(receiver.url()), &parcel("{}")).await;
    assert_eq!((outcome.result, receiver.connections()), (Ok(200), 1));
}

#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    let proxy = Receiver::start().await;
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.args(["--exact", "receivers::a_delivery_arrives_also_where_the_environment_names_a_proxy"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, proxy.url());
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    let output = tokio::task::spawn_blocking(move || child.output()).await.expect("joined").expect("ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn chunks_come_in_order_and_stop_at_the_first_refusal() {
    let receiver = Receiver::verifying(SECRET).await;
    let world = world();
    world.git.put(blob(1), vec![0xff; 1_048_577]);
    let order = order(Operation::Create, None, Some(1));
    let parcel = world.prepare(&order).await.expect("prepared");
    receiver.script([Behaviour::Status(200), Behaviour::Status(500)]);
    let endpoint = endpoint(receiver.url());
    assert_eq!(world.send(&endpoint, &parcel).await.result, Ok(500));
    assert_eq!(receiver.requests().len(), 2, "nothing after the refusal");
    assert_eq!(world.send(&endpoint, &parcel).await.result, Ok(200));
    let requests = receiver.requests();
    let chunk = |number: usize| requests[number].json()["file"]["chunk"].clone();
    for (number, index) in [(0, 0), (1, 1), (2, 0), (3, 1), (4, 2)] {
        assert_eq!(
            (chunk(number)["index"].as_u64(), chunk(number)["total"].as_u64()),
            (Some(index), Some(3))
        );
        assert_eq!(chunk(number)["offset"], index * 393_216, "bytes of the file before it");
        let id = format!("{}.{}.{index}", order.id, chunk(number)["id"].as_str().expect("an id"));
        assert_eq!(requests[number].header("webhook-id"), id);
        assert_eq!(requests[number].json()["event"]["id"], order.id.as_str());
    }
    assert_eq!(chunk(2)["id"], chunk(4)["id"]);
    assert_ne!(chunk(0)["id"], chunk(2)["id"], "a new id for each attempt");
    assert_eq!(
        uuid::Uuid::parse_str(chunk(2)["id"].as_str().expect("text")).expect("a UUID").get_version_num(),
        4
    );
}

#[tokio::test]
async fn a_file_in_chunks_is_left_between_two_of_them_when_its_lease_ends() {
    let (receiver, world) = (Receiver::start().await, world());
    world.git.put(blob(1), vec![0xff; 1_048_577]);
    let order = order(Operation::Create, None, Some(1));
    let parcel = world.prepare(&order).await.expect("prepared");
    // Long enough for a busy machine to end the lease before this answer.
    let slow = Behaviour::After(Duration::from_secs(5), Box::new(Behaviour::Status(200)));
    receiver.script([Behaviour::Status(200), slow]);
    let endpoint = endpoint(receiver.url());
    let shards = Shards::leased();
    let fence = Fence { shard: Shard::of(&order.lane.remote.repository), epoch: 1, owner: Ulid::nil() };
    shards.renewed(&[fence], Instant::now() + 2 * SOON);
    let hold = shards.hold(&order.lane.remote.repository).expect("held");
    // What is about to be given away is sent to its end, what another has is not.
    shards.leave_all();
    let lose = async {
        receiver.wait_until(SOON, |requests| requests.len() == 2).await;
        shards.renewed(&[], Instant::now());
    };
    let (outcome, ()) = tokio::join!(world.webhooks.send(&endpoint, &parcel, &hold), lose);
    assert_eq!(outcome, None, "it says nothing of the endpoint");
    assert_eq!(receiver.requests().len(), 2, "another may send the third");
}

#[tokio::test]
async fn notices_arrive_signed_at_their_own_addresses() {
    let receiver = Receiver::verifying(SECRET).await;
    let world = world();
    let change = order(Operation::Create, None, Some(1));
    let (round, repository) = (change.lane.round.clone(), change.lane.repository.clone());
    let id = DeliveryId::from_stored("dlv_notice".into());
    let notices = [
        Notice::OfRound { action: Action::Resync, round: round.clone(), repository: repository.clone() },
        Notice::OfRound { action: Action::Synced, round, repository: repository.clone() },
        Notice::SyncFailed {
            id: id.clone(),
            repository: repository.clone(),
            error: GitError::NotFound,
            consecutive_failures: 5,
            threshold: 5,
            cooldown_until: Timestamp(0),
            timestamp: Timestamp(0),
        },
        Notice::SyncRecovered { id, repository, timestamp: Timestamp(0) },
    ];
    for notice in &notices {
        let outcome = world.webhooks.notify(&endpoint(receiver.url()), notice).await;
        assert_eq!(outcome.result, Ok(200), "{notice:?}");
    }
    let requests = receiver.requests();
    assert_eq!(paths(&requests), ["/resync", "/synced", "/sync_failed", "/sync_recovered"]);
    assert_eq!(requests[0].json()["event"]["id"], requests[0].header("webhook-id"));
}

#[tokio::test]
async fn many_deliveries_at_once_all_arrive() {
    let receiver = Receiver::verifying(SECRET).await;
    let world = Arc::new(world());
    let mut sends = tokio::task::JoinSet::new();
    for number in 0..64 {
        let (world, endpoint) = (Arc::clone(&world), endpoint(format!("{}/{number}", receiver.url())));
        sends.spawn(async move { world.send(&endpoint, &parcel("{}")).await.result });
    }
    let arrived = receiver.wait_until(SOON, |requests| requests.len() == 64).await;
    assert!(arrived.iter().all(|request| request.at <= Instant::now()));
    assert!(sends.join_all().await.into_iter().all(|result| result == Ok(200)));
}

#[tokio::test]
async fn a_mirror_follows_what_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = ListenLine::parse_from([
        "listen",
        "--listen=127.0.0.1:0",
        "--secret",
        SECRET,
        "--mirror",
        folder.path().to_str().expect("a text"),
    ]);
    let listener = Listener::bind(&line.listen, Arc::new(WallClock), Box::new(std::io::sink())).await;
    let listener = listener.expect("bound");
    let endpoint = endpoint(format!("http://{}", listener.address()));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(listener.run(std::future::pending()));
    let world = world();
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0] ^ 0x80).collect();
    for (number, path, content) in [(1, "a.md", b"hello".to_vec()), (2, "big.bin", large)] {
        world.git.put(blob(number), content.clone());
        let mut order = order(Operation::Create, None, Some(number));
        order.change.path = path.into();
        order.position = u64::from(number);
        order.id = DeliveryId::of(&order.lane.round.cursor, 7, &order.change);
        let parcel = world.prepare(&order).await.expect("prepared");
        for _ in 0..2 {
            let outcome = world.send(&endpoint, &parcel).await;
            assert_eq!(outcome.result, Ok(200), "{path} {outcome:?}");
        }
        assert_eq!(std::fs::read(folder.path().join(path)).expect("mirrored"), content);
    }
}

#[tokio::test]
async fn of_a_refusal_headers_and_body_are_kept_without_credentials() {
    let receiver = Receiver::start().await;
    let headers = vec![
        ("server", "apache".to_owned()),
        ("set-cookie", "sid=planted-cookie".to_owned()),
        ("x-hint", "use https://me:planted@host/".to_owned()),
    ];
    let body = format!("{{\"key\":\"{SECRET}\",\"auth\":\"Bearer planted.token\"}}\x07");
    let (outcome, _) = attempt(&receiver, Behaviour::Answer(422, headers.clone(), body)).await;
    let kept = outcome.answer.expect("an answer");
    let value =
        |name: &str| kept.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    assert_eq!(value("server"), Some("apache"));
    assert_eq!(value("set-cookie"), Some("[redacted]"));
    assert_eq!(value("x-hint"), Some("use https://[redacted]@host/"));
    assert_eq!(kept.body, "{\"key\":\"[redacted]\",\"auth\":\"Bearer [redacted]\"}\\u{7}");
    assert_eq!(outcome.excerpt, kept.body, "the short form of a short answer is the same");

    let long = Behaviour::Answer(500, Vec::new(), "word ".repeat(5_000));
    let (outcome, _) = attempt(&receiver, long).await;
    let kept = outcome.answer.expect("an answer");
    assert!((4_000..=4_096).contains(&kept.body.len()), "{}", kept.body.len());
    assert_eq!(outcome.excerpt.len(), 1_024);

    let (outcome, _) = attempt(&receiver, Behaviour::Answer(200, headers.clone(), "fine".into())).await;
    assert_eq!(outcome.answer, None, "acknowledgements are not kept");
    receiver.always(Behaviour::Answer(200, headers, "fine".into()));
    let keeping = world().webhooks.keeping_all(true);
    let outcome = keeping.send(&endpoint(receiver.url()), &parcel("{}"), &ShardHold::sole()).await;
    let outcome = outcome.expect("its right does not end");
    assert_eq!(outcome.answer.expect("every attempt is recorded").body, "fine");
    let (outcome, _) = attempt(&receiver, Behaviour::Close).await;
    assert_eq!(outcome.answer, None, "there was no answer");
}
