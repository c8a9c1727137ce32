//! The tasks of a watch, checked exhaustively: every interleaving of one cursor with a small window, its
//! workers, two lanes of which one may be stale, and people who pause, resync, unwatch and restore.
//!
//! The model has one database whose steps are atomic, as a transaction is, and three changes per round, each of
//! which becomes a task, or all of which become one. A lane remembers what it read when it was opened, so
//! anything may happen before its next step. A worker remembers each token and may use it at any later moment. The clock is not in the
//! model: a claim may run out at any moment.
//!
//! What it must show are invariants 2 to 6 of tasks: no position passes a change that has not ended; a cursor
//! has at most `WINDOW` unfinished tasks; a commit that was overtaken before its round was planned costs no
//! task; a stale token changes nothing; n attempts are n claims. And that it can tell: without each rule that
//! [`Without`] names, a property breaks.

mod task_model {
    mod steps;
    pub(crate) mod world;
}

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};
use task_model::world::{CHANGES, Protocol, Step, WINDOW, Without, World};

/// What the worlds must show to be possible.
const REACHED: [&str; 5] = [
    "a takeover ends with everything settled",
    "a stale token is refused",
    "a late completion is answered from the ranges",
    "a block ends",
    "a flagged claim ends and a round follows",
];

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.progress(world, steps);
        self.troubles(world, steps);
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        self.take(&mut world, step);
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no position passes a change that has not ended", |_, world: &World| {
                world.rows.open.as_ref().is_none_or(|round| {
                    (0..CHANGES).all(|place| {
                        !round.settled.holds(place) || world.rows.ended.contains(&(round.number, place))
                    })
                })
            }),
            Property::always("at most a window of tasks is unfinished", |_, world: &World| {
                world.rows.tasks.len() as u64 <= WINDOW
            }),
            Property::always("an overtaken commit costs no task", |_, world: &World| !world.wasted),
            Property::always("a stale token changes nothing", |_, world: &World| !world.stale_moved),
            Property::always("n attempts are n claims", |_, world: &World| !world.miscounted),
            Property::always("a change ends once", |_, world: &World| !world.ended_twice),
            Property::always("creates wait for deletes", |_, world: &World| !world.out_of_order),
            Property::always("tasks of two rounds never meet", |_, world: &World| {
                let rounds = world.rows.tasks.iter().map(|task| task.round);
                rounds.clone().min() == rounds.max()
            }),
            Property::always("nothing is left after unwatch", |_, world: &World| {
                world.rows.is_watched || world.rows.tasks.is_empty()
            }),
            Property::always("a completion that is repeated is confirmed", |_, world: &World| {
                !world.forgotten
            }),
            Property::always("only the oldest task of a blocked cursor is claimed", |_, world: &World| {
                !world.broke_block
            }),
            Property::always("nothing of a paused watch is claimed", |_, world: &World| !world.broke_pause),
            Property::always("what is pending has a next step", |model: &Self, world: &World| {
                let mut steps = Vec::new();
                model.progress(world, &mut steps);
                world.rests() || !steps.is_empty()
            }),
            Property::sometimes("a takeover ends with everything settled", |_, world: &World| {
                world.rows.epoch > 1 && world.rows.held.is_some()
            }),
            Property::sometimes("a stale token is refused", |_, world: &World| world.stale_refused),
            Property::sometimes("a late completion is answered from the ranges", |_, world: &World| {
                world.confirmed
            }),
            Property::sometimes("a block ends", |_, world: &World| world.unblocked),
            Property::sometimes("a flagged claim ends and a round follows", |_, world: &World| {
                world.flag_ended && world.rows.held.is_some()
            }),
        ]
    }
}

#[expect(clippy::disallowed_methods, reason = "models have no settings file; this is their dial")]
fn setting(name: &str, default: u8) -> u8 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// One attempt a task, a delete in each round, and two troubles in every order.
fn troubled(without: Without) -> Protocol {
    let troubles = setting("TIDINGS_MODEL_TROUBLES", 2);
    Protocol {
        troubles,
        attempts: 1,
        heads: setting("TIDINGS_MODEL_HEADS", 1),
        deletes: 1,
        reopens: false,
        per_round: false,
        without,
    }
}

/// Two attempts a task, no deletes, and one trouble.
fn retried(without: Without) -> Protocol {
    let attempts = setting("TIDINGS_MODEL_ATTEMPTS", 2);
    Protocol {
        troubles: 1,
        attempts,
        heads: setting("TIDINGS_MODEL_HEADS", 1),
        deletes: 0,
        reopens: false,
        per_round: false,
        without,
    }
}

/// Lanes that are opened again while the last step of their former life is on its way, and one trouble.
fn reopened(without: Without) -> Protocol {
    Protocol { troubles: 1, reopens: true, ..troubled(without) }
}

/// One task a round, two attempts, and two troubles in every order.
fn of_rounds(without: Without) -> Protocol {
    Protocol { troubles: setting("TIDINGS_MODEL_TROUBLES", 2), per_round: true, ..retried(without) }
}

fn check(protocol: Protocol, until: HasDiscoveries) -> impl Checker<Protocol> {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let checker = protocol.checker().threads(threads).finish_when(until).spawn_bfs().join();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    checker
}

fn breaks(protocol: Protocol, property: &'static str) {
    check(protocol, HasDiscoveries::AnyOf([property].into())).assert_any_discovery(property);
}

/// No property fails, and each state that must be reachable is reached by one of the worlds.
#[test]
fn tasks_of_a_watch_hold_in_every_interleaving() {
    let troubled = check(troubled(Without::Nothing), HasDiscoveries::AnyFailures);
    let retried = check(retried(Without::Nothing), HasDiscoveries::AnyFailures);
    let reopened = check(reopened(Without::Nothing), HasDiscoveries::AnyFailures);
    let of_rounds = check(of_rounds(Without::Nothing), HasDiscoveries::AnyFailures);
    let found =
        [troubled.discoveries(), retried.discoveries(), reopened.discoveries(), of_rounds.discoveries()];
    let reached: BTreeSet<&str> = found.into_iter().flat_map(|one| one.into_keys()).collect();
    let expected: BTreeSet<&str> = REACHED.into();
    assert_eq!(reached, expected, "a discovery beyond these is a property that fails");
}

#[test]
fn without_ranges_a_position_passes_a_change_that_has_not_ended() {
    breaks(troubled(Without::Ranges), "no position passes a change that has not ended");
}

#[test]
fn a_window_that_counts_only_ready_tasks_is_passed() {
    breaks(retried(Without::Window), "at most a window of tasks is unfinished");
}

#[test]
fn a_round_of_a_stale_plan_wastes_work() {
    breaks(Protocol { heads: 2, ..reopened(Without::Plan) }, "an overtaken commit costs no task");
}

#[test]
fn without_the_bits_of_a_claim_a_stale_worker_ends_a_task() {
    breaks(retried(Without::Bits), "a stale token changes nothing");
}

#[test]
fn a_restore_that_keeps_claims_lets_a_worker_of_before_end_a_task() {
    breaks(troubled(Without::Voiding), "a stale token changes nothing");
}

#[test]
fn a_pause_that_forgets_attempts_gives_more_claims_than_n() {
    breaks(retried(Without::Attempts), "n attempts are n claims");
}

#[test]
fn without_the_wait_for_deletes_a_create_overtakes_one() {
    breaks(troubled(Without::Deletes), "creates wait for deletes");
}

#[test]
fn a_round_that_does_not_wait_for_claims_meets_tasks_of_the_round_before() {
    breaks(troubled(Without::Claims), "tasks of two rounds never meet");
}

#[test]
fn a_hand_over_without_the_fence_goes_on_under_an_open_round_of_another_lane() {
    // The place of a task is unique and the round is checked, so a stale lane can hand over only what the
    // other lane would hand over: nothing that a worker could see breaks.
    let checker = check(reopened(Without::Fence), HasDiscoveries::AnyFailures);
    checker.assert_no_discovery("a change ends once");
    checker.assert_no_discovery("at most a window of tasks is unfinished");
}

#[test]
fn a_hand_over_that_does_not_look_at_the_round_leaves_tasks_behind() {
    breaks(reopened(Without::Round), "tasks of two rounds never meet");
}

#[test]
fn an_unwatch_that_leaves_rows_leaves_tasks() {
    breaks(troubled(Without::Removal), "nothing is left after unwatch");
}

#[test]
fn without_the_ranges_a_repeated_completion_is_refused() {
    breaks(troubled(Without::Confirmation), "a completion that is repeated is confirmed");
}

#[test]
fn a_task_that_comes_back_during_a_pause_is_claimed_unless_it_is_set_aside() {
    breaks(retried(Without::Return), "nothing of a paused watch is claimed");
}

#[test]
fn a_block_that_sets_every_task_aside_never_ends() {
    breaks(troubled(Without::Oldest), "what is pending has a next step");
}

#[test]
fn the_one_task_of_a_round_that_settles_one_change_leaves_the_round_open() {
    breaks(of_rounds(Without::Whole), "what is pending has a next step");
}

#[test]
fn a_round_of_one_task_that_does_not_wait_for_its_claim_meets_the_task_of_the_round_before() {
    breaks(of_rounds(Without::Claims), "tasks of two rounds never meet");
}
