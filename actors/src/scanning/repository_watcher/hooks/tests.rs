//! Hooks: the pure rules, and the watcher that follows them on paused time.

use tidings_entity::{
    id::AppId,
    kind::{HookNews, HookProvider, ReceiptVerdict},
};

use super::*;
use crate::{
    ports::{Hook, ReceiptStore, Watch},
    testing::house::{House, URL},
};

const PLAIN: Duration = Duration::from_secs(300);
const HOOKED: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_burst_is_two_pokes_and_a_flood_one_each_gap() {
    let (mut gap, start) = (Gap::default(), Instant::now());
    let at = |ms: u64| start + Duration::from_millis(ms);
    assert_eq!(gap.poke_after(at(0)), Some(Duration::ZERO), "the first at once");
    assert_eq!(gap.poke_after(at(199)), None, "its scan has not begun");
    assert_eq!(gap.poke_after(at(500)), Some(Duration::from_millis(1_500)));
    for ms in 501..2_000 {
        assert_eq!(gap.poke_after(at(ms)), None);
    }
    gap.waited(at(2_000));
    assert_eq!(gap.poke_after(at(3_000)), Some(Duration::from_secs(1)));
    gap.waited(at(4_000));
    assert_eq!(gap.poke_after(at(6_000)), Some(Duration::ZERO), "after a pause the next at once");
}

#[test]
fn hooks_are_relied_on_for_a_day_and_until_one_was_missed() {
    let now = |seconds: u64| Timestamp(0).after(Duration::from_secs(seconds));
    let mut hooks = Hooks::default();
    let ceiling = |hooks: &Hooks, at: u64| hooks.ceiling(now(at), PLAIN, HOOKED);
    assert_eq!(ceiling(&hooks, 0), PLAIN);
    hooks.arrived(Some(now(100)));
    hooks.arrived(None);
    hooks.arrived(Some(now(50)));
    assert_eq!(ceiling(&hooks, 100), HOOKED);
    assert_eq!(hooks.ceiling(now(100), HOOKED, PLAIN), HOOKED, "hooks never shorten the interval");
    assert_eq!(ceiling(&hooks, 100 + DAY.as_secs() - 1), HOOKED);
    assert_eq!(ceiling(&hooks, 100 + DAY.as_secs()), PLAIN);
    hooks.scan_began(now(150));
    hooks.change_found(now(900));
    assert_eq!(ceiling(&hooks, 900), HOOKED, "the scan began soon after the hook");
    hooks.scan_began(now(1_000));
    hooks.change_found(now(1_001));
    assert_eq!(ceiling(&hooks, 1_001), PLAIN, "nothing had told of it");
    hooks.arrived(Some(now(100)));
    assert_eq!(ceiling(&hooks, 1_002), PLAIN, "read again from its row");
    hooks.arrived(Some(now(1_010)));
    assert_eq!(ceiling(&hooks, 1_010), HOOKED, "they arrive again");
}

#[test]
fn a_hook_of_a_clock_that_was_ahead_is_not_relied_on() {
    let now = |seconds: u64| Timestamp(0).after(Duration::from_secs(seconds));
    let mut hooks = Hooks::default();
    hooks.arrived(Some(now(100_000)));
    assert_eq!(hooks.ceiling(now(100_001), PLAIN, HOOKED), HOOKED);
    assert_eq!(hooks.ceiling(now(13_600), PLAIN, HOOKED), PLAIN, "a day back");
    hooks.scan_began(now(13_600));
    hooks.change_found(now(13_601));
    assert_eq!(hooks.ceiling(now(13_602), PLAIN, HOOKED), PLAIN, "nothing told of the change either");
}

/// A house where a repository that was quiet for long is held; its intervals are a tenth of the
/// usual ones.
async fn quiet() -> (House, Watch) {
    let mut house = House::with(|policy| {
        (policy.poll_min, policy.poll_max, policy.poll_max_hooked) = (PLAIN / 60, PLAIN / 10, HOOKED / 10);
    });
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    tokio::time::sleep(HOOKED / 10).await;
    (house, watch)
}

async fn hook(house: &House, watch: &Watch, delivery: &str) {
    let hook = Hook {
        owner: None,
        provider: HookProvider::Github,
        delivery: Some(delivery.to_owned()),
        event: "push".into(),
        news: HookNews::Push,
        ref_name: Some("refs/heads/main".into()),
        addresses: vec![URL.to_owned()],
        received_at: house.context.now(),
    };
    let receipt = house.store.receive(&hook, None).await.expect("received");
    assert_eq!(receipt.verdict, ReceiptVerdict::Accepted);
    house.handle().hooked(&watch.repository, Some(hook.received_at)).await;
}

/// Polls within this time.
async fn polls_in(house: &House, time: Duration) -> u64 {
    let before = house.git.polls();
    tokio::time::sleep(time).await;
    house.git.polls() - before
}

#[tokio::test(start_paused = true)]
async fn a_hook_is_heeded_at_once_and_a_burst_costs_two_polls() {
    let (house, watch) = quiet().await;
    hook(&house, &watch, "first").await;
    polls_in(&house, Duration::from_secs(10)).await;
    let second = house.commit(&[("a", "2")]);
    let before = house.git.polls();
    let start = Instant::now();
    for number in 0..50 {
        hook(&house, &watch, &format!("burst {number}")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.until_held(&watch, second).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    // Shorter than the interval after a change: what comes now comes of the burst.
    tokio::time::sleep(PLAIN / 100).await;
    let polls = house.git.polls() - before;
    assert!((1..=2).contains(&polls), "{polls} polls");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_hooks_polls_no_more_than_twice_in_four_seconds() {
    let (house, watch) = quiet().await;
    let before = house.git.polls();
    for number in 0..400 {
        hook(&house, &watch, &format!("flood {number}")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let polls = house.git.polls() - before;
    assert!((9..=12).contains(&polls), "{polls} polls in 20 s");
}

#[tokio::test(start_paused = true)]
async fn the_interval_grows_while_hooks_arrive_also_over_a_restart() {
    let (mut house, watch) = quiet().await;
    assert!(polls_in(&house, HOOKED / 5).await > 20, "without hooks, every half minute");
    hook(&house, &watch, "1").await;
    let hooked = polls_in(&house, HOOKED / 5).await;
    assert!((2..=4).contains(&hooked), "{hooked} polls in twelve minutes");
    house.stop(Duration::ZERO).await;
    house.start().await;
    let restarted = polls_in(&house, HOOKED / 5).await;
    assert!((2..=4).contains(&restarted), "{restarted} polls in twelve minutes after a restart");
}

#[tokio::test(start_paused = true)]
async fn a_lost_hook_costs_an_interval_once_and_then_the_interval_is_short_again() {
    let (house, watch) = quiet().await;
    hook(&house, &watch, "1").await;
    tokio::time::sleep(HOOKED / 10).await;
    let lost = house.commit(&[("a", "2")]);
    let start = Instant::now();
    house.until_held(&watch, lost).await;
    assert!(start.elapsed() < HOOKED.mul_f64(0.12), "{:?}", start.elapsed());
    tokio::time::sleep(HOOKED / 40).await;
    assert!(polls_in(&house, HOOKED / 10).await > 9, "hooks get lost, so it is polled as if it had none");
}

#[tokio::test(start_paused = true)]
async fn a_hook_of_an_app_wakes_what_that_app_watches_and_makes_no_poll_rarer() {
    let (house, watch) = quiet().await;
    let foreign = AppId::new(ulid::Ulid::from_parts(7, 7));
    let before = house.git.polls();
    for _ in 0..20 {
        house.handle().app_hooked(&watch.repository, &foreign).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(house.git.polls() - before <= 1, "only what is due anyway");
    let second = house.commit(&[("a", "2")]);
    let start = Instant::now();
    house.handle().app_hooked(&watch.repository, &watch.app).await;
    house.until_held(&watch, second).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let before = house.git.polls();
    for _ in 0..400 {
        house.handle().app_hooked(&watch.repository, &watch.app).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let polls = house.git.polls() - before;
    assert!((9..=14).contains(&polls), "{polls} polls in 20 s");
    tokio::time::sleep(HOOKED / 5).await;
    assert!(polls_in(&house, HOOKED / 5).await > 20, "it is polled as often as without hooks");
}
