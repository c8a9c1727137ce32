//! Several servers on one PostgreSQL database: they share the work, and a replica that dies is followed within the
//! life of a lease and two seconds, in mid-round, with the same ids and in order.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    api::{App, is_settled},
    churn::{BETWEEN_COMMITS, Churn},
    dice::Dice,
    fleet::Fleet,
    http, length,
    patience::{SOON, SetAtEnd, eventually},
    project::Project,
    puller::Puller,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
    text_setting,
};

/// Mishaps, unless `TIDINGS_STORY_MISHAPS` says otherwise.
const MISHAPS: u64 = 12;
/// The same of a short story: each kind once.
const MISHAPS_SHORT: u64 = 6;

/// How long a lease of these stories lives.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// What another replica may take beyond it.
const TAKEOVER: Duration = Duration::from_secs(2);
/// The same of a takeover that a busy machine delays. The quickest of a story shows what is promised.
const TAKEOVER_BUSY: Duration = Duration::from_secs(20);
/// A lease of stories in which a replica dies. A busy machine renews it in time, and a story has time to go on
/// before another replica takes over.
pub(crate) const CALM_LEASE: Duration = Duration::from_secs(12);
/// A lease of stories in which nobody waits for its end.
const LONG_LEASE: Duration = Duration::from_secs(60);

/// A project with this many files.
fn project(files: usize) -> Project {
    let project = Project::new();
    for number in 0..files {
        project.write(format!("file-{number:03}"), format!("{number}").as_bytes());
    }
    project.commit("all of them");
    project
}

#[test]
fn when_the_owner_of_a_watch_is_killed_another_goes_on_in_mid_round() {
    const FILES: usize = 120;
    let Some(mut fleet) = Fleet::start(2, CALM_LEASE) else { return };
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let project = project(FILES);
    let gate = subscriber.hold_after(40);
    let id = app.watch(&fleet.servers[1], &project);
    eventually("delivery that waits", SOON, || (gate.arrived() > 0).then_some(()));
    let owner = fleet.owner_of(&id).expect("an owner");
    let heir = 1 - owner;
    let heir_id = fleet.id(heir);

    fleet.servers[owner].kill();
    subscriber.model().note_kill();
    subscriber.accept_all();
    gate.open();
    let killed = Instant::now();
    eventually("other owner", SOON, || (fleet.owner_of(&id) == Some(heir)).then_some(()));
    let took = killed.elapsed();
    println!("taken over after {took:?} of a lease of {CALM_LEASE:?}");
    assert!(took <= CALM_LEASE + TAKEOVER_BUSY, "{took:?} of a lease of {CALM_LEASE:?}");
    app.wait_until_held(&fleet.servers[heir], &id, &project.head());
    subscriber.wait_for_tree(&id, &project.tree(&project.head()));
    assert_eq!(fleet.holdings().iter().map(|(id, _)| id).collect::<Vec<_>>(), [&heir_id]);

    // It comes back and takes its share again; what changes meanwhile arrives.
    fleet.servers[owner].run();
    fleet.wait_until_shared(2);
    project.write("late", b"late");
    let head = project.commit("late");
    app.tell(&fleet.servers[owner], &id, "scan");
    app.wait_until_held(&fleet.servers[owner], &id, &head);
    subscriber.wait_for_tree(&id, &project.tree(&head));
    subscriber.assert_straight();
}

#[test]
fn a_replica_that_is_told_to_stop_hands_its_work_over_at_once_and_repeats_nothing() {
    let Some(mut fleet) = Fleet::start(2, LONG_LEASE) else { return };
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let project = project(20);
    let id = app.watch(&fleet.servers[0], &project);
    app.wait_until_held(&fleet.servers[0], &id, &project.head());
    let owner = fleet.owner_of(&id).expect("an owner");
    let heir = 1 - owner;
    let (status, took) = fleet.servers[owner].terminate();
    assert!(status.success());
    // Long before any lease of a minute ends.
    fleet.wait_until_shared(1);
    println!("stopped after {took:?}");
    project.write("more", b"more");
    let head = project.commit("more");
    app.wait_until_held(&fleet.servers[heir], &id, &head);
    subscriber.wait_for_tree(&id, &project.tree(&head));
    subscriber.assert_straight();
    assert_eq!(subscriber.model().repeats, 0);
}

#[test]
fn a_replica_that_was_killed_and_starts_again_waits_for_no_lease_of_its_own() {
    let Some(mut fleet) = Fleet::start(1, LONG_LEASE) else { return };
    let before = fleet.id(0);
    fleet.servers[0].kill();
    fleet.servers[0].run();
    fleet.wait_until_shared(1);
    assert_ne!(fleet.id(0), before);
}

#[test]
fn what_is_pulled_from_several_replicas_comes_once_and_in_order() {
    let Some(fleet) = Fleet::start(2, LONG_LEASE) else { return };
    let mut puller = Puller::onboard(&fleet.servers[0]);
    let project = project(150);
    let id = puller.app.watch(&fleet.servers[0], &project);
    let owner = fleet.owner_of(&id).expect("an owner");
    let (owner, other) = (&fleet.servers[owner], &fleet.servers[1 - owner]);
    let head = project.head();
    // The replica that is asked need not be the replica that works on the repository.
    for (asked, told) in [(other, owner), (owner, other), (other, other), (owner, owner)].into_iter().cycle()
    {
        let pending = eventually("changes, or none left", SOON, || {
            let pending = puller.ask(asked, &id, "limit=20&wait_seconds=1");
            let is_over = pending.is_none() && is_settled(&puller.app.repository(told, &id), &head);
            (pending.is_some() || is_over).then_some(pending)
        });
        let Some(pending) = pending else { break };
        let last = pending["to"].as_u64().expect("a position") - 1;
        let arrivals = puller.take(&pending, last);
        let body = json!({ "lease_id": pending["lease_id"], "accepted_through": last });
        let (status, answer) = puller.settle(told, &id, &body);
        assert_eq!(status, 200, "{answer}");
        arrivals.iter().for_each(|arrival| puller.model.acknowledged(arrival));
    }
    puller.assert_has(&id, &project.tree(&head));
    assert_eq!(puller.model.repeats, 0);
    let request = format!(
        "GET /api/repositories/{id}/pending HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         tidings-replica: rpl_x\r\nconnection: close\r\n\r\n",
        puller.app.token
    );
    let reply = http::raw(other.address(), request.as_bytes()).expect("an answer");
    assert_eq!(reply.status, 503, "what was handed on is not handed on again");
}

#[test]
fn contents_and_rounds_are_read_on_every_replica() {
    let Some(fleet) = Fleet::start(2, LONG_LEASE) else { return };
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let project = project(20);
    let id = app.watch(&fleet.servers[0], &project);
    app.wait_until_held(&fleet.servers[0], &id, &project.head());
    let read = |server: &Server, path: &str| {
        let path = format!("/api/repositories/{id}/{path}");
        let reply = server.ask("GET", &path, Some(&app.token), None).expect("an answer");
        assert_eq!(
            reply.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&reply.message.body).into_owned()
        );
        String::from_utf8_lossy(&reply.message.body).into_owned()
    };
    let blob = project.git(["rev-parse", "HEAD:file-007"]);
    let contents = format!("blobs/{}", blob.trim());
    for path in ["files", "rounds", &contents] {
        assert_eq!(read(&fleet.servers[0], path), read(&fleet.servers[1], path), "{path}");
    }
    assert_eq!(read(&fleet.servers[1], &contents), "7");
}

#[test]
fn a_replica_for_requests_works_on_nothing_and_one_that_works_answers_no_requests() {
    let Some(mut fleet) = Fleet::of_roles(&["api", "worker"], LONG_LEASE) else { return };
    let worker = fleet.id(1);
    assert_eq!(fleet.holdings(), [(worker.clone(), 256)]);
    let shown = fleet.servers[0].ask_as_admin("GET", "/api/admin/replicas").json();
    let roles: Vec<_> = shown["items"].as_array().expect("a list").iter().map(|one| &one["role"]).collect();
    assert!(roles.contains(&&json!("api")) && roles.contains(&&json!("worker")), "{shown}");

    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let project = project(20);
    let id = app.watch(&fleet.servers[0], &project);
    app.wait_until_held(&fleet.servers[0], &id, &project.head());
    subscriber.wait_for_tree(&id, &project.tree(&project.head()));
    for (path, status) in [("/readyz", 200), ("/metrics", 200), ("/api/repositories", 404), ("/docs", 404)] {
        let reply = fleet.servers[1].ask("GET", path, Some(&app.token), None).expect("an answer");
        assert_eq!(reply.status, status, "{path}");
    }

    // Only the worker knows what its looks at the Git host came to.
    let scan = app.repository(&fleet.servers[0], &id)["scan"].clone();
    assert!(scan["last_at"].is_string() && scan["outcome"] == "ok", "{scan}");

    // What is pulled is handed on to the worker, which answers that and little else.
    let mut puller = Puller::onboard(&fleet.servers[0]);
    let pulled = puller.app.watch(&fleet.servers[0], &project);
    eventually("everything pulled", SOON, || {
        puller.drain(&fleet.servers[0], &pulled);
        is_settled(&puller.app.repository(&fleet.servers[0], &pulled), &project.head()).then_some(())
    });
    puller.assert_has(&pulled, &project.tree(&project.head()));

    // Without a worker requests are answered, and what is pulled is asked for again later.
    fleet.servers[1].kill();
    let reply = fleet.servers[0].ask(
        "GET",
        &format!("/api/repositories/{pulled}/pending"),
        Some(&puller.app.token),
        None,
    );
    let reply = reply.expect("an answer");
    assert_eq!((reply.status, reply.message.header("retry-after")), (503, Some("1")), "{}", reply.json());
    project.write("late", b"late");
    let head = project.commit("late");
    fleet.servers[1].run();
    app.wait_until_held(&fleet.servers[0], &id, &head);
    subscriber.wait_for_tree(&id, &project.tree(&head));
    subscriber.assert_straight();
}

/// Replicas of a version before, whose binary `TIDINGS_STORY_OLDER` names, are replaced one by one.
#[test]
fn replicas_are_replaced_by_a_newer_version_one_by_one_while_they_work() {
    let Some(older) = text_setting("TIDINGS_STORY_OLDER").map(PathBuf::from) else {
        println!("skipped: TIDINGS_STORY_OLDER names no binary of a version before");
        return;
    };
    let mut dice = Dice::thrown("an upgrade");
    let Some(mut fleet) = Fleet::of_binary(&older, 2, LEASE) else { return };
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let projects: Vec<Project> = (0..6).map(|_| Project::new()).collect();
    let mut churns: Vec<Churn> = projects.iter().map(|project| Churn::begin(project, 30)).collect();
    let ids: Vec<String> = projects.iter().map(|project| app.watch(&fleet.servers[0], project)).collect();
    let mut commit = |dice: &mut Dice| {
        for (project, churn) in projects.iter().zip(&mut churns) {
            churn.commit(project, dice);
        }
    };
    for index in 0..2 {
        commit(&mut dice);
        assert!(fleet.servers[index].terminate().0.success());
        fleet.servers[index].becomes(None);
        // The steps of the schema are taken while the other works.
        fleet.servers[index].run();
        commit(&mut dice);
        fleet.wait_until_shared(2);
        for (project, id) in projects.iter().zip(&ids) {
            app.wait_until_held(&fleet.servers[1 - index], id, &project.head());
            subscriber.wait_for_tree(id, &project.tree(&project.head()));
        }
    }
    subscriber.assert_straight();
    assert_eq!(subscriber.model().repeats, 0, "who is told to stop repeats nothing");

    // The way back is none.
    fleet.servers[0].terminate();
    fleet.servers[0].becomes(Some(older));
    fleet.servers[0].spawn();
    assert!(!fleet.servers[0].ended().success());
    let log = fleet.servers[0].log();
    assert!(log.contains("newer"), "{log}");
}

/// What befalls a replica.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// Ended by SIGKILL, which lets nothing drain.
    Killed,
    /// Stopped by SIGTERM, which lets it drain.
    Stopped,
    /// SIGSTOP for longer than its leases live, then SIGCONT.
    Frozen,
    /// Nothing gets through to the database and back, for as long.
    CutOff,
    /// Its wall clock goes an hour ahead, and comes back.
    Ahead,
    /// Its wall clock goes an hour back, and comes back.
    Behind,
}

/// By how much a clock is moved, in seconds.
const MOVED: i64 = 3_600;

impl Mishap {
    const ALL: [Self; 6] =
        [Self::Killed, Self::Stopped, Self::Frozen, Self::CutOff, Self::Ahead, Self::Behind];

    /// Moves a clock for so long that many a lease is prolonged meanwhile, and back; `false`: this is no mishap of
    /// clocks.
    fn move_clock(self, fleet: &Fleet, index: usize) -> bool {
        let server = &fleet.servers[index];
        let is_moved = match self {
            Self::Ahead => server.move_clock(MOVED),
            Self::Behind => server.move_clock(-MOVED),
            _ => return false,
        };
        if is_moved {
            thread::sleep(LEASE * 2);
            // Leases are of the database's clock alone: it keeps its share, and takes nobody else's.
            fleet.wait_until_shared(fleet.servers.len());
        }
        if !is_moved {
            println!("{self:?} skipped: there is no libfaketime here");
        }
        server.move_clock(0);
        true
    }

    /// Whether the others take over when leases end, and not at once.
    const fn waits_for_leases(self) -> bool {
        matches!(self, Self::Killed | Self::Frozen | Self::CutOff)
    }

    /// It happens to a replica, the others take over, and it is well again.
    fn befall(self, fleet: &mut Fleet, index: usize) -> Duration {
        if self.move_clock(fleet, index) {
            return Duration::ZERO;
        }
        let (id, others) = (fleet.id(index), fleet.servers.len() - 1);
        let began = Instant::now();
        match self {
            Self::Killed => fleet.servers[index].kill(),
            Self::Stopped => assert!(fleet.servers[index].terminate().0.success()),
            Self::Frozen => fleet.servers[index].signal(Signal::STOP),
            Self::CutOff => fleet.cables[index].cut(true),
            Self::Ahead | Self::Behind => unreachable!("nothing is taken over"),
        }
        let took = eventually("takeover", SOON, || {
            let held = fleet.holdings();
            let is_over = held.iter().all(|(owner, _)| *owner != id);
            let all = held.iter().map(|(_, shards)| shards).sum::<i64>() == 256;
            (is_over && all && held.len() == others).then(|| began.elapsed())
        });
        match self {
            Self::Killed | Self::Stopped => fleet.servers[index].run(),
            Self::Frozen => fleet.servers[index].signal(Signal::CONT),
            Self::CutOff => fleet.cables[index].cut(false),
            Self::Ahead | Self::Behind => {}
        }
        fleet.wait_until_shared(others + 1);
        took
    }
}

#[test]
fn mishaps_of_one_of_three_replicas_lose_nothing_and_keep_the_order() {
    let Some(fleet) = Fleet::with_clocks(3, LEASE) else { return };
    lose_nothing_over_mishaps(fleet, MISHAPS, None);
}

/// Mishaps befall one of three replicas after another while six projects change, those of a host if there
/// is one.
pub(crate) fn lose_nothing_over_mishaps(mut fleet: Fleet, mishaps: u64, host: Option<&Host>) {
    let mishaps = length("TIDINGS_STORY_MISHAPS", mishaps, MISHAPS_SHORT);
    let mut dice = Dice::thrown("mishaps of replicas");
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let projects: Vec<(String, Project)> =
        (0..6).map(|number| (format!("r{number}.git"), Project::new())).collect();
    let publish = |name: &str, project: &Project| host.map_or((), |host| host.publish(project, name));
    let begin = |(name, project): &(String, Project)| {
        let churn = Churn::begin(project, 30);
        publish(name, project);
        churn
    };
    let churns: Vec<Churn> = projects.iter().map(begin).collect();
    let watch = |(index, (name, project)): (usize, &(String, Project))| {
        let url = host.map_or_else(|| project.url(), |host| host.url(name));
        app.watch_with(&fleet.servers[index % 3], &json!({ "url": url }))
    };
    let ids: Vec<String> = projects.iter().enumerate().map(watch).collect();
    let over = AtomicBool::new(false);
    let (mut longest, mut quickest) = (Duration::ZERO, Duration::MAX);
    thread::scope(|scope| {
        for ((name, project), mut churn) in projects.iter().zip(churns) {
            let (over, mut dice) = (&over, Dice::of(dice.number()));
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    churn.commit(project, &mut dice);
                    publish(name, project);
                    thread::sleep(dice.up_to(BETWEEN_COMMITS * 4));
                }
            });
        }
        scope.spawn(|| {
            // On a busy machine a lease ends without any mishap: then what was acknowledged comes again as well.
            while !over.load(Ordering::SeqCst) {
                subscriber.model().note_kill();
                thread::sleep(LEASE / 60);
            }
        });
        // The committers must end with the story, also when it fails.
        let _end = SetAtEnd(&over);
        for number in 0..mishaps {
            let mishap = Mishap::ALL[usize::try_from(number % 6).expect("six")];
            let index = usize::try_from(dice.below(3)).expect("three");
            let took = mishap.befall(&mut fleet, index);
            println!("{mishap:?}: taken over after {took:?}");
            assert!(took <= LEASE + TAKEOVER_BUSY, "{mishap:?}: {took:?} of a lease of {LEASE:?}");
            longest = longest.max(took);
            if mishap.waits_for_leases() {
                quickest = quickest.min(took);
            }
            subscriber.assert_faultless();
        }
    });
    for ((_, project), id) in projects.iter().zip(&ids) {
        let head = project.head();
        app.wait_until_held(&fleet.servers[1], id, &head);
        subscriber.wait_for_tree(id, &project.tree(&head));
    }
    subscriber.assert_straight();
    assert!(app.dead_letters(&fleet.servers[2]).is_empty());
    let promised = LEASE + TAKEOVER;
    assert!(quickest <= promised, "the quickest takeover took {quickest:?} instead of {promised:?}");
    let model = subscriber.model();
    println!(
        "{mishaps} mishaps: {} requests, {} changes, {} repeats, the longest takeover {longest:?}",
        model.requests,
        model.applied.len(),
        model.repeats
    );
    assert!(model.applied.len() as u64 > mishaps * 20, "so little delivered proves nothing");
}
