//! No second sees more than the rate, whatever dies in between, and little less when nothing does.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;
use crate::{
    ports::{Random, StoreError},
    testing::{Fault, house::House},
    time::Timestamp,
};

/// The most that fell into any second, counted from whichever moment.
fn busiest_second(sent: &[Instant]) -> usize {
    let within =
        |from: usize| sent[from..].iter().take_while(|at| **at - sent[from] < Duration::from_secs(1)).count();
    (0..sent.len()).map(within).max().unwrap_or(0)
}

fn paces(house: &House) -> Paces {
    Paces::new(house.store.clone(), house.context.clock.clone())
}

/// Sends over this many lanes until the time is over; when each went.
async fn run(pace: &Pace, lanes: usize, latency: Duration, time: Duration) -> Vec<Instant> {
    let mut senders = JoinSet::new();
    let end = Instant::now() + time;
    for _ in 0..lanes {
        let pace = pace.clone();
        senders.spawn(async move {
            let mut sent = Vec::new();
            loop {
                pace.turn().await;
                if Instant::now() >= end {
                    return sent;
                }
                sent.push(Instant::now());
                tokio::time::sleep(latency).await;
            }
        });
    }
    let mut sent: Vec<Instant> = senders.join_all().await.into_iter().flatten().collect();
    sent.sort_unstable();
    sent
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_reached_and_never_passed() {
    let house = House::new();
    for rate in [1, 5, 50, 1_000] {
        let app = house.app().await;
        let pace = paces(&house).of(&app, Some(rate)).expect("a pace");
        let sent = run(&pace, 64, Duration::from_millis(3), Duration::from_secs(100)).await;
        let (most, all) = (busiest_second(&sent), rate as usize * 100);
        assert!(most <= rate as usize, "{most} in a second at {rate}");
        // Tokio's timers are whole milliseconds.
        let reached = if rate > 100 { all / 3 } else { all * 95 / 100 };
        assert!(sent.len() >= reached, "{} of {all} at {rate}", sent.len());
    }
}

#[tokio::test(start_paused = true)]
async fn all_who_send_to_an_app_share_one_pace_and_an_app_without_a_rate_has_none() {
    let house = House::new();
    let (app, other) = (house.app().await, house.app().await);
    let paces = paces(&house);
    assert!(paces.of(&app, None).is_none());
    let one = paces.of(&app, Some(10)).expect("a pace");
    let same = paces.of(&app, Some(50)).expect("a pace");
    let elsewhere = paces.of(&other, Some(1)).expect("a pace");
    one.turn().await;
    elsewhere.turn().await;
    let began = Instant::now();
    for _ in 0..25 {
        same.turn().await;
        one.turn().await;
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_millis(1_100), "{took:?}: the last rate");
    drop((one, same, elsewhere));
    drop(paces.of(&other, Some(1)));
    assert!(paces.of_app.lock().len() <= 1, "nothing is kept of who is not served");
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_costs_nobody_a_turn() {
    let house = House::new();
    let pace = paces(&house).of(&house.app().await, Some(1)).expect("a pace");
    pace.turn().await;
    let began = Instant::now();
    for _ in 0..20 {
        let left = tokio::time::timeout(Duration::from_millis(10), pace.turn()).await;
        assert!(left.is_err(), "it is not due");
    }
    pace.turn().await;
    assert!(began.elapsed() < Duration::from_millis(1_100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_promise_on_disk_nothing_goes() {
    let house = House::new();
    let pace = paces(&house).of(&house.app().await, Some(50)).expect("a pace");
    for _ in 0..10 {
        house.store.befall("take_permits", Fault::Fails(StoreError::Unavailable("full".into())));
    }
    let began = Instant::now();
    pace.turn().await;
    assert_eq!(began.elapsed(), 10 * AGAIN);
    // While one is left, a failure to get the next one holds up nothing.
    let sent = run(&pace, 1, Duration::ZERO, Duration::from_millis(500)).await;
    house.store.befall("take_permits", Fault::Fails(StoreError::Unavailable("full".into())));
    let later = run(&pace, 1, Duration::ZERO, Duration::from_millis(500)).await;
    assert!(sent.len() + later.len() >= 47, "{} and {}", sent.len(), later.len());
}

/// A clock that somebody sets.
struct SetClock(Arc<dyn Clock>, Arc<std::sync::atomic::AtomicI64>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.now().0 + self.1.load(Relaxed))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Processes come and go, at whichever moment, over one store; the wall clock is set.
    #[test]
    fn no_second_sees_more_than_the_rate_across_crashes(
        rate in 1_u32..80,
        lives in proptest::collection::vec((1_u64..4_000, 1_usize..40, 0_u64..60), 1..12),
        steps in proptest::collection::vec(-3_000_i64..3_000, 12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let house = House::new();
            let app = house.app().await;
            let set = Arc::new(std::sync::atomic::AtomicI64::new(0));
            let mut sent = Vec::new();
            for ((time, lanes, latency), step) in lives.into_iter().zip(steps) {
                // A new process: nothing but the store is left of the one before.
                let clock = SetClock(house.context.clock.clone(), set.clone());
                let paces = Paces::new(house.store.clone(), Arc::new(clock));
                let pace = paces.of(&app, Some(rate)).expect("a pace");
                let half = Duration::from_millis(time / 2);
                sent.extend(run(&pace, lanes, Duration::from_millis(latency), half).await);
                // The clock is set while it runs; it only waits the longer when it goes back.
                set.fetch_add(step.min(0), Relaxed);
                sent.extend(run(&pace, lanes, Duration::from_millis(latency), half).await);
            }
            let most = busiest_second(&sent);
            assert!(most <= rate as usize, "{most} in a second at {rate}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_forward_gives_nothing_twice() {
    let house = House::new();
    let app = house.app().await;
    let set = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let clock = SetClock(house.context.clock.clone(), set.clone());
    let pace = Paces::new(house.store.clone(), Arc::new(clock)).of(&app, Some(50)).expect("a pace");
    let mut sent = Vec::new();
    for _ in 0..20 {
        set.fetch_add(i64::try_from(house.random.below(5_000)).expect("small"), Relaxed);
        sent.extend(run(&pace, 8, Duration::ZERO, Duration::from_millis(330)).await);
    }
    assert!(busiest_second(&sent) <= 50, "{}", busiest_second(&sent));
}
