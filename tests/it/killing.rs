//! The kill story: SIGKILL at random moments while commits arrive and the receiver misbehaves.
//! Nothing is lost, the order holds, and what repeats is the same and little.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    api::App,
    churn::{BETWEEN_COMMITS, Churn},
    dice::Dice,
    model::Arrival,
    patience::SOON,
    project::Project,
    server::Server,
    setting,
    subscriber::{Answer, Subscriber},
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 100;
/// The longest life between two kills.
const LIFE: Duration = Duration::from_millis(1_200);

#[test]
fn a_hundred_kills_lose_nothing_keep_the_order_and_repeat_little() {
    let kills = setting("TIDINGS_STORY_KILLS").unwrap_or(KILLS);
    let mut dice = Dice::thrown("killing");
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let projects = [Project::new(), Project::new()];
    let churns: Vec<Churn> = projects.iter().map(|project| Churn::begin(project, 150)).collect();
    misbehave(&subscriber, dice.number());
    let ids: Vec<String> = projects.iter().map(|project| app.watch(&server, project)).collect();

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (project, mut churn) in projects.iter().zip(churns) {
            let (over, mut dice) = (&over, Dice::of(dice.number()));
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    churn.commit(project, &mut dice);
                    thread::sleep(dice.up_to(BETWEEN_COMMITS));
                }
            });
        }
        // The committers must end with the story, also when it fails.
        let _end = SetAtEnd(&over);
        for _ in 0..kills {
            thread::sleep(dice.up_to(LIFE));
            server.kill();
            subscriber.model().note_kill();
            subscriber.assert_faultless();
            server.spawn();
        }
    });
    server.kill();
    subscriber.model().note_kill();
    subscriber.accept_all();
    server.run();

    for (project, id) in projects.iter().zip(&ids) {
        let head = project.head();
        subscriber.wait_for_tree(id, &project.tree(&head));
        app.wait_until_held(&server, id, &head);
    }
    subscriber.assert_straight();
    let trees_match = |project: &Project, id: &str| {
        let model = subscriber.model();
        let finished: Vec<_> =
            model.finished.iter().filter(|round| round.repository == id).cloned().collect();
        drop(model);
        for round in &finished {
            assert!(
                round.tree == project.tree(&round.commit),
                "the mirror after {} is another tree",
                round.commit
            );
        }
        finished.len()
    };
    let rounds: usize = projects.iter().zip(&ids).map(|(project, id)| trees_match(project, id)).sum();
    assert!(app.dead_letters(&server).is_empty());
    let model = subscriber.model();
    println!(
        "{kills} kills: {} requests, {} changes, {rounds} rounds, {} repeats",
        model.requests,
        model.applied.len(),
        model.repeats
    );
    assert!(rounds as u64 >= kills / 10, "so few rounds prove nothing: {rounds}");
}

#[test]
fn a_kill_before_every_answer_still_gets_through() {
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]);
    let mut gate = subscriber.hold_after(1);
    let id = app.watch(&server, &project);

    // Each life gets one acknowledgement further, at most: the second one never comes in time.
    let began = Instant::now();
    while subscriber.mirror(&id).len() < 4 {
        assert!(began.elapsed() < SOON, "only {:?}", subscriber.applied());
        let before = gate.arrived();
        if subscriber.mirror(&id).len() < 4 {
            crate::support::patience::eventually("attempt at the gate", SOON, || {
                (gate.arrived() > before || subscriber.mirror(&id).len() == 4).then_some(())
            });
        }
        server.kill();
        subscriber.model().note_kill();
        gate.open();
        gate = subscriber.hold_after(1);
        server.run();
    }
    subscriber.accept_all();
    gate.open();
    app.wait_until_held(&server, &id, &project.head());
    subscriber.assert_straight();
}

/// Delays, resets, answers that never come, 5xx.
fn misbehave(subscriber: &Subscriber, seed: u64) {
    let mut dice = Dice::of(seed);
    subscriber.reset_one_in(50);
    subscriber.script(move |_: &Arrival| match dice.below(100) {
        0..=1 => Answer::Vanish,
        2..=3 => Answer::AcceptAndVanish,
        4..=5 => Answer::Refuse(503),
        6..=7 => Answer::Refuse(500),
        8..=27 => Answer::AcceptAfter(dice.up_to(Duration::from_millis(30))),
        _ => Answer::Accept,
    });
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
