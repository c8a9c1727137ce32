//! Replicas and the mirrors of what lies on Git hosts: each has its own, or all share one directory.
//! The replica that takes over in mid-round goes on with the same ids, also where no branch leads to the commits of
//! the round any more.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    replicas::{CALM_LEASE, LEASE, lose_nothing_over_mishaps},
    support::{
        api::App,
        fleet::Fleet,
        git_host::Fault,
        patience::{SOON, eventually},
        project::Project,
        remote::Host,
        server::Server,
        subscriber::Subscriber,
    },
};

/// Mishaps, unless `TIDINGS_STORY_MISHAPS` says otherwise.
const MISHAPS: u64 = 6;
const NAME: &str = "r.git";

/// A server whose mirrors lie there.
fn sharing(server: Server, mirrors: &TempDir) -> Server {
    server.with("git.mirrors_dir", mirrors.path().to_str().expect("a path"))
}

/// What the heir of a watch asked the host for, and the commits of the round that it took over.
struct Taken {
    asked: Vec<String>,
    commits: [String; 2],
}

/// The owner of a watch is killed in mid-round, after the history was rewritten, and another ends the round.
fn take_over(mirrors: Option<&TempDir>) -> Option<Taken> {
    let host = Host::start();
    let mut fleet = Fleet::dressed(2, CALM_LEASE, |server| match mirrors {
        Some(folder) => sharing(server, folder),
        None => server,
    })?;
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let project = Project::new();
    for number in 0..60 {
        project.write(format!("file-{number:02}"), format!("first {number}").as_bytes());
    }
    let held = project.commit("first");
    host.publish(&project, NAME);
    let id = app.watch_with(&fleet.servers[0], &json!({ "url": host.url(NAME) }));
    app.wait_until_held(&fleet.servers[0], &id, &held);

    // Deletes, creates and updates, twenty of each, and it ends in the middle of them.
    let gate = subscriber.hold_after(30);
    for number in 0..20 {
        project.remove(&format!("file-{number:02}"));
        project.write(format!("new-{number:02}"), b"second");
        project.write(format!("file-{:02}", number + 20), b"second");
    }
    let target = project.commit("second");
    host.publish(&project, NAME);
    eventually("delivery that waits", SOON, || (gate.arrived() > 0).then_some(()));
    let tree = project.tree(&target);
    let owner = fleet.owner_of(&id).expect("an owner");
    // The owner has all that its round needs: what is asked for from here on, the heir asks for.
    host.take_seen();
    fleet.servers[owner].kill();
    subscriber.model().note_kill();
    // Another root: nothing leads to the commits of the round now.
    let root = project.git(["commit-tree", "-m", "anew", "HEAD^{tree}"]);
    project.git(["reset", "--quiet", "--hard", &root]);
    project.write("anew", b"anew");
    let anew = project.commit("anew");
    host.publish(&project, NAME);
    subscriber.accept_all();
    gate.open();
    subscriber.wait_for_tree(&id, &tree);
    let asked = host.take_seen().into_iter().map(|seen| seen.body).filter(|body| body.contains("want "));
    let asked = asked.collect();

    app.wait_until_held(&fleet.servers[1 - owner], &id, &anew);
    subscriber.wait_for_tree(&id, &project.tree(&anew));
    subscriber.assert_straight();
    Some(Taken { asked, commits: [held, target] })
}

#[test]
fn who_takes_over_in_mid_round_fetches_both_its_commits_by_their_ids() {
    let Some(Taken { asked, commits }) = take_over(None) else { return };
    for want in commits.map(|commit| format!("want {commit}")) {
        assert!(asked.iter().any(|body| body.contains(&want)), "{want}: {asked:#?}");
    }
}

#[test]
fn who_takes_over_in_mid_round_finds_both_its_commits_in_mirrors_that_are_shared() {
    let mirrors = tempfile::tempdir().expect("a folder");
    let Some(Taken { asked, commits }) = take_over(Some(&mirrors)) else { return };
    for want in commits.map(|commit| format!("want {commit}")) {
        assert!(!asked.iter().any(|body| body.contains(&want)), "{asked:#?}");
    }
}

#[test]
fn a_replica_that_freezes_while_it_fetches_keeps_a_shared_mirror_for_seconds_only() {
    let (host, mirrors) = (Host::start(), tempfile::tempdir().expect("a folder"));
    let Some(fleet) = Fleet::dressed(2, CALM_LEASE, |server| sharing(server, &mirrors)) else { return };
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, NAME);
    let id = app.watch_with(&fleet.servers[0], &json!({ "url": host.url(NAME) }));
    app.wait_until_held(&fleet.servers[0], &id, &project.head());
    let owner = fleet.owner_of(&id).expect("an owner");
    let heir = &fleet.servers[1 - owner];

    project.write("a", b"2");
    let head = project.commit("second");
    host.publish(&project, NAME);
    host.misbehave(Some(Fault::Drip(60)));
    eventually("fetch under way", SOON, || is_fetching(mirrors.path()).then_some(()));
    fleet.servers[owner].signal(Signal::STOP);
    subscriber.model().note_kill();
    host.misbehave(None);
    app.wait_until_held(heir, &id, &head);
    assert!(heir.log().contains("was silent for too long"), "the lock was still the frozen one's");

    fleet.servers[owner].signal(Signal::CONT);
    fleet.wait_until_shared(2);
    project.write("a", b"3");
    let head = project.commit("third");
    host.publish(&project, NAME);
    app.wait_until_held(heir, &id, &head);
    subscriber.wait_for_tree(&id, &project.tree(&head));
    subscriber.assert_straight();
}

/// Whether a pack is on its way into a mirror.
fn is_fetching(mirrors: &Path) -> bool {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_pack = |path: PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("quarantine-fetch"))
    };
    entries(mirrors).any(|mirror| entries(&mirror).any(is_pack))
}

#[test]
fn mishaps_of_replicas_that_share_their_mirrors_lose_nothing() {
    let (host, mirrors) = (Host::start(), tempfile::tempdir().expect("a folder"));
    // Rebuilt all the time.
    let dress = |server: Server| sharing(server.with_clock_of_its_own(), &mirrors).with("git.packs_max", "5");
    let Some(fleet) = Fleet::dressed(3, LEASE, dress) else { return };
    lose_nothing_over_mishaps(fleet, MISHAPS, Some(&host));
}
