//! When a source is polled, over hours of paused time: research/git-cdc.md 6, requirements 3 and 4.

use super::*;
use crate::{ports::WatchStore, signals::polls::Polled, time::Timestamp};

/// When the last scan ended.
fn scanned_at(polled: &Polled) -> Option<Timestamp> {
    polled.last.as_ref().map(|scanned| scanned.at)
}

/// When a repository was polled since `since`.
fn polls(house: &House, url: &str, since: Instant) -> Vec<Duration> {
    let place = location(url);
    let log = house.git.poll_log();
    log.iter().filter(|(of, at)| *of == place && *at >= since).map(|(_, at)| *at - since).collect()
}

fn gaps(polls: &[Duration]) -> Vec<(Duration, Duration)> {
    polls.windows(2).map(|pair| (pair[0], pair[1] - pair[0])).collect()
}

#[tokio::test(start_paused = true)]
async fn the_interval_is_half_the_calm_between_its_bounds_with_a_tenth_of_jitter() {
    let (house, watch) = held().await;
    let changed = house.commit(&[("a", "2")]);
    house.until_held(&watch, changed).await;
    let since = Instant::now();
    tokio::time::sleep(Duration::from_secs(3 * 3_600)).await;
    let gaps = gaps(&polls(&house, URL, since));
    let (mut least, mut most) = (f64::MAX, f64::MIN);
    for (at, gap) in &gaps {
        // The change was seen within the second before `since`.
        let expected = (at.as_secs_f64() / 2.0).clamp(45.0, 300.0);
        let ratio = gap.as_secs_f64() / expected;
        assert!((0.89..=1.11).contains(&ratio), "at {at:?} the next poll came after {gap:?}");
        (least, most) = (least.min(ratio), most.max(ratio));
    }
    assert!(gaps.len() > 35, "{} polls in three hours", gaps.len());
    assert!(least < 0.95 && most > 1.05, "jitter spreads over its tenth: {least} to {most}");

    // A change brings the short interval back.
    let again = house.commit(&[("a", "3")]);
    house.until_held(&watch, again).await;
    let since = Instant::now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(polls(&house, URL, since).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_failure_doubles_the_wait_up_to_the_longest_one() {
    let (house, watch) = held().await;
    let changed = house.commit(&[("a", "2")]);
    house.until_held(&watch, changed).await;
    let since = Instant::now();
    house.git.fail(vec![GitError::Unreachable("down".into()); 4]);
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    let gaps = gaps(&polls(&house, URL, since));
    for ((at, gap), doubled) in gaps.iter().zip([2.0, 4.0, 8.0, 16.0]) {
        let expected = ((at.as_secs_f64() / 2.0).clamp(45.0, 300.0) * doubled).min(300.0);
        let ratio = gap.as_secs_f64() / expected;
        assert!((0.89..=1.11).contains(&ratio), "{gap:?} where {expected} s were due: {gaps:?}");
    }
    assert!(gaps[0].1 > Duration::from_secs(80), "the first failure doubles 45 s: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_watches_of_a_source_are_one_poll_per_interval() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let mut watches = Vec::new();
    for _ in 0..100 {
        let app = house.app().await;
        watches.push(house.watch(&app).await);
    }
    for watch in &watches {
        house.until_held(watch, first).await;
    }
    let changed = house.commit(&[("a", "2")]);
    house.until_held(&watches[99], changed).await;
    let since = Instant::now();
    tokio::time::sleep(Duration::from_secs(90)).await;
    for (at, gap) in gaps(&polls(&house, URL, since)) {
        assert!(gap >= Duration::from_secs(40), "two polls in one interval at {at:?}");
    }
    assert!((1..=2).contains(&polls(&house, URL, since).len()), "one per interval of 45 s");
    for watch in &watches {
        house.until_held(watch, changed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_front_door_sees_when_a_source_was_scanned_and_is_scanned_next() {
    let (house, watch) = held().await;
    let handle = house.handle();
    let polled = || handle.polled(&watch.source);
    let known = polled().expect("it is watched here");
    let (last, next) = (scanned_at(&known).expect("it was scanned"), known.next.expect("it will be"));
    let now = house.context.now();
    assert!(last <= now && next > now, "{known:?} at {now:?}");
    let before = house.git.polls();
    tokio::time::sleep(next.since(now).saturating_sub(Duration::from_secs(1))).await;
    assert_eq!(house.git.polls(), before, "not before");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(house.git.polls(), before + 1, "when it was said");
    let after = polled().expect("it is watched here");
    assert!(scanned_at(&after) > Some(last) && after.next > known.next, "{after:?} after {known:?}");

    house.poke(&watch).await;
    let soon = house.context.now().after(Duration::from_secs(1));
    house.until("it is due soon", async || polled().is_some_and(|polled| polled.next < Some(soon))).await;

    house.git.fail(failures(8));
    house.until("its breaker is open", async || polled().is_some_and(|polled| polled.next.is_none())).await;
    assert!(scanned_at(&polled().expect("known")) > Some(last), "a failed scan is one, too");
    house.store.unwatch(&watch.app, &watch.id).await.expect("unwatched");
    handle.repository_changed(&watch.repository).await;
    house.until("it is forgotten", async || polled().is_none()).await;
}
