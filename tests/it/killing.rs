//! The kill story: SIGKILL at random moments while commits arrive and the receiver misbehaves.
//! Nothing is lost, the order holds, and what repeats is the same and little.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    api::{App, is_settled},
    churn::{BETWEEN_COMMITS, Churn},
    dice::Dice,
    length,
    model::{Arrival, Model},
    patience::{SOON, SetAtEnd, eventually},
    project::Project,
    server::Server,
    subscriber::{Answer, Subscriber},
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 100;
/// The same for what is told beside the main story.
const KILLS_FEW: u64 = 25;
/// Both of a short story: enough that some batches are taken in part.
const KILLS_SHORT: u64 = 16;
/// Most changes of a batch.
const BATCH: usize = 32;
/// The longest life between two kills.
const LIFE: Duration = Duration::from_millis(900);
/// The same in starts of the server: a busy machine starts it more slowly, and some lives must get to their work.
const LIFE_IN_STARTS: u32 = 4;

#[test]
fn a_hundred_kills_lose_nothing_keep_the_order_and_repeat_little() {
    let kills = length("TIDINGS_STORY_KILLS", KILLS, KILLS_SHORT);
    let storm = Storm { kills, delivery: json!({}), watch: json!({}) };
    storm.rage("killing");
}

#[test]
fn phased_lanes_lose_nothing_either_and_stay_within_their_window() {
    let kills = length("TIDINGS_STORY_KILLS", KILLS_FEW, KILLS_SHORT);
    let storm =
        Storm { kills, delivery: json!({ "order": "phased", "max_in_flight": 16 }), watch: json!({}) };
    storm.rage("killing phased lanes");
}

#[test]
fn batches_lose_nothing_and_repeat_one_of_them_at_most() {
    let kills = length("TIDINGS_STORY_KILLS", KILLS_FEW, KILLS_SHORT);
    let batch = json!({ "count": BATCH, "linger_ms": 5 });
    let storm = Storm { kills, delivery: json!({ "batch": batch }), watch: json!({}) };
    let (_projects, _ids, subscriber) = storm.rage("killing batches");
    let (batches, in_part) = subscriber.model().batches;
    println!("{batches} batches, {in_part} of them taken in part");
    assert!(batches > kills / 2 && in_part > 0, "{batches} batches, {in_part} in part prove nothing");
}

#[test]
fn in_every_mode_each_commit_comes_once_and_in_order_over_kills() {
    let kills = length("TIDINGS_STORY_KILLS", KILLS_FEW, KILLS_SHORT);
    let storm = Storm { kills, delivery: json!({}), watch: json!({ "mode": "every" }) };
    let (projects, ids, subscriber) = storm.rage("killing in every mode");
    let model = subscriber.model();
    for (project, id) in projects.iter().zip(&ids) {
        let of_this = model.finished.iter().filter(|round| round.repository == *id);
        let told: Vec<&str> = of_this.map(|round| round.commit.as_str()).collect();
        let log = project.git(["log", "--first-parent", "--reverse", "--format=%H %T"]);
        let mut commits: Vec<(&str, &str)> = log.lines().filter_map(|line| line.split_once(' ')).collect();
        // A commit that changes nothing has no round.
        commits.dedup_by(|next, before| next.1 == before.1);
        let from =
            commits.iter().position(|(commit, _)| Some(commit) == told.first()).expect("a known commit");
        let expected: Vec<&str> = commits[from..].iter().map(|(commit, _)| *commit).collect();
        assert_eq!(told, expected);
    }
}

/// Kills while two projects change and the receiver misbehaves.
struct Storm {
    kills: u64,
    /// Delivery settings of the app.
    delivery: Value,
    /// More fields of each watch.
    watch: Value,
}

impl Storm {
    fn rage(&self, story: &str) -> ([Project; 2], Vec<String>, Subscriber) {
        let mut dice = Dice::thrown(story);
        let subscriber = Subscriber::start();
        subscriber.model().phased = self.delivery["order"] == "phased";
        subscriber.model().batch_max =
            self.delivery["batch"]["count"].as_u64().and_then(|count| usize::try_from(count).ok());
        let began = Instant::now();
        let mut server = Server::start();
        let life = LIFE.max(began.elapsed() * LIFE_IN_STARTS);
        let app = App::onboard_with(&server, &subscriber, &json!({ "delivery": self.delivery }));
        let projects = [Project::new(), Project::new()];
        let churns: Vec<Churn> = projects.iter().map(|project| Churn::begin(project, 150)).collect();
        misbehave(&subscriber, dice.number());
        let ids: Vec<String> = projects
            .iter()
            .map(|project| {
                let mut body = self.watch.clone();
                body["url"] = json!(project.url());
                app.watch_with(&server, &body)
            })
            .collect();

        self.kill_while_they_commit(&mut server, &subscriber, (&projects[..], churns), life, &mut dice);
        subscriber.accept_all();
        server.run();

        for (project, id) in projects.iter().zip(&ids) {
            let head = project.head();
            // What is left over from all lives may take a busy machine some minutes.
            eventually("the last commit", 5 * SOON, || {
                is_settled(&app.repository(&server, id), &head).then_some(())
            });
            app.wait_until_held(&server, id, &head);
            subscriber.wait_for_tree(id, &project.tree(&head));
        }
        subscriber.assert_straight();
        assert!(app.dead_letters(&server).is_empty());
        self.assert_trees_after_each_round(&subscriber, &projects, &ids);
        (projects, ids, subscriber)
    }

    fn kill_while_they_commit(
        &self,
        server: &mut Server,
        subscriber: &Subscriber,
        (projects, churns): (&[Project], Vec<Churn>),
        life: Duration,
        dice: &mut Dice,
    ) {
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
            // On a busy machine few rounds end between two kills. The kills then go on, up to four times as many.
            for killed in 0..self.kills * 4 {
                if killed >= self.kills && self.says_something(&subscriber.model()) {
                    break;
                }
                thread::sleep(dice.up_to(life));
                server.kill();
                subscriber.model().note_kill();
                subscriber.assert_faultless();
                server.spawn();
            }
        });
        server.kill();
        subscriber.model().note_kill();
    }

    fn assert_trees_after_each_round(&self, subscriber: &Subscriber, projects: &[Project], ids: &[String]) {
        let model = subscriber.model();
        for round in &model.finished {
            let project = ids.iter().position(|id| *id == round.repository).expect("one of the watches");
            let tree = projects[project].tree(&round.commit);
            assert!(round.tree == tree, "the mirror after {} is another tree", round.commit);
        }
        println!(
            "{} kills: {} requests, {} changes, {} rounds, {} repeats",
            self.kills,
            model.requests,
            model.applied.len(),
            model.finished.len(),
            model.repeats
        );
        assert!(model.finished.len() as u64 >= self.rounds_least(), "so few rounds prove nothing");
    }

    /// Whether enough rounds ended, and batches were taken in part where there are some.
    fn says_something(&self, model: &Model) -> bool {
        let (batches, in_part) = model.batches;
        let are_in_part = self.delivery["batch"].is_null() || batches > self.kills / 2 && in_part > 0;
        model.finished.len() as u64 >= self.rounds_least() && are_in_part
    }

    /// How many rounds must end for the story to say something.
    fn rounds_least(&self) -> u64 {
        (self.kills / 10).max(1)
    }
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
        assert!(began.elapsed() < 4 * SOON, "only {:?}", subscriber.applied());
        // Each life has a gate of its own, and may have come to it before it was looked at.
        eventually("attempt at the gate", SOON, || {
            (gate.arrived() > 0 || subscriber.mirror(&id).len() == 4).then_some(())
        });
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

/// Delays, resets, answers that never come, 5xx, and each sixth batch taken in part.
fn misbehave(subscriber: &Subscriber, seed: u64) {
    let mut dice = Dice::of(seed);
    // Counted instead of thrown: a short story on a busy machine has few batches, and some must be taken in part.
    let mut batches = 0_u64;
    subscriber.reset_one_in(50);
    subscriber.script(move |arrival: &Arrival| {
        if let Arrival::Batch(changes) = arrival {
            batches += 1;
            if batches.is_multiple_of(6) {
                return Answer::Each(changes.iter().map(|_| !dice.one_in(4)).collect());
            }
        }
        match dice.below(100) {
            0..=1 => Answer::Vanish,
            2..=3 => Answer::AcceptAndVanish,
            4..=5 => Answer::Refuse(503),
            6..=7 => Answer::Refuse(500),
            8..=27 => Answer::AcceptAfter(dice.up_to(Duration::from_millis(30))),
            _ => Answer::Accept,
        }
    });
}
