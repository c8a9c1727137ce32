//! Several servers on one PostgreSQL database: they share the work, and whoever dies is followed within the
//! life of a lease and two seconds, in mid-round, with the same ids and in order.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    api::App,
    churn::{BETWEEN_COMMITS, Churn},
    dice::Dice,
    fleet::Fleet,
    patience::{SOON, eventually},
    project::Project,
    setting,
    subscriber::Subscriber,
};

/// Mishaps, unless `TIDINGS_STORY_MISHAPS` says otherwise.
const MISHAPS: u64 = 8;

/// How long a lease of these stories lives.
const LEASE: Duration = Duration::from_secs(3);
/// What another replica may take beyond it.
const TAKEOVER: Duration = Duration::from_secs(2);

/// A project with so many files.
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
    let Some(mut fleet) = Fleet::start(2, LEASE) else { return };
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
    println!("taken over after {took:?} of a lease of {LEASE:?}");
    assert!(took <= LEASE + TAKEOVER, "{took:?}");
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
    let Some(mut fleet) = Fleet::start(2, Duration::from_secs(60)) else { return };
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
    let Some(mut fleet) = Fleet::start(1, Duration::from_secs(60)) else { return };
    let before = fleet.id(0);
    fleet.servers[0].kill();
    fleet.servers[0].run();
    fleet.wait_until_shared(1);
    assert_ne!(fleet.id(0), before);
}

/// What befalls a replica.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// SIGKILL.
    Killed,
    /// SIGTERM.
    Stopped,
    /// SIGSTOP for longer than its leases live, then SIGCONT.
    Frozen,
    /// Nothing gets through to the database and back, for as long.
    CutOff,
}

impl Mishap {
    const ALL: [Self; 4] = [Self::Killed, Self::Stopped, Self::Frozen, Self::CutOff];

    /// It happens to a replica, the others take over, and it is well again.
    fn befall(self, fleet: &mut Fleet, index: usize, subscriber: &Subscriber) -> Duration {
        let (id, others) = (fleet.id(index), fleet.servers.len() - 1);
        let began = Instant::now();
        match self {
            Self::Killed => fleet.servers[index].kill(),
            Self::Stopped => assert!(fleet.servers[index].terminate().0.success()),
            Self::Frozen => fleet.servers[index].signal(Signal::STOP),
            Self::CutOff => fleet.cables[index].cut(true),
        }
        let took = eventually("takeover", SOON, || {
            // What it still sends while it may, another sends again when it may not any more.
            subscriber.model().note_kill();
            let held = fleet.holdings();
            let is_over = held.iter().all(|(owner, _)| *owner != id);
            let all = held.iter().map(|(_, shards)| shards).sum::<i64>() == 256;
            (is_over && all && held.len() == others).then(|| began.elapsed())
        });
        match self {
            Self::Killed | Self::Stopped => fleet.servers[index].run(),
            Self::Frozen => fleet.servers[index].signal(Signal::CONT),
            Self::CutOff => fleet.cables[index].cut(false),
        }
        fleet.wait_until_shared(others + 1);
        took
    }
}

#[test]
fn whatever_befalls_one_of_three_replicas_nothing_is_lost_and_the_order_holds() {
    let mishaps = setting("TIDINGS_STORY_MISHAPS").unwrap_or(MISHAPS);
    let mut dice = Dice::thrown("mishaps of replicas");
    let Some(mut fleet) = Fleet::start(3, LEASE) else { return };
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let projects: Vec<Project> = (0..6).map(|_| Project::new()).collect();
    let churns: Vec<Churn> = projects.iter().map(|project| Churn::begin(project, 30)).collect();
    let ids: Vec<String> = projects
        .iter()
        .enumerate()
        .map(|(index, project)| app.watch(&fleet.servers[index % 3], project))
        .collect();
    let over = AtomicBool::new(false);
    let mut longest = Duration::ZERO;
    thread::scope(|scope| {
        for (project, mut churn) in projects.iter().zip(churns) {
            let (over, mut dice) = (&over, Dice::of(dice.number()));
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    churn.commit(project, &mut dice);
                    thread::sleep(dice.up_to(BETWEEN_COMMITS * 4));
                }
            });
        }
        // The committers must end with the story, also when it fails.
        let _end = SetAtEnd(&over);
        for number in 0..mishaps {
            let mishap = Mishap::ALL[usize::try_from(number % 4).expect("four")];
            let index = usize::try_from(dice.below(3)).expect("three");
            let took = mishap.befall(&mut fleet, index, &subscriber);
            println!("{mishap:?}: taken over after {took:?}");
            assert!(took <= LEASE + TAKEOVER, "{mishap:?}: {took:?} of a lease of {LEASE:?}");
            longest = longest.max(took);
            subscriber.assert_faultless();
        }
    });
    for (project, id) in projects.iter().zip(&ids) {
        let head = project.head();
        app.wait_until_held(&fleet.servers[1], id, &head);
        subscriber.wait_for_tree(id, &project.tree(&head));
    }
    subscriber.assert_straight();
    assert!(app.dead_letters(&fleet.servers[2]).is_empty());
    let model = subscriber.model();
    println!(
        "{mishaps} mishaps: {} requests, {} changes, {} repeats, the longest takeover {longest:?}",
        model.requests,
        model.applied.len(),
        model.repeats
    );
    assert!(model.applied.len() as u64 > mishaps * 20, "so little delivered proves nothing");
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
