//! The protocol of leases and fences, checked exhaustively: every interleaving of replicas that ask,
//! are answered late, stall, crash and come back, on a clock that goes on meanwhile.
//!
//! The model has one shard, one cursor of some changes, one database and two replicas (three in the
//! long run, `TIDINGS_MODEL_REPLICAS`). A database step is atomic, as a transaction is; between asking
//! and that step, and between that step and its answer, anything may happen. Stalling is not a step of
//! its own: a replica that does nothing while others do is one.
//!
//! What it must show: never do two replicas believe that they own the shard; nothing is written under
//! an epoch that is over; the settled position never passes a change that did not arrive; changes
//! arrive for the first time in order. And that the model can tell: without the fence, or with a belief
//! that counts from the answer, one of these breaks. Not in it: releases, several questions at once, and
//! attempts that take time.

use std::time::Duration;

use stateright::{Checker, Model, Property};
use tidings_actors::ownership::leases::trusted_for;

/// How long a lease lives, in ticks.
const LIFE: u8 = 3;
/// The clock of the model ends here: time for two leases to expire.
const END: u8 = 6;
/// Changes of the cursor.
const CHANGES: u8 = 2;

/// A rule that is taken away to see that the model needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    /// No rule is taken away.
    Nothing,
    /// Writes do not test the epoch.
    Fence,
    /// Belief is counted from the answer, not from the question.
    Caution,
    /// A lane that was opened under an older lease goes on under a newer one.
    Epochs,
}

/// What the database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rows {
    owner: Option<u8>,
    epoch: u8,
    expires: u8,
    position: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Verb {
    Renew,
    Claim,
    /// The epoch and the position of a settlement.
    Settle(u8, u8),
}

/// A question on its way, and its answer once the database has done its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question {
    verb: Verb,
    asked: u8,
    /// The epoch that it has now; 0: refused.
    answer: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lane {
    epoch: u8,
    next: u8,
    settled: u8,
}

/// What one replica knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Mind {
    /// The epoch that it believes to hold, and until when.
    lease: Option<(u8, u8)>,
    lane: Option<Lane>,
    question: Option<Question>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    rows: Rows,
    minds: Vec<Mind>,
    /// How many changes the app has seen, from the first on.
    arrived: u8,
    /// A change came before one that precedes it.
    out_of_order: bool,
    /// A write under an epoch that was over took effect.
    zombie_wrote: bool,
    /// A write under an epoch that was over was refused.
    zombie_was_refused: bool,
    crashes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Tick,
    Ask(u8, Verb),
    /// The database does what was asked.
    Do(u8),
    /// The answer of the database arrives at this process.
    Hear(u8),
    /// The cursor is read and its lane opened.
    Open(u8),
    /// The next change arrives at the app.
    Send(u8),
    Crash(u8),
}

struct Protocol {
    replicas: u8,
    crashes: u8,
    without: Without,
}

impl Protocol {
    fn believes(&self, world: &World, replica: u8) -> Option<u8> {
        let (epoch, until) = world.minds[usize::from(replica)].lease?;
        (world.now < until).then_some(epoch)
    }

    fn lane_of(&self, world: &World, replica: u8) -> Option<Lane> {
        let epoch = self.believes(world, replica)?;
        let lane = world.minds[usize::from(replica)].lane?;
        (lane.epoch == epoch || self.without == Without::Epochs).then_some(lane)
    }

    /// What the database does with a question.
    fn execute(&self, world: &mut World, replica: u8, verb: Verb) -> u8 {
        let (now, rows) = (world.now, &mut world.rows);
        let is_owner = rows.owner == Some(replica);
        match verb {
            Verb::Renew if is_owner => {
                rows.expires = now + LIFE;
                rows.epoch
            }
            Verb::Claim if rows.owner.is_none() || rows.expires <= now => {
                *rows = Rows { owner: Some(replica), epoch: rows.epoch + 1, expires: now + LIFE, ..*rows };
                rows.epoch
            }
            Verb::Settle(epoch, position) => {
                let stands = is_owner && rows.epoch == epoch;
                if !stands && self.without != Without::Fence {
                    world.zombie_was_refused = true;
                    return 0;
                }
                world.zombie_wrote |= !stands;
                // Positions are absolute: who settles what is settled already changes nothing.
                rows.position = if stands { rows.position.max(position) } else { position };
                rows.epoch
            }
            Verb::Renew | Verb::Claim => 0,
        }
    }

    fn hear(&self, world: &mut World, replica: u8) {
        let now = world.now;
        let mind = &mut world.minds[usize::from(replica)];
        let Some(Question { verb, asked, answer: Some(epoch) }) = mind.question.take() else { return };
        match verb {
            Verb::Renew | Verb::Claim if epoch > 0 => {
                let from = if self.without == Without::Caution { now } else { asked };
                let trusted = trusted_for(Duration::from_secs(u64::from(LIFE))).as_secs();
                mind.lease = Some((epoch, from + u8::try_from(trusted).expect("some ticks")));
            }
            Verb::Renew => mind.lease = None,
            Verb::Settle(..) if epoch == 0 => mind.lane = None,
            Verb::Settle(_, position) => {
                if let Some(lane) = &mut mind.lane {
                    lane.settled = lane.settled.max(position);
                }
            }
            Verb::Claim => {}
        }
        let held = mind.lease.map(|(epoch, _)| epoch);
        if self.without != Without::Epochs {
            mind.lane = mind.lane.filter(|lane| Some(lane.epoch) == held);
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            now: 0,
            rows: Rows { owner: None, epoch: 0, expires: 0, position: 0 },
            minds: vec![Mind::default(); usize::from(self.replicas)],
            arrived: 0,
            out_of_order: false,
            zombie_wrote: false,
            zombie_was_refused: false,
            crashes: 0,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.now < END {
            steps.push(Step::Tick);
        }
        for replica in 0..self.replicas {
            let mind = &world.minds[usize::from(replica)];
            match mind.question {
                Some(Question { answer: None, .. }) => steps.push(Step::Do(replica)),
                Some(_) => steps.push(Step::Hear(replica)),
                None => {
                    steps.push(Step::Ask(
                        replica,
                        if mind.lease.is_some() { Verb::Renew } else { Verb::Claim },
                    ));
                    if let Some(lane) = mind.lane.filter(|lane| lane.next > lane.settled) {
                        steps.push(Step::Ask(replica, Verb::Settle(lane.epoch, lane.next)));
                    }
                }
            }
            if self.believes(world, replica).is_some() && mind.lane.is_none() {
                steps.push(Step::Open(replica));
            }
            if self.lane_of(world, replica).is_some_and(|lane| lane.next < CHANGES) {
                steps.push(Step::Send(replica));
            }
            if world.crashes < self.crashes && *mind != Mind::default() {
                steps.push(Step::Crash(replica));
            }
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Tick => world.now += 1,
            Step::Ask(replica, verb) => {
                // When a settlement was asked for matters to nobody.
                let asked = if matches!(verb, Verb::Settle(..)) { 0 } else { world.now };
                world.minds[usize::from(replica)].question = Some(Question { verb, asked, answer: None });
            }
            Step::Do(replica) => {
                let verb = world.minds[usize::from(replica)].question?.verb;
                let answer = self.execute(&mut world, replica, verb);
                world.minds[usize::from(replica)].question.as_mut()?.answer = Some(answer);
            }
            Step::Hear(replica) => self.hear(&mut world, replica),
            Step::Open(replica) => {
                let epoch = self.believes(&world, replica)?;
                let next = world.rows.position;
                world.minds[usize::from(replica)].lane = Some(Lane { epoch, next, settled: next });
            }
            Step::Send(replica) => {
                let lane = world.minds[usize::from(replica)].lane.as_mut()?;
                let change = lane.next;
                lane.next += 1;
                world.out_of_order |= change > world.arrived;
                world.arrived = world.arrived.max(change + 1);
            }
            Step::Crash(replica) => {
                // What it asked may still be done; nobody hears the answer.
                let question = world.minds[usize::from(replica)].question;
                if let Some(Question { verb, answer: None, .. }) = question {
                    self.execute(&mut world, replica, verb);
                }
                world.minds[usize::from(replica)] = Mind::default();
                world.crashes += 1;
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most one believes that it owns the shard", |model: &Self, world| {
                (0..model.replicas).filter(|replica| model.believes(world, *replica).is_some()).count() <= 1
            }),
            Property::always("nothing is written under an epoch that is over", |_, world: &World| {
                !world.zombie_wrote
            }),
            Property::always("nothing is settled that did not arrive", |_, world: &World| {
                world.rows.position <= world.arrived
            }),
            Property::always("changes arrive in order", |_, world: &World| !world.out_of_order),
            Property::sometimes("everything is settled by the second owner", |_, world: &World| {
                world.rows.epoch > 1 && world.rows.position == CHANGES
            }),
            Property::sometimes("a late write is refused", |_, world: &World| world.zombie_was_refused),
        ]
    }
}

#[expect(clippy::disallowed_methods, reason = "models have no settings file; this is their dial")]
fn setting(name: &str, default: u8) -> u8 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn check(without: Without) -> impl Checker<Protocol> {
    let replicas = setting("TIDINGS_MODEL_REPLICAS", 2);
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    Protocol { replicas, crashes: 1, without }.checker().threads(threads).spawn_bfs().join()
}

#[test]
fn leases_and_fences_hold_in_every_interleaving() {
    let checker = check(Without::Nothing);
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn without_the_fence_a_late_write_takes_effect() {
    let checker = check(Without::Fence);
    checker.assert_any_discovery("nothing is written under an epoch that is over");
}

#[test]
fn belief_that_counts_from_the_answer_lets_two_own_the_shard() {
    let checker = check(Without::Caution);
    checker.assert_any_discovery("at most one believes that it owns the shard");
}

#[test]
fn a_lane_that_outlives_its_lease_writes_under_an_epoch_that_is_over() {
    let checker = check(Without::Epochs);
    // The fence still holds: what breaks is nothing that an app could see.
    checker.assert_no_discovery("nothing is settled that did not arrive");
    checker.assert_no_discovery("nothing is written under an epoch that is over");
}
