//! Queues whose tasks come from several watches, and watches of one branch that go different ways: each worker
//! and receiver is given exactly what is meant for it, and lanes wait for room without losing anything.

use std::{collections::BTreeSet, thread, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    api::{App, is_settled},
    churn::Churn,
    database,
    dice::Dice,
    fleet::Fleet,
    kills,
    model::Model,
    patience::{SOON, eventually},
    project::{Project, Tree},
    puller::Puller,
    server::Server,
    subscriber::Subscriber,
    workers::{COMMAND, Claimed, Word, Workers, good, of_every_kind},
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 6;
/// The longest life between two kills.
const LIFE: Duration = Duration::from_millis(900);
/// What waits for workers while none of them has a task, and what each claim adds.
const AHEAD: u64 = 100;
const AHEAD_PER_CLAIM: u64 = 4;
/// Tasks of watches are made as long as an app has fewer open tasks.
const HALF_OF_THE_QUOTA: u64 = 500_000;

fn tasks(window: u64) -> Value {
    json!({ "kind": "tasks", "command": COMMAND, "window": window })
}

/// Waits until a branch is held with nothing open, while workers work.
fn work_until_held(servers: &[Server], workers: &Workers, app: &App, dice: &mut Dice, held: &[(&str, &str)]) {
    let are_held = || {
        held.iter().all(|(id, head)| is_settled(&app.repository(&servers[0], id), head)) && workers.are_idle()
    };
    workers.while_they_work(servers, dice, || {
        eventually("held commits", 3 * SOON, || {
            let owes = workers.redrive_all(&servers[0]);
            (!owes && are_held()).then_some(())
        });
    });
    workers.evidence().assert_faultless();
}

#[test]
fn one_queue_is_fed_by_three_repositories_on_three_replicas() {
    const WINDOW: u64 = 15;
    let Some(mut fleet) = Fleet::start(3, Duration::from_secs(10)) else { return };
    let kills = kills(KILLS);
    let mut dice = Dice::thrown("one queue of three repositories");
    let app = App::onboard_alone(&fleet.servers[0]);
    let settings = json!({ "max_attempts": 5, "retry_base_seconds": 1 });
    let path = format!("/api/queues/{COMMAND}");
    assert_eq!(app.ask(&fleet.servers[0], "PUT", &path, Some(&settings)).status, 200);
    // As many repositories as it takes until each replica works on one.
    let (mut fed, mut owners) = (Vec::new(), BTreeSet::new());
    while owners.len() < 3 {
        assert!(fed.len() < 60, "repositories are not spread: {owners:?}");
        let project = Project::new();
        let churn = Churn::begin(&project, 40);
        let id = app.watch_with(&fleet.servers[0], &json!({ "url": project.url(), "sink": tasks(WINDOW) }));
        let owner = eventually("owner of a watch", SOON, || fleet.owner_of(&id));
        if owners.insert(owner) {
            fed.push((id, project, churn));
        } else {
            // What a replica is busy with may make the answer 503: then it is asked again.
            eventually("end of a watch", SOON, || {
                let path = format!("/api/repositories/{id}");
                let reply = app.ask(&fleet.servers[0], "DELETE", &path, None);
                matches!(reply.status, 204 | 404).then_some(())
            });
        }
    }
    let workers = Workers::of(&app, Duration::from_secs(2), of_every_kind);
    let mut most = 0;
    for _ in 0..kills {
        for (_, project, churn) in &mut fed {
            churn.commit(project, &mut dice);
        }
        let victim = usize::try_from(dice.below(3)).expect("small");
        let life = dice.up_to(LIFE);
        workers.while_they_work(&fleet.servers, &mut dice, || {
            thread::sleep(life);
            most = most.max(workers.unfinished(&fleet.servers[0]));
            fleet.servers[victim].signal(Signal::KILL);
        });
        fleet.servers[victim].kill();
        fleet.servers[victim].run();
    }
    let heads: Vec<String> = fed.iter().map(|(_, project, _)| project.head()).collect();
    let held: Vec<_> = fed.iter().zip(&heads).map(|((id, ..), head)| (id.as_str(), head.as_str())).collect();
    work_until_held(&fleet.servers, &workers, &app, &mut dice, &held);
    for ((id, project, _), head) in fed.iter().zip(&heads) {
        workers.index().assert_is((id, "main"), (&project.path(), Some(head)), |_| true);
    }
    assert_eq!(workers.unfinished(&fleet.servers[0]), 0);
    assert!(most > 0 && most <= 3 * WINDOW, "{most} unfinished tasks");
}

/// The files of a tree whose paths are meant.
fn meant(tree: &Tree, is_meant: fn(&[u8]) -> bool) -> Tree {
    tree.iter()
        .filter(|(path, _)| is_meant(path))
        .map(|(path, facts)| (path.clone(), facts.clone()))
        .collect()
}

fn is_docs(path: &[u8]) -> bool {
    path.starts_with(b"docs/")
}

fn is_source(path: &[u8]) -> bool {
    path.starts_with(b"src/")
}

fn is_page(path: &[u8]) -> bool {
    path.ends_with(b".md") && !path.contains(&b'/')
}

#[test]
fn one_branch_goes_to_an_endpoint_to_workers_and_to_pull_each_its_own() {
    let mut dice = Dice::thrown("three ways");
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let project = Project::new();
    let commit = |project: &Project, dice: &mut Dice| {
        for folder in ["docs/", "src/", "", "other/"] {
            for _ in 0..1 + dice.below(4) {
                let (name, content) = (dice.below(12), dice.number().to_string());
                let path = format!("{folder}{name}.md");
                if dice.one_in(3) && project.path().join(&path).exists() {
                    project.remove(&path);
                } else {
                    project.write(&path, content.as_bytes());
                }
            }
        }
        project.commit("more")
    };
    commit(&project, &mut dice);
    let watch = |name: &str, glob: &str, sink: Option<Value>| {
        let mut body = json!({ "url": project.url(), "include": [glob], "watch_name": name });
        sink.into_iter().for_each(|sink| body["sink"] = sink);
        app.watch_with(&server, &body)
    };
    let sent = watch("docs", "docs/**", None);
    let worked = watch("sources", "src/**", Some(tasks(10)));
    let pulled = watch("pages", "*.md", Some(json!({ "kind": "pull" })));
    let workers = Workers::of(&app, Duration::from_secs(60), good);
    let mut puller = Puller { app: app.clone(), model: Model::new("unused") };
    for turn in 0..8 {
        let head = commit(&project, &mut dice);
        if turn % 2 == 1 {
            let life = dice.up_to(LIFE);
            workers.while_they_work(std::slice::from_ref(&server), &mut dice, || {
                thread::sleep(life);
                server.signal(Signal::KILL);
            });
            server.kill();
            subscriber.model().note_kill();
            puller.model.note_kill();
            server.run();
            continue;
        }
        app.wait_until_held(&server, &sent, &head);
        eventually("pulled pages", 2 * SOON, || {
            puller.drain(&server, &pulled);
            is_settled(&app.repository(&server, &pulled), &head).then_some(())
        });
        let servers = std::slice::from_ref(&server);
        work_until_held(servers, &workers, &app, &mut dice, &[(&worked, &head)]);
        let tree = project.tree(&head);
        subscriber.wait_for_tree(&sent, &meant(&tree, is_docs));
        puller.assert_has(&pulled, &meant(&tree, is_page));
        workers.index().assert_is((&worked, "main"), (&project.path(), Some(&head)), is_source);
    }
    subscriber.assert_straight();
    assert!(subscriber.mirror(&worked).is_empty() && subscriber.mirror(&pulled).is_empty());
    assert!(
        workers.index().listed(&sent, "main").is_empty()
            && workers.index().listed(&pulled, "main").is_empty()
    );
}

fn count(workers: &Workers, server: &Server, state: &str) -> u64 {
    workers.queue(server)["counts"][state].as_u64().unwrap_or(0)
}

/// Waits for a number of tasks in a state, which then stays the same for a while.
fn settles_at(workers: &Workers, server: &Server, state: &str, expected: u64) {
    eventually(&format!("{expected} {state} tasks"), SOON, || {
        (count(workers, server, state) == expected).then_some(())
    });
    thread::sleep(Duration::from_millis(500));
    assert_eq!(count(workers, server, state), expected, "{state}");
}

fn claim(workers: &Workers, server: &Server, wanted: usize) -> Vec<Claimed> {
    let mut claimed = Vec::new();
    eventually("tasks to claim", SOON, || {
        claimed.extend(workers.claim(server, wanted - claimed.len()).expect("a server that answers"));
        (claimed.len() == wanted).then_some(())
    });
    claimed
}

#[test]
fn about_a_hundred_tasks_wait_and_four_more_for_each_that_a_worker_has() {
    let server = Server::start();
    let app = App::onboard_alone(&server);
    let project = Project::new();
    for number in 0..300 {
        project.write(format!("{number}"), b"x");
    }
    let head = project.commit("first");
    let workers = Workers::of(&app, Duration::from_secs(300), good);
    let id = app.watch_with(&server, &json!({ "url": project.url(), "sink": tasks(1_000) }));
    settles_at(&workers, &server, "ready", AHEAD);
    let mut out = claim(&workers, &server, 20);
    settles_at(&workers, &server, "ready", AHEAD + 20 * AHEAD_PER_CLAIM);
    for claimed in &mut out[..10] {
        assert_eq!(workers.report(&server, claimed, Word::Complete, 0), Some(200));
    }
    // What was handed over stays, and no more comes until workers are near.
    settles_at(&workers, &server, "ready", AHEAD + 20 * AHEAD_PER_CLAIM);
    for claimed in &mut out[10..] {
        assert_eq!(workers.report(&server, claimed, Word::Complete, 0), Some(200));
    }
    let servers = std::slice::from_ref(&server);
    work_until_held(servers, &workers, &app, &mut Dice::of(1), &[(&id, &head)]);
    assert_eq!(workers.evidence().done(), 300);
}

#[test]
fn tasks_that_wait_for_their_next_attempt_keep_no_others_from_workers_of_a_watch() {
    let server = Server::start();
    let app = App::onboard_alone(&server);
    let project = Project::new();
    for number in 0..300 {
        project.write(format!("{number}"), b"x");
    }
    project.commit("first");
    let workers = Workers::of(&app, Duration::from_secs(300), good);
    app.watch_with(&server, &json!({ "url": project.url(), "sink": tasks(1_000) }));
    for _ in 0..25 {
        for claimed in claim(&workers, &server, 10) {
            let body = json!({ "token": claimed.token(), "delay_seconds": 600 });
            let reply = app.ask(&server, "POST", &format!("/api/tasks/{}/nack", claimed.id()), Some(&body));
            assert_eq!(reply.status, 200, "{}", reply.json());
        }
    }
    assert_eq!(count(&workers, &server, "waiting"), 250);
    workers.evidence().assert_faultless();
}

#[test]
fn tasks_of_watches_take_half_of_what_an_app_may_have_and_none_is_refused() {
    let mut server = Server::start();
    if server.is_on_postgres() {
        println!("skipped: the hand in the database knows SQLite");
        return;
    }
    let app = App::onboard_alone(&server);
    let filler = json!({ "command": "filler", "payload": 1 });
    assert_eq!(app.ask(&server, "POST", "/api/tasks", Some(&filler)).status, 201);
    let project = Project::new();
    for number in 0..60 {
        project.write(format!("{number}"), b"x");
    }
    let head = project.commit("first");
    // This many tasks of another queue take minutes to create. What counts is what their queue says.
    let tasks_of_filler = |server: &mut Server, count: u64| {
        assert!(server.terminate().0.success());
        let count = i64::try_from(count).expect("small");
        database::change_with(server, "update queue set ready = $1 where command = 'filler'", &[count]);
        server.run();
    };
    tasks_of_filler(&mut server, HALF_OF_THE_QUOTA - 10);
    let workers = Workers::of(&app, Duration::from_secs(300), good);
    let id = app.watch_with(&server, &json!({ "url": project.url(), "sink": tasks(1_000) }));
    settles_at(&workers, &server, "ready", 10);
    let more = app.ask(&server, "POST", "/api/tasks", Some(&filler));
    assert_eq!(more.status, 201, "producers have the other half: {}", more.json());
    tasks_of_filler(&mut server, HALF_OF_THE_QUOTA + 100);
    for left in (0..10).rev() {
        let mut claimed = claim(&workers, &server, 1).remove(0);
        assert_eq!(workers.report(&server, &mut claimed, Word::Complete, 0), Some(200));
        settles_at_once(&workers, &server, left.max(1));
    }
    // Beyond that half a branch has one task at a time, and comes to its end.
    let mut most = 0;
    let servers = std::slice::from_ref(&server);
    workers.while_they_work(servers, &mut Dice::of(2), || {
        eventually("held commit", 2 * SOON, || {
            most = most.max(workers.unfinished(&server));
            is_settled(&app.repository(&server, &id), &head).then_some(())
        });
    });
    workers.evidence().assert_faultless();
    assert_eq!((workers.evidence().done(), most), (60, 1));
}

/// Waits for this many ready tasks.
fn settles_at_once(workers: &Workers, server: &Server, expected: u64) {
    eventually(&format!("{expected} ready tasks"), SOON, || {
        (count(workers, server, "ready") == expected).then_some(())
    });
}
