//! Hooks of Git hosts: with polls an hour apart, whatever is delivered here was told of by a hook.

mod bodies;
mod own;

use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{
    api::{App, items},
    http::{self, Reply},
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
};

const SECRET: &str = "the secret that hosts sign with";
const NEXT_SECRET: &str = "the secret that comes after it";
/// Polls because of hooks are this far apart.
const GAP: Duration = Duration::from_secs(2);
/// For how long a body that was taken in is not taken in again.
const SAME_BODY_WITHIN: Duration = Duration::from_secs(10);

/// Most polls that hooks of this time lead to: one at their beginning, one in each gap, and one after the last.
fn polls_at_most(lasted: Duration) -> usize {
    2 + usize::try_from(lasted.as_secs() / GAP.as_secs()).expect("a few")
}

/// A server that polls once an hour, and one watch that was brought to the first commit.
struct World {
    server: Server,
    subscriber: Subscriber,
    app: App,
    host: Host,
    project: Project,
    id: String,
}

impl World {
    fn new() -> Self {
        let mut server = patient();
        server.run();
        let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
        host.publish(&project, "o/r");
        let subscriber = Subscriber::start();
        let app = App::onboard(&server, &subscriber);
        let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "branch": "main" }));
        app.wait_until_held(&server, &id, &project.head());
        let world = Self { server, subscriber, app, host, project, id };
        world.host.take_polls();
        world
    }

    /// One more commit at the host.
    fn push(&self, path: &str) -> String {
        self.project.write(path, path.as_bytes());
        let commit = self.project.commit(path);
        self.host.publish(&self.project, "o/r");
        commit
    }

    fn body(&self, branch: &str) -> Vec<u8> {
        body(&self.host.url("o/r"), branch)
    }

    /// A hook of GitHub about `main`; each delivery has a body of its own.
    fn hook(&self, delivery: &str) -> Reply {
        let mut body: Value = serde_json::from_slice(&self.body("main")).expect("JSON");
        body["pushed_at"] = json!(delivery);
        github(&self.server, delivery, SECRET, body.to_string().as_bytes())
    }

    fn wait_until_held(&self, commit: &str) {
        self.app.wait_until_held(&self.server, &self.id, commit);
        self.subscriber.wait_for_tree(&self.id, &self.project.tree(commit));
    }

    fn receipts(&self, verdict: &str) -> Vec<Value> {
        let path = format!("/api/admin/receipts?limit=100&verdict={verdict}");
        items(&self.server.ask_as_admin("GET", &path).json())
    }
}

fn patient() -> Server {
    Server::prepare()
        .with("git.poll_min", "1h")
        .with("git.poll_max", "1h")
        .with("hooks.secret", &format!("{NEXT_SECRET},{SECRET}"))
}

fn body(url: &str, branch: &str) -> Vec<u8> {
    let repository = json!({ "full_name": "o/r", "clone_url": format!("{url}.git"), "html_url": url });
    let commits = json!([{ "id": "1".repeat(40), "message": "one" }]);
    let body = json!({
        "ref": format!("refs/heads/{branch}"), "before": "0".repeat(40), "after": "1".repeat(40),
        "repository": repository, "commits": commits,
    });
    body.to_string().into_bytes()
}

/// The signature of a body by a secret, in hexadecimal digits.
pub(crate) fn digits(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(body);
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

fn github(server: &Server, delivery: &str, secret: &str, body: &[u8]) -> Reply {
    let signature = format!("sha256={}", digits(secret, body));
    let fields = [
        ("x-github-delivery", delivery),
        ("x-github-event", "push"),
        ("x-hub-signature-256", &signature),
        ("content-type", "application/json"),
    ];
    send(server, "/hooks/github", &fields, body)
}

/// Sends a request of a Git host with these header fields.
pub(crate) fn send(server: &Server, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    http::raw(server.address(), &[head.as_bytes(), body].concat()).expect("an answer")
}

fn outcome(reply: &Reply) -> (u16, String, String) {
    let json = reply.json();
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    (reply.status, text("verdict"), text("reason"))
}

fn is(status: u16, verdict: &str, reason: &str) -> (u16, String, String) {
    (status, verdict.to_owned(), reason.to_owned())
}

#[test]
fn a_hook_brings_a_push_in_time_and_a_burst_of_fifty_costs_one_or_two_polls() {
    let world = World::new();
    let second = world.push("b");
    let began = Instant::now();
    for number in 0..50 {
        let reply = world.hook(&format!("burst {number}"));
        assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));
    }
    let answered = began.elapsed();
    world.wait_until_held(&second);
    println!("50 hooks answered in {answered:?}; delivered {:?} after the first", began.elapsed());
    let polls = world.host.take_polls();
    let most = polls_at_most(answered);
    assert!((1..=most).contains(&polls), "{polls} polls after 50 hooks in {answered:?}");

    let third = world.push("c");
    let signature = digits(SECRET, &world.body("main"));
    let fields = [
        ("x-gitea-delivery", "1"),
        ("x-gitea-event", "push"),
        ("x-gitea-signature", signature.as_str()),
        ("content-type", "application/json"),
    ];
    let reply = send(&world.server, "/hooks/gitea", &fields, &world.body("main"));
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));
    world.wait_until_held(&third);
    let polls = polls + world.host.take_polls();
    assert!((2..=most + 2).contains(&polls), "{polls} polls after 50 hooks in {answered:?} and another one");

    let fourth = world.push("d");
    let url = world.host.url("o/r");
    let body = json!({
        "object_kind": "push", "ref": "refs/heads/main", "after": "1".repeat(40),
        "project": { "git_http_url": format!("{url}.git"), "web_url": url },
    });
    let fields = [
        ("idempotency-key", "1"),
        ("x-gitlab-event", "Push Hook"),
        ("x-gitlab-token", NEXT_SECRET),
        ("content-type", "application/json"),
    ];
    let reply = send(&world.server, "/hooks/gitlab", &fields, body.to_string().as_bytes());
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));
    world.wait_until_held(&fourth);
    world.subscriber.assert_faultless();
    let log = world.server.log();
    assert!(!log.contains(SECRET) && !log.contains(NEXT_SECRET));
}

#[test]
fn forged_repeated_lost_and_unwanted_hooks_change_nothing_but_the_moment() {
    let mut world = World::new();
    let lost = world.push("b");
    let forged = github(&world.server, "1", "a secret that nobody set", &world.body("main"));
    assert_eq!(
        (forged.status, forged.json()["type"].as_str()),
        (401, Some("urn:tidings:problem:hook-refused"))
    );
    let unsigned = [("x-github-delivery", "1"), ("content-type", "application/json")];
    assert_eq!(send(&world.server, "/hooks/github", &unsigned, &world.body("main")).status, 401);
    let garbled = github(&world.server, "2", SECRET, b"{\"ref\":");
    assert_eq!(garbled.status, 400);
    let elsewhere = github(&world.server, "3", SECRET, &body("http://169.254.169.254/o/r", "main"));
    assert_eq!(outcome(&elsewhere), is(200, "ignored", "unknown_repository"));
    let other = github(&world.server, "4", SECRET, &world.body("other"));
    assert_eq!(outcome(&other), is(200, "ignored", "other_ref"));
    assert_eq!(world.host.take_polls(), 0, "nobody was polled because of these");

    let reply = world.hook("1");
    assert_eq!(
        outcome(&reply),
        is(202, "accepted", "ref_moved"),
        "a forged delivery id takes nobody's place"
    );
    world.wait_until_held(&lost);
    let again = world.hook("1");
    assert_eq!(outcome(&again), is(200, "duplicate", "seen_before"));

    world.push("c");
    let fourth = world.push("d");
    world.server.kill();
    world.server.run();
    let again = world.hook("1");
    assert_eq!(outcome(&again), is(200, "duplicate", "seen_before"), "a 2xx is on disk");
    assert_eq!(world.hook("5").status, 202);
    world.wait_until_held(&fourth);

    let reasons = |verdict: &str| -> Vec<String> {
        let receipts = world.receipts(verdict);
        receipts.iter().rev().map(|row| row["reason"].as_str().expect("a text").to_owned()).collect()
    };
    assert_eq!(reasons("refused"), ["wrong_signature", "no_signature", "unreadable"]);
    assert_eq!(reasons("ignored"), ["unknown_repository", "other_ref"]);
    assert_eq!(reasons("duplicate"), ["seen_before", "seen_before"]);
    assert_eq!(reasons("accepted"), ["ref_moved", "ref_moved"]);
    let of_all = items(&world.server.ask_as_admin("GET", "/api/admin/receipts?limit=100").json());
    let arrived: Vec<_> = of_all.iter().rev().map(|row| row["verdict"].as_str().expect("a text")).collect();
    let mut order = [["refused"; 3].as_slice(), &["ignored"; 2]].concat();
    order.extend(["accepted", "duplicate", "duplicate", "accepted"]);
    assert_eq!(arrived, order, "in the order of arrival, of all verdicts together");
    let kept = world.receipts("accepted");
    assert_eq!((&kept[1]["delivery_id"], &kept[1]["ref"]), (&json!("1"), &json!("refs/heads/main")));
    world.subscriber.assert_straight();
}

#[test]
fn a_body_that_comes_again_leaves_one_receipt_and_asks_for_a_poll() {
    let world = World::new();
    let body = world.body("main");
    let (began, mut remembered, mut taken_in) = (Instant::now(), Instant::now(), 1);
    let first = github(&world.server, "captured", SECRET, &body);
    assert_eq!(outcome(&first), is(202, "accepted", "ref_moved"));
    eventually("the poll that it asks for", SOON, || (world.host.take_polls() > 0).then_some(()));
    // On a busy machine the story lasts longer than a body is remembered: then the body counts once more.
    let mut again = |delivery: &str| {
        let before = Instant::now();
        let again = github(&world.server, delivery, SECRET, &body);
        if remembered.elapsed() >= SAME_BODY_WITHIN && again.status == 202 {
            (remembered, taken_in) = (before, taken_in + 1);
        } else {
            assert_eq!(outcome(&again), is(200, "duplicate", "seen_before"), "{delivery}");
        }
    };
    (0..30).for_each(|number| again(&format!("fresh {number}")));
    let second = world.push("b");
    assert_eq!(world.hook("genuine").status, 202, "others are taken in");
    world.wait_until_held(&second);
    let third = world.push("c");
    again("fresh again");
    world.wait_until_held(&third);
    let (polls, lasted) = (world.host.take_polls(), began.elapsed());
    assert!((2..=polls_at_most(lasted).max(4)).contains(&polls), "{polls} polls in {lasted:?}");
    assert_eq!(world.receipts("accepted").len(), taken_in + 1);
    world.subscriber.assert_straight();
}

#[test]
fn a_renamed_repository_is_followed_and_its_hooks_under_the_new_name_count() {
    let world = World::new();
    let first = world.push("b");
    assert_eq!(world.hook("1").status, 202);
    world.wait_until_held(&first);
    let (old, new) = (world.host.url("o/r"), world.host.url("o/s"));
    world.host.rename("o/r", "o/s");
    let renamed = json!({
        "action": "renamed", "changes": { "repository": { "name": { "from": "r" } } },
        "repository": { "full_name": "o/s", "clone_url": format!("{new}.git"), "html_url": new },
    });
    let renamed = renamed.to_string().into_bytes();
    let signature = format!("sha256={}", digits(SECRET, &renamed));
    let fields = [
        ("x-github-delivery", "2"),
        ("x-github-event", "repository"),
        ("x-hub-signature-256", &signature),
        ("content-type", "application/json"),
    ];
    let reply = send(&world.server, "/hooks/github", &fields, &renamed);
    assert_eq!(outcome(&reply), is(202, "accepted", "repository_changed"));
    let shown = || world.app.repository(&world.server, &world.id);
    eventually("the new address", SOON, || (shown()["moved_to"] == new.as_str()).then_some(()));
    assert!(shown()["last_error"].is_null(), "nothing failed: {}", shown());

    world.project.write("c", b"c");
    let second = world.project.commit("c");
    world.host.publish(&world.project, "o/s");
    let reply = github(&world.server, "3", SECRET, &body(&new, "main"));
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"), "the new name is known");
    world.wait_until_held(&second);
    assert_eq!(shown()["github_url"], old.as_str(), "bodies go on naming what was registered");
    world.subscriber.assert_straight();
}

#[test]
fn a_hook_that_came_too_early_is_replayed_by_hand() {
    let mut server = patient();
    server.run();
    let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
    host.publish(&project, "o/r");
    let early = github(&server, "1", SECRET, &body(&host.url("o/r"), "main"));
    assert_eq!(outcome(&early), is(200, "ignored", "unknown_repository"));
    let receipt = early.json()["receipt_id"].as_str().expect("an id").to_owned();
    let tidings = |arguments: &[&str]| {
        let url = format!("http://{}", server.address());
        let token = server.data().join("admin-token");
        let mut command = server.command(arguments);
        command.args(["--server", &url, "--token-file"]).arg(token).output().expect("it ran")
    };
    assert!(!tidings(&["receipt", "replay", &receipt]).status.success(), "still nobody watches it");

    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());
    project.write("b", b"2");
    let second = project.commit("second");
    host.publish(&project, "o/r");
    let listed = tidings(&["receipt", "list", "--verdict", "ignored", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["receipt_id"], receipt.as_str());
    let replayed = tidings(&["receipt", "replay", &receipt]);
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    app.wait_until_held(&server, &id, &second);
    subscriber.wait_for_tree(&id, &project.tree(&second));
    assert!(!tidings(&["receipt", "replay", "rct_01ARZ3NDEKTSV4RRFFQ69G5FAV"]).status.success());
}

#[test]
fn bodies_of_twenty_five_megabytes_are_taken_in_and_larger_ones_refused_unread() {
    let world = World::new();
    let second = world.push("b");
    let mut large = world.body("main");
    let commits = format!(",\"more\":[{}{{}}]}}", "{\"message\":\"one of very many\"},".repeat(800_000));
    large.truncate(large.len() - 1);
    large.extend_from_slice(commits.as_bytes());
    assert!(large.len() > 24_000_000 && large.len() < 26_214_400, "{}", large.len());
    let reply = github(&world.server, "1", SECRET, &large);
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));
    world.wait_until_held(&second);

    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", str::from_utf8(&world.body("main")).expect("text"))
        .finish();
    let signature = format!("sha256={}", digits(SECRET, form.as_bytes()));
    let fields = [
        ("x-github-delivery", "2"),
        ("x-github-event", "push"),
        ("x-hub-signature-256", &signature[..]),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let reply = send(&world.server, "/hooks/github", &fields, form.as_bytes());
    assert_eq!(outcome(&reply), is(202, "accepted", "ref_moved"));

    let head = "POST /hooks/github HTTP/1.1\r\nhost: x\r\nx-hub-signature-256: sha256=";
    let rest = "\r\ncontent-type: application/json\r\ncontent-length: 40000000\r\n\r\n";
    let announced = format!("{head}{}{rest}", "0".repeat(64));
    assert_eq!(http::raw(world.server.address(), announced.as_bytes()).expect("an answer").status, 413);
    let resident = world.server.resident();
    assert!(resident < 256 << 20, "{resident} bytes are held");
}

#[test]
fn without_a_secret_no_hook_is_served() {
    let server = Server::start();
    let reply = github(&server, "1", SECRET, b"{}");
    assert_eq!((reply.status, reply.json()["type"].as_str()), (404, Some("urn:tidings:problem:hooks-off")));
    let listed = server.ask_as_admin("GET", "/api/admin/receipts").json();
    assert!(items(&listed).is_empty());
}

#[test]
fn a_flood_of_forged_hooks_leaves_few_rows_and_says_how_many_came() {
    let world = World::new();
    for number in 0..200 {
        let forged =
            github(&world.server, &number.to_string(), "a secret that nobody set", &world.body("main"));
        assert_eq!(forged.status, 401);
    }
    let sum = |receipts: &[Value]| receipts.iter().filter_map(|row| row["times"].as_u64()).sum::<u64>();
    // Of those that were not written the next row that is written tells.
    let noted = eventually("row for all of them", SOON, || {
        let forged = github(&world.server, "last", "a secret that nobody set", &world.body("main"));
        assert_eq!(forged.status, 401);
        let receipts = world.receipts("refused");
        (sum(&receipts) > 200 || receipts.len() == 100).then_some(receipts)
    });
    assert!(noted.len() < 100 && sum(&noted) > 200, "{} rows for {}", noted.len(), sum(&noted));
    assert_eq!(world.host.take_polls(), 0);
}
