//! A repository that is watched for one folder costs one folder: the bytes are counted at the host.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{
    api::App,
    dice::Dice,
    git_host::{Fault, Seen},
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::{Subscriber, show},
};

/// Files in `docs/` and elsewhere, of 2,000 bytes that do not compress.
const DOCS: usize = 60;
const OTHERS: usize = 600;
const SIZE: usize = 2_000;

fn project() -> Project {
    let project = Project::new();
    for file in 0..DOCS {
        project.write(format!("docs/{}/page{file}", file % 3), &noise(file, SIZE));
    }
    for file in 0..OTHERS {
        project.write(format!("src/{}/code{file}", file % 20), &noise(10_000 + file, SIZE));
    }
    project.commit("first");
    project
}

/// Content that does not compress.
fn noise(seed: usize, bytes: usize) -> Vec<u8> {
    Dice::of(seed as u64).bytes(bytes)
}

/// The part of a tree below a folder.
fn below(project: &Project, commit: &str, folder: &str) -> crate::support::project::Tree {
    let mut tree = project.tree(commit);
    tree.retain(|path, _| path.starts_with(folder.as_bytes()));
    tree
}

/// Requests that named what they want; the others are polls.
fn wanting(seen: &[Seen]) -> impl Iterator<Item = &Seen> {
    seen.iter().filter(|seen| seen.body.contains("want "))
}

fn fetches(seen: &[Seen]) -> usize {
    wanting(seen).count()
}

/// What came in answer to them.
fn bytes(seen: &[Seen]) -> u64 {
    wanting(seen).map(|seen| seen.answered).sum()
}

#[test]
fn a_watch_of_one_folder_transfers_the_trees_and_that_folder() {
    let (host, project) = (Host::start(), project());
    host.publish(&project, "o/r");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let first = project.head();
    host.take_seen();
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "include": ["docs/**"] }));
    app.wait_until_held(&server, &id, &first);
    let narrow = host.take_seen();
    assert_eq!(show(&subscriber.mirror(&id)), show(&below(&project, &first, "docs/")));
    let docs = (DOCS * SIZE) as u64;
    let trees = (DOCS + OTHERS) as u64 * 50;
    println!("docs/**: {} bytes, {} fetches; contents {docs}", bytes(&narrow), fetches(&narrow));
    assert!(bytes(&narrow) < docs + docs / 10 + trees, "{} bytes", bytes(&narrow));
    assert_eq!(fetches(&narrow), 2, "the trees, and all contents at once");

    // Of the next commits only what differs.
    project.write("docs/0/page0", &noise(1_001, SIZE));
    project.write("docs/new", &noise(1_002, SIZE));
    project.write("src/0/code0", &noise(1_003, SIZE * 100));
    project.remove("docs/1/page1");
    let second = project.commit("second");
    host.publish(&project, "o/r");
    app.tell(&server, &id, "scan");
    app.wait_until_held(&server, &id, &second);
    let next = host.take_seen();
    assert_eq!(show(&subscriber.mirror(&id)), show(&below(&project, &second, "docs/")));
    println!("next commit: {} bytes, {} fetches", bytes(&next), fetches(&next));
    assert_eq!(fetches(&next), 2);
    assert!(bytes(&next) < (SIZE * 10) as u64, "{} bytes", bytes(&next));

    // A watch of everything, by another app, makes the mirror whole.
    let everything = Subscriber::start();
    let other = App::onboard(&server, &everything);
    let whole = other.watch_with(&server, &json!({ "url": host.url("o/r") }));
    other.wait_until_held(&server, &whole, &second);
    everything.wait_for_tree(&whole, &project.tree(&second));
    let full = host.take_seen();
    println!("everything: {} bytes, {} fetches", bytes(&full), fetches(&full));
    assert!(bytes(&full) > ((DOCS + OTHERS) * SIZE) as u64);
    assert!(fetches(&full) <= 3, "{} fetches", fetches(&full));
    assert!(bytes(&narrow) * 4 < bytes(&full));
    subscriber.assert_straight();
    everything.assert_straight();
}

#[test]
fn a_host_that_gives_no_content_by_its_id_is_asked_for_whole_commits() {
    let (host, project) = (Host::start(), project());
    host.publish(&project, "o/r");
    host.misbehave(Some(Fault::NoBlobsById));
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let first = project.head();
    host.take_seen();
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "include": ["docs/**"] }));
    app.wait_until_held(&server, &id, &first);
    let seen = host.take_seen();
    assert_eq!(show(&subscriber.mirror(&id)), show(&below(&project, &first, "docs/")));
    assert!(fetches(&seen) < 30, "{} fetches for {DOCS} files", fetches(&seen));

    // It is remembered: the next commit comes whole, and nothing is refused.
    project.write("docs/0/page0", &noise(1_001, SIZE));
    let second = project.commit("second");
    host.publish(&project, "o/r");
    app.tell(&server, &id, "scan");
    app.wait_until_held(&server, &id, &second);
    let next = host.take_seen();
    assert_eq!(show(&subscriber.mirror(&id)), show(&below(&project, &second, "docs/")));
    assert!(fetches(&next) <= 2, "{} fetches", fetches(&next));
    subscriber.assert_straight();
}

#[test]
fn a_filter_that_changes_is_a_round_right_in_content_and_deletes() {
    let (host, project) = (Host::start(), project());
    host.publish(&project, "o/r");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let head = project.head();
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "include": ["docs/0/**"] }));
    app.wait_until_held(&server, &id, &head);
    let becomes = |body: &Value, folders: &[&str], fetches_most: usize| {
        host.take_seen();
        app.patch(&server, &id, body);
        let mut tree = project.tree(&head);
        tree.retain(|path, _| folders.iter().any(|folder| path.starts_with(folder.as_bytes())));
        subscriber.wait_for_tree(&id, &tree);
        app.wait_until_held(&server, &id, &head);
        let seen = host.take_seen();
        println!("{body}: {} bytes, {} fetches", bytes(&seen), fetches(&seen));
        assert!(fetches(&seen) <= fetches_most, "{} fetches", fetches(&seen));
        seen
    };
    let wider = becomes(&json!({ "include": ["docs/**"] }), &["docs/"], 1);
    assert!(bytes(&wider) < (DOCS * SIZE) as u64, "what is here is not fetched again: {}", bytes(&wider));
    becomes(&json!({ "include": ["docs/1/**", "src/1/**"] }), &["docs/1/", "src/1/"], 1);
    becomes(&json!({ "include": [] }), &[""], 3);
    let narrow = becomes(&json!({ "include": ["docs/**"] }), &["docs/"], 0);
    assert!(bytes(&narrow) < 2_000, "{} bytes", bytes(&narrow));
    subscriber.assert_straight();
}

#[test]
fn a_watch_without_content_fetches_none() {
    let (host, project) = (Host::start(), project());
    host.publish(&project, "o/r");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    host.take_seen();
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "content": "none" }));
    app.wait_until_held(&server, &id, &project.head());
    let seen = host.take_seen();
    assert_eq!(subscriber.applied().len(), DOCS + OTHERS);
    println!("no content: {} bytes, {} fetches", bytes(&seen), fetches(&seen));
    assert!(bytes(&seen) < (DOCS + OTHERS) as u64 * 60, "{} bytes", bytes(&seen));
    assert_eq!(fetches(&seen), 1);
}

fn mirrors(server: &Server) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(server.data().join("mirrors")).expect("a folder");
    folder.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_mirror_lost_in_mid_round_costs_a_few_requests() {
    for body in [json!({}), json!({ "include": ["src/**"] })] {
        let (host, project) = (Host::start(), project());
        host.publish(&project, "o/r");
        let (server, subscriber) = (Server::start(), Subscriber::start());
        let app = App::onboard(&server, &subscriber);
        let gate = subscriber.hold_after(20);
        let mut registration = body.clone();
        registration["url"] = host.url("o/r").into();
        let id = app.watch_with(&server, &registration);
        eventually("some deliveries", SOON, || (gate.arrived() > 0).then_some(()));
        // In one step: a scan may be writing into it.
        for mirror in mirrors(&server) {
            std::fs::rename(mirror, server.data().join("lost")).expect("it goes");
        }
        host.take_seen();
        gate.open();
        app.wait_until_held(&server, &id, &project.head());
        let seen = host.take_seen();
        println!("{body}: {} bytes, {} fetches after the loss", bytes(&seen), fetches(&seen));
        assert!(fetches(&seen) <= 6, "{} fetches", fetches(&seen));
        assert!(fetches(&seen) > 0, "nothing was lost");
        let folder = if body["include"].is_array() { "src/" } else { "" };
        assert_eq!(show(&subscriber.mirror(&id)), show(&below(&project, "HEAD", folder)));
        subscriber.assert_straight();
    }
}

#[test]
fn refs_that_nobody_follows_are_not_fetched() {
    let (host, project) = (Host::start(), Project::with(&[("a", "1")]));
    project.git(["branch", "release/1"]);
    project.git(["checkout", "-q", "-b", "experiments/huge"]);
    project.write("huge", &noise(1, 300_000));
    project.commit("not to be fetched");
    project.git(["checkout", "-q", "-b", "releases"]);
    project.write("large", &noise(2, 300_000));
    project.commit("nor this");
    project.git(["checkout", "-q", "experiments/huge"]);
    host.publish(&project, "o/r");
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard_with(&server, &subscriber, &json!({ "delivery": { "multi_branch": true } }));
    host.take_seen();
    let body = json!({ "url": host.url("o/r"), "branch": "rel*/*" });
    let id = app.watch_with(&server, &body);
    app.wait_until_held(&server, &id, &project.git(["rev-parse", "release/1"]));
    app.tell(&server, &id, "scan");
    project.git(["checkout", "-q", "release/1"]);
    project.write("b", b"2");
    let next = project.commit("next");
    project.git(["checkout", "-q", "experiments/huge"]);
    host.publish(&project, "o/r");
    app.tell(&server, &id, "scan");
    app.wait_until_held(&server, &id, &next);
    let seen = host.take_seen();
    assert!(seen.iter().any(|seen| seen.body.contains("ref-prefix refs/heads/0000")), "all refs are listed");
    assert!(bytes(&seen) < 20_000, "{} bytes", bytes(&seen));
}

#[test]
fn a_commit_that_only_another_credential_sees_is_no_place_to_start() {
    let host = Host::start();
    let public = Project::with(&[("a", "1")]);
    host.publish(&public, "team/project");
    let private = project();
    host.publish(&private, "team/inside");
    host.show("of-the-team", "team/project", "team/inside");
    let server = Server::start();
    let (with_token, without) = (Subscriber::start(), Subscriber::start());
    let (insider, outsider) = (App::onboard(&server, &with_token), App::onboard(&server, &without));
    let url = host.url("team/project");
    let inside = insider.watch_with(&server, &json!({ "url": url, "token": "of-the-team" }));
    insider.wait_until_held(&server, &inside, &private.head());
    assert_eq!(mirrors(&server).len(), 1, "both see one repository");

    for start in [private.head(), private.git(["rev-parse", "HEAD^{tree}"]), "ab".repeat(20)] {
        let body = json!({ "url": url, "start": start });
        let reply = outsider.ask(&server, "POST", "/api/repositories", Some(&body));
        assert_eq!(reply.status, 422, "{}", reply.json());
        assert!(reply.json().to_string().contains("no such commit"), "{}", reply.json());
    }
    // Its own view of it, and the team's, are good places.
    let own = json!({ "url": url, "start": public.head() });
    let outside = outsider.watch_with(&server, &own);
    outsider.wait_until_held(&server, &outside, &public.head());
    host.take_seen();
    let body = json!({ "url": url, "token": "of-the-team", "start": private.head(), "branch": "main" });
    insider.watch_with(&server, &body);
    let proof: Vec<Seen> =
        host.take_seen().into_iter().filter(|seen| seen.body.contains("filter tree:0")).collect();
    assert_eq!(proof.len(), 1, "one request proves it");
    assert!(bytes(&proof) < 1_000, "{} bytes for one commit", bytes(&proof));
    assert_eq!(without.applied().len(), 0);
    assert_eq!(mirrors(&server).len(), 1, "what proved a commit is gone");
}
