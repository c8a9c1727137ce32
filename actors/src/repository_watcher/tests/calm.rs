//! Polls while nothing moves: what the listing before said is not looked up again.

use super::*;

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
    let (polls, fetches) = counted(&house, 120 * MINUTE).await;
    assert!(polls > 24, "{polls} polls in two hours");
    assert!((10..=14).contains(&fetches), "{fetches} of {polls} listings were looked up");
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
    assert!(looks_up(&house).await, "whoever pokes may know more");
    assert!(!looks_up(&house).await);

    // Also where they were read while a scan was on its way.
    house.git.poll_takes(Duration::from_secs(10));
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    reload().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(looks_up(&house).await, "what the scan learnt is older than the rows");
}
