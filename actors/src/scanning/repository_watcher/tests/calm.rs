//! Polls while nothing moves: what the listing before said is not looked up again.

use super::*;
use crate::{
    scanning::repository_watcher::{RepositoryWatcherState, watched::Watched},
    supervision::directory::Doing,
};

/// Each idle repository keeps these. A watcher that owned its context would take 300 bytes more.
#[test]
fn an_idle_watcher_is_small() {
    let sizes = [size_of::<RepositoryWatcherState>(), size_of::<Watched>(), size_of::<Doing>()];
    let most = [288, 256, 24];
    assert!(sizes.iter().zip(most).all(|(size, most)| *size <= most), "{sizes:?} bytes, wanted {most:?}");
    let watching = |sources, in_line| Doing::Watching { sources, in_line }.to_string();
    assert_eq!(
        [watching(1, 0), watching(2, 0), watching(2, 1)],
        ["watching 1 source", "watching 2 sources", "1 of 2 sources in line"]
    );
}

/// Polls and fetches of the next `span`.
async fn counted(house: &House, span: Duration) -> (u64, u64) {
    let before = (house.git.polls(), house.git.fetches());
    tokio::time::sleep(span).await;
    (house.git.polls() - before.0, house.git.fetches() - before.1)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn the_same_listing_is_looked_up_in_the_rows_once_in_ten_minutes() {
    let (house, watch) = held().await;
    let changed = house.commit(&[("a", "2")]);
    house.until_held(&watch, changed).await;
    let known = house.git.known_answers();
    let (polls, fetches) = counted(&house, 120 * MINUTE).await;
    assert!(polls > 24, "{polls} polls in two hours");
    assert!((10..=14).contains(&fetches), "{fetches} of {polls} listings were looked up");
    let known = house.git.known_answers() - known;
    assert!(known + 14 >= polls, "{known} of {polls} answers were not read again");
    let moved = house.commit(&[("a", "3")]);
    let start = Instant::now();
    house.until_held(&watch, moved).await;
    assert!(start.elapsed() < 6 * MINUTE, "the next poll sees a commit, whatever the one before said");
}

/// Whether the next poll that its schedule makes looks its listing up.
async fn looks_up(house: &House) -> bool {
    let (polls, fetches) = (house.git.polls(), house.git.fetches());
    house.until("the next poll", async || house.git.polls() > polls).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    house.git.fetches() > fetches
}

#[tokio::test(start_paused = true)]
async fn another_answer_with_the_same_followed_refs_is_read_once_and_not_looked_up() {
    let (house, watch) = held().await;
    let changed = house.commit(&[("a", "2")]);
    house.until_held(&watch, changed).await;
    tokio::time::sleep(20 * MINUTE).await;
    house.poke(&watch).await;
    assert!(looks_up(&house).await, "a poke may have news");
    let known = house.git.known_answers();
    house.git.commit(&location(URL), "other", &[("b", "1")]);
    assert!(!looks_up(&house).await, "nobody follows that branch");
    assert_eq!(house.git.known_answers(), known, "other bytes are read");
    while looks_up(&house).await {}
    assert!(house.git.known_answers() > known, "and then they are known");
    let moved = house.commit(&[("a", "3")]);
    house.until_held(&watch, moved).await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_read_anew_are_compared_with_the_next_listing() {
    let (house, watch) = held().await;
    let changed = house.commit(&[("a", "2")]);
    house.until_held(&watch, changed).await;
    tokio::time::sleep(20 * MINUTE).await;
    let reload = async || house.handle().repository_changed(&watch.repository).await;
    while looks_up(&house).await {}
    reload().await;
    assert!(looks_up(&house).await, "the rows may ask for more");
    assert!(!looks_up(&house).await, "they did not");
    house.poke(&watch).await;
    assert!(looks_up(&house).await, "a poke may have news");
    assert!(!looks_up(&house).await);

    // Also where they were read while a scan was on its way.
    house.git.poll_takes(Duration::from_secs(10));
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    reload().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(looks_up(&house).await, "what the scan learnt is older than the rows");
}
