//! The fuzzer: five apps on one server, and everything that people, Git hosts, receivers and the system
//! do, at random from a seed. At each rest every receiver has the files of its branches, but for paths
//! with an open dead letter. In the end the receivers are well, everything is redriven, and nothing but
//! the files is left.
//!
//! `TIDINGS_STORY_SEED=7` plays one seed, `TIDINGS_STORY_SEEDS=200` that many. A failure prints its seed
//! and what happened. The verbs follow from the seed; when each of them meets the server does not.
//! `TIDINGS_STORY_KILL_ONE_IN=15` adds kills: before each verb the server dies with that chance.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::support::{length, setting};

mod branches;
mod receivers;
mod rest;
mod verbs;
mod world;

use world::World;

/// Verbs of a seed, unless `TIDINGS_STORY_STEPS` says otherwise.
const STEPS: u64 = 80;
/// Each verb of replicas that hear no notification takes longer to be noticed.
const STEPS_OF_REPLICAS: u64 = 40;
/// How long a replica's lease lives.
const LEASE: Duration = Duration::from_secs(3);

/// The seeds that the suite plays.
const SEEDS: &[u64] = &[1, 2, 3];
/// The same of replicas.
const SEEDS_OF_REPLICAS: &[u64] = &[1];

/// Plays the seeds that are asked for, or `known`; all of them, whatever the first ones find.
fn play(known: &[u64], steps: u64, begin: impl Fn(u64) -> Option<World>) {
    let asked = match (setting("TIDINGS_STORY_SEED"), setting("TIDINGS_STORY_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (1..=count).collect(),
        (None, None) => known.to_vec(),
    };
    let steps = length("TIDINGS_STORY_STEPS", steps, steps / 2);
    let kill_one_in = setting("TIDINGS_STORY_KILL_ONE_IN");
    let (mut failed, mut kills) = (Vec::new(), 0);
    for seed in &asked {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let Some(mut world) = begin(*seed) else { return 0 };
            for _ in 0..steps {
                if kill_one_in.is_some_and(|chance| world.dice.one_in(chance)) {
                    world.kill();
                }
                world.step();
            }
            world.end();
            world.kills
        }));
        match played {
            Ok(of_this) => kills += of_this,
            Err(_) => {
                println!("TIDINGS_STORY_SEED={seed} failed");
                failed.push(*seed);
            }
        }
    }
    println!("{} seeds, {kills} kills", asked.len());
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}

#[test]
fn after_random_mishaps_of_one_server_each_receiver_has_the_files_or_a_letter() {
    play(SEEDS, STEPS, |seed| Some(World::of_one_server(seed)));
}

#[test]
fn after_random_mishaps_of_replicas_that_hear_nothing_each_receiver_has_the_files_or_a_letter() {
    play(SEEDS_OF_REPLICAS, STEPS_OF_REPLICAS, |seed| World::of_replicas(seed, LEASE));
}
