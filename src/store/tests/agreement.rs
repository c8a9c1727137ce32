//! The store in memory, which the tests of actors believe, says what SQLite says, whatever is done to both.
//!
//! `TIDINGS_STORY_SEED=7` walks one seed, `TIDINGS_STORY_SEEDS=2000` that many.

use std::sync::Arc;

use tidings_actors::{
    testing::{ManualClock, MemoryStore, store_contract::two_stores_agree},
    time::Timestamp,
};

use super::Home;

/// Walks, unless the environment says otherwise.
const SEEDS: u64 = 8;
/// Steps of a walk.
const STEPS: u32 = 120;

#[expect(clippy::disallowed_methods, reason = "tests have no settings file; these are their dials")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[tokio::test]
async fn the_store_in_memory_agrees_with_sqlite_after_every_step() {
    let seeds = match number("TIDINGS_STORY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDINGS_STORY_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let home = Home::file();
        let store = home.open(1).await.expect("opened");
        let memory = MemoryStore::new(Arc::new(ManualClock::new(Timestamp(3000))));
        two_stores_agree(&memory, &store, seed, STEPS).await;
    }
}
