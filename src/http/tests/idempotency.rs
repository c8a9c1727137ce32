//! The same request twice: one effect, one answer.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tidings_actors::{
    model::secret::Secret,
    ports::{Administration, Begun, Clock, KeyedRequest, RequestStore, StoredAnswer},
};
use tidings_entity::id::{AppId, ReplicaId};
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};
use ulid::Ulid;

use super::{
    House,
    house::{ADMIN, Answered, PATIENCE},
    sqlite,
};
use crate::{
    http::door::idempotency::{hash, is_kept},
    machine::MachineClock,
    settings::OnboardingMode,
};

const ONBOARD: &str = "/api/apps/onboard";
const WATCH: &str = "/api/repositories";
/// A key as clients make them: 36 characters, random.
const UUID: &str = "5c1d8e9a-4f0b-4a57-9c39-f0c8e2b1d7a6";

fn registration(name: &str) -> Value {
    json!({ "app_name": name, "email": "a@b.c", "base_url": "https://app.example" })
}

fn repository(name: &str) -> Value {
    json!({ "url": format!("https://x.example/o/{name}") })
}

fn bytes(path: &str, token: Option<&str>, headers: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {token}{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn post(house: &House, path: &str, token: Option<&str>, key: &str, body: &Value) -> Answered {
    house.send(&bytes(path, token, &format!("idempotency-key: {key}\r\n"), body)).await
}

/// Asks until the first request with the key has ended.
async fn settled(house: &House, path: &str, token: Option<&str>, key: &str, body: &Value) -> Answered {
    let asked = async {
        loop {
            let answered = post(house, path, token, key, body).await;
            if answered.json()["type"] != "urn:tidings:problem:request-still-running" {
                return answered;
            }
            assert_eq!((answered.status, answered.header("retry-after")), (409, Some("1")));
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, asked).await.expect("no key stays in use")
}

fn is_replayed(answered: &Answered) -> bool {
    answered.header("idempotent-replayed") == Some("true")
}

/// The second answer is the first one.
fn assert_replays(first: &Answered, second: &Answered) {
    assert!(!is_replayed(first), "{first:?}");
    assert!(is_replayed(second), "{second:?}");
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    assert_eq!(second.header("content-type"), first.header("content-type"));
    assert_ne!(second.header("x-request-id"), first.header("x-request-id"), "it is a request of its own");
}

async fn apps(house: &House) -> usize {
    house.call("GET", "/api/admin/apps", Some(ADMIN), None).await.json()["items"]
        .as_array()
        .expect("a list")
        .len()
}

async fn one_effect_and_one_answer(house: &House) {
    let body = registration("an app");
    let onboard = async |path: &str, key: &str, body: &Value| post(house, path, None, key, body).await;
    let guessable = onboard(ONBOARD, &UUID[..31], &body).await;
    assert_eq!(guessable.status, 400);
    assert!(guessable.body.contains("at least 32"), "{guessable:?}");
    let first = onboard(ONBOARD, &UUID[..32], &body).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_replays(&first, &onboard(ONBOARD, &UUID[..32], &body).await);
    for (path, body) in [(ONBOARD, &registration("another")), ("/api/apps/onboard?a=b", &body)] {
        let refused = onboard(path, &UUID[..32], body).await;
        assert_eq!(refused.problem()["type"], "urn:tidings:problem:idempotency-key-reused");
    }
    assert_eq!(onboard(ONBOARD, UUID, &body).await.status, 201);
    assert_eq!(apps(house).await, 2);

    let token = first.json()["token"].as_str().expect("a token").to_owned();
    let other = house.app().await;
    let watch = async |token: &str, key: &str, name: &str| {
        post(house, WATCH, Some(token), key, &repository(name)).await
    };
    let mine = watch(&token, "1", "mine").await;
    assert_eq!(mine.status, 201, "{mine:?}");
    assert_replays(&mine, &watch(&token, "1", "mine").await);
    let theirs = watch(&other, "1", "theirs").await;
    assert_eq!(theirs.status, 201, "keys of two apps never meet: {theirs:?}");
    assert!(!is_replayed(&theirs));
    assert_eq!(watch(&token, "1", "other").await.status, 409);
    let id = mine.json()["repository_id"].as_str().expect("an id").to_owned();
    let pause = format!("{WATCH}/{id}/pause");
    assert_eq!(post(house, &pause, Some(&token), "1", &json!({})).await.status, 409, "another path");
    let paused = post(house, &pause, Some(&token), "2", &json!({})).await;
    assert_eq!(house.call("POST", &format!("{WATCH}/{id}/resume"), Some(&token), None).await.status, 200);
    assert_replays(&paused, &post(house, &pause, Some(&token), "2", &json!({})).await);
    let shown = house.call("GET", &format!("{WATCH}/{id}"), Some(&token), None).await;
    assert_eq!(shown.json()["state"], "active", "the second had no effect");

    let replay = "/api/admin/receipts/rct_00000000000000000000000000/replay";
    let missing = post(house, replay, Some(ADMIN), UUID, &json!({})).await;
    assert_eq!(missing.problem()["type"], "urn:tidings:problem:receipt-not-found");
    assert_replays(&missing, &post(house, replay, Some(ADMIN), UUID, &json!({})).await);
}

#[tokio::test]
async fn a_request_that_is_sent_twice_has_one_effect_and_one_answer_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let house = sqlite::house(folder.path()).await;
    one_effect_and_one_answer(&house).await;
    let first = post(&house, ONBOARD, None, &UUID.repeat(2), &registration("an app")).await;
    drop(house);
    let house = sqlite::house(folder.path()).await;
    let before = apps(&house).await;
    assert_replays(&first, &post(&house, ONBOARD, None, &UUID.repeat(2), &registration("an app")).await);
    assert_eq!(apps(&house).await, before);
}

#[tokio::test]
async fn of_fifty_at_once_one_runs() {
    let house = House::open().await;
    let body = registration("an app");
    let answers = join_all((0..50).map(|_| settled(&house, ONBOARD, None, UUID, &body))).await;
    let first: Vec<&Answered> = answers.iter().filter(|answered| !is_replayed(answered)).collect();
    assert_eq!(first.len(), 1, "one did it");
    assert_eq!(first[0].status, 201, "{:?}", first[0]);
    assert!(answers.iter().all(|answered| answered.body == first[0].body));
    assert_eq!(apps(&house).await, 1);
}

#[tokio::test]
async fn refusals_are_answers_and_failures_are_none() {
    let house = House::open().await;
    let token = house.app().await;
    let watch = async |key: &str, body: &Value| post(&house, WATCH, Some(&token), key, body).await;
    for (key, body, status) in [
        ("1", repository("missing"), 404),
        ("2", json!({ "url": 1 }), 422),
        ("3", repository("private"), 404),
    ] {
        let first = watch(key, &body).await;
        assert_eq!(first.status, status, "{first:?}");
        assert_replays(&first, &watch(key, &body).await);
    }
    for (key, name) in [("4", "down"), ("5", "busy")] {
        for _ in 0..2 {
            let answered = watch(key, &repository(name)).await;
            assert!(matches!(answered.status, 429 | 503), "{answered:?}");
            assert!(!is_replayed(&answered), "{name} passes");
        }
    }
    assert_eq!(watch("panics", &repository("panics")).await.status, 500);
    let again = watch("panics", &repository("panics")).await;
    assert_eq!((again.status, is_replayed(&again)), (201, false), "the key was free again");
    // As a full disk does, these take no row.
    let full = |name: &str, what: &str| {
        format!("create trigger {name} before {what} begin select raise(abort, 'full'); end")
    };
    house.plant(&full("full_app", "insert on app")).await;
    let onboard = async || post(&house, ONBOARD, None, UUID, &registration("an app")).await;
    assert_eq!(onboard().await.status, 503);
    house.plant("drop trigger full_app").await;
    let again = onboard().await;
    assert_eq!((again.status, is_replayed(&again)), (201, false), "the key was free again");
    house.plant(&full("full_answer", "update of answer on idempotency")).await;
    let first = watch("6", &repository("late")).await;
    assert_eq!(first.status, 201, "{first:?}");
    house.plant("drop trigger full_answer").await;
    assert_replays(&first, &settled(&house, WATCH, Some(&token), "6", &repository("late")).await);
}

#[test]
fn what_says_nothing_of_the_request_is_not_kept() {
    let kept = |status: &u16| is_kept(StatusCode::from_u16(*status).expect("a status"));
    assert!([200, 201, 202, 204, 400, 404, 409, 410, 415, 422].iter().all(kept));
    assert!(![401, 408, 413, 429, 500, 502, 503, 504].iter().any(kept));
}

#[tokio::test]
async fn a_client_that_goes_away_neither_stops_its_request_nor_blocks_its_key() {
    let house = House::open().await;
    let token = house.app().await;
    let body = repository("slow");
    let mut client = house.connect().await;
    let request = bytes(WATCH, Some(&token), &format!("idempotency-key: {UUID}\r\n"), &body);
    client.write_all(&request).await.expect("sent");
    timeout(PATIENCE, house.git.asked.notified()).await.expect("it runs");
    drop(client);
    house.git.answers.notify_one();
    let answered = settled(&house, WATCH, Some(&token), UUID, &body).await;
    assert_eq!((answered.status, is_replayed(&answered)), (201, true), "{answered:?}");
    assert_eq!(house.watches().await.len(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_without_a_key_leaves_no_deed_unwritten() {
    let house = House::open().await;
    let token = house.app().await;
    let mut client = house.connect().await;
    client.write_all(&bytes(WATCH, Some(&token), "", &repository("slow"))).await.expect("sent");
    timeout(PATIENCE, house.git.asked.notified()).await.expect("it runs");
    drop(client);
    house.git.answers.notify_one();
    let is_written = async || {
        let rows = house.sqlite().audit_chain(0, 100).await.expect("read");
        rows.iter().any(|row| row.entry.action == "post_api_repositories")
    };
    let written = async {
        while !is_written().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, written).await.expect("it is done and written down");
    assert_eq!(house.watches().await.len(), 1);
}

#[tokio::test]
async fn what_runs_is_waited_for_and_what_a_crash_cut_off_begins_again() {
    let house = House::with(|settings| settings.onboarding.mode = OnboardingMode::Admin).await;
    let body = registration("an app");
    let request = |key: &str| KeyedRequest {
        owner: AppId::new(Ulid::nil()),
        key: key.into(),
        hash: hash(&Method::POST, ONBOARD, "", body.to_string().as_bytes()),
    };
    let begin = async |key: &str, process: u128| {
        let runner = ReplicaId::new(Ulid::from(process));
        let begun = house.sqlite().begin_request(&request(key), MachineClock.now(), &runner).await;
        assert!(matches!(begun, Ok(Begun::New)));
    };
    let ask = async |key: &str| post(&house, ONBOARD, Some(ADMIN), key, &body).await;
    begin("runs", 0).await;
    let waits = ask("runs").await;
    assert_eq!(waits.problem()["type"], "urn:tidings:problem:request-still-running");
    assert_eq!((waits.status, waits.header("retry-after")), (409, Some("1")));
    let answer = StoredAnswer { status: 202, content_type: None, body: Secret::new("as told".into()) };
    house.sqlite().end_request(&request("runs"), Some(&answer)).await.expect("ended");
    let told = ask("runs").await;
    assert_eq!((told.status, told.body.as_str(), told.header("content-type")), (202, "as told", None));
    begin("cut-off", 1).await;
    let again = ask("cut-off").await;
    assert_eq!((again.status, is_replayed(&again)), (201, false), "{again:?}");
    assert_eq!(apps(&house).await, 1);
}

#[tokio::test]
async fn a_key_is_one_header_of_visible_characters_and_only_of_posts() {
    let house = House::open().await;
    let token = house.app().await;
    let send =
        async |headers: &str| house.send(&bytes(WATCH, Some(&token), headers, &repository("a"))).await.status;
    let (longest, longer) = ("k".repeat(255), "k".repeat(256));
    for (value, status) in [
        ("", 400),
        ("a b", 400),
        ("a\tb", 400),
        ("\u{e9}", 400),
        (&*longer, 400),
        (&*longest, 201),
        ("!~\"", 201),
    ] {
        assert_eq!(send(&format!("idempotency-key: {value}\r\n")).await, status, "{value:?}");
    }
    assert_eq!(send("idempotency-key: a\r\nIdempotency-Key: a\r\n").await, 400, "twice");
    assert_eq!(send("").await, 201, "without one as ever");
    for _ in 0..2 {
        let head = format!(
            "GET /api/app HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             idempotency-key: \r\nidempotency-key: a b\r\n\r\n"
        );
        let answered = house.send(head.as_bytes()).await;
        assert_eq!((answered.status, is_replayed(&answered)), (200, false));
    }
}
