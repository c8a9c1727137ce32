//! One watcher, its line and its flags: what a poke, a breaker, another source and an absence do to what
//! it has begun.

use std::collections::BTreeSet;

use super::*;
use crate::{
    circuit_breaker::BreakerNews,
    ports::{GitSource, UpkeepStore},
    scanning::repository_watcher::RepositoryWatcherMessage,
};

/// How many scans wait for their turn at their hosts.
fn in_line(house: &House) -> usize {
    house.git.hosts().shown(100).iter().map(|host| host.waiting).sum()
}

#[tokio::test(start_paused = true)]
async fn a_poke_during_a_scan_leads_to_another_one_after_it() {
    let (house, watch) = held().await;
    house.git.poll_takes(Duration::from_secs(5));
    let before = house.git.polls();
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(house.git.polls(), before + 1, "it is being scanned");
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(house.git.polls(), before + 2);
}

#[tokio::test(start_paused = true)]
async fn a_poke_takes_a_source_out_of_the_line_of_those_for_whom_nobody_waits() {
    let mut house = House::with_slow_hosts(Duration::from_secs(100));
    house.start().await;
    let app = house.app().await;
    let mut watches = Vec::new();
    for name in ["one", "two"] {
        let url = format!("https://git.example/o/{name}");
        house.git.commit(&location(&url), "main", &[("a", "1")]);
        watches.push(house.watch_with(&app, &url, |_| {}).await);
    }
    // New watches have turns at once and after 100 seconds. Both are due again before the third turn,
    // the first one first.
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(in_line(&house), 2);
    let polls = house.git.poll_log().len();
    house.poke(&watches[1]).await;
    house.until("one of them is polled", async || house.git.poll_log().len() > polls).await;
    let next = house.git.poll_log().swap_remove(polls).0;
    assert_eq!(next, location("https://git.example/o/two"), "somebody waits for it");
}

#[tokio::test(start_paused = true)]
async fn at_a_start_the_first_polls_spread_over_the_least_interval() {
    let mut house = House::new();
    let app = house.app().await;
    for number in 0..60 {
        // Hosts of their own: no line spreads them.
        let url = format!("https://git{number}.example/o/r");
        house.git.commit(&location(&url), "main", &[("a", "1")]);
        house.register(&app, &url, |_| {}).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let start = Instant::now();
    house.start().await;
    tokio::time::sleep(Duration::from_secs(46)).await;
    let mut thirds = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    let mut seen = BTreeSet::new();
    for (place, at) in house.git.poll_log().into_iter().filter(|(_, at)| *at >= start) {
        let place = format!("{place:?}");
        if seen.insert(place.clone()) {
            let third = (at - start).as_secs() / 15;
            thirds[usize::try_from(third.min(2)).expect("small")].insert(place);
        }
    }
    assert_eq!(seen.len(), 60, "each was polled");
    assert!(thirds.iter().all(|third| third.len() >= 8), "{:?}", thirds.map(|third| third.len()));
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_breaker_opened_leaves_the_line() {
    let mut house = House::with_slow_hosts(Duration::from_secs(100));
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.poke(&watch).await;
    house.until("it stands in line", async || in_line(&house) == 1).await;
    let polls = house.git.polls();
    let opened = BreakerNews::Opened { fresh: false, failures: 5, probe_at: house.context.now() };
    let watcher = house.context.directory.find(REPOSITORY_WATCHER, watch.repository.as_str());
    watcher.expect("it runs").send(RepositoryWatcherMessage::Breaker(watch.source.to_string(), opened));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(in_line(&house), 0, "others of the host wait for nothing");
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(house.git.polls(), polls, "only its probe would be scanned");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_while_another_source_is_scanned_is_given_back() {
    let (house, watch) = held().await;
    let other = house.app().await;
    let secret = Some(Secret::new("token".into()));
    let second = house.watch_with(&other, URL, |watch| watch.credential = secret).await;
    assert_eq!(second.repository, watch.repository);
    assert_ne!(second.source, watch.source);
    let head = house.commit(&[("a", "2")]);
    house.until_held(&second, head).await;
    house.git.poll_takes(Duration::from_secs(20));
    let before = house.git.polls();
    // Both are due at the same moment and stand in line together.
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((house.git.polls(), in_line(&house)), (before + 1, 0), "one scan, and nobody in line");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(house.git.polls(), before + 2, "then the other one");
    assert_eq!(house.git.most_polls_at_once(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_looked_at_again_as_soon_as_it_can_be_believed() {
    let (house, watch) = held().await;
    house.git.commit(&location(URL), "other", &[("x", "1")]);
    // Hours of calm: the interval is the longest one.
    tokio::time::sleep(Duration::from_secs(7_200)).await;
    house.git.remove_branch(&location(URL), "main");
    house.poke(&watch).await;
    let start = Instant::now();
    house
        .until("it is missing", async || house.cursor(&watch).await.state == CursorState::BranchMissing)
        .await;
    assert!((60..=65).contains(&start.elapsed().as_secs()), "after {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_an_absence_starts_again_when_more_vanishes_also_between_two_pokes() {
    let (house, watch, other) = two_held().await;
    tokio::time::sleep(Duration::from_secs(7_200)).await;
    house.git.remove_branch(&location(URL), "main");
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    house.git.remove_branch(&location(URL), "other");
    let vanished = Instant::now();
    // Listings that show both absences, ten seconds apart, and the first one a minute old.
    for _ in 0..3 {
        house.poke(&watch).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(house.cursor(&other).await.state, CursorState::Active, "absent for half a minute");
    house
        .until("it is missing", async || house.cursor(&other).await.state == CursorState::BranchMissing)
        .await;
    assert!((60..=70).contains(&vanished.elapsed().as_secs()), "after {:?}", vanished.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_branch_counts_as_gone_in_time_however_many_others_vanish_meanwhile() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let others: Vec<String> = (0..12).map(|number| format!("bot{number}")).collect();
    for other in &others {
        house.git.commit(&location(URL), other, &[("a", "1")]);
    }
    let app = house.app_with(|delivery| delivery.multi_branch = true).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    // A pattern: from now on every branch is listed.
    let pattern = Selector { kind: SelectorKind::BranchPattern, value: "bot*".into() };
    house.watch_with(&app, URL, |watch| watch.selector = pattern).await;
    tokio::time::sleep(Duration::from_secs(7_200)).await;
    house.git.remove_branch(&location(URL), "main");
    for other in others.iter().take(8) {
        house.git.remove_branch(&location(URL), other);
        house.poke(&watch).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(house.cursor(&watch).await.state, CursorState::BranchMissing, "80 seconds later");
}

#[tokio::test(start_paused = true)]
async fn patience_of_which_the_host_knows_nothing_is_granted_as_well() {
    let (house, watch) = held().await;
    house.git.issue_no_token(Duration::from_secs(900));
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let polls = house.git.polls();
    tokio::time::sleep(Duration::from_secs(890)).await;
    assert_eq!(house.git.polls(), polls);
    let second = house.commit(&[("a", "2")]);
    let asked = Instant::now();
    house.until_held(&watch, second).await;
    assert!(asked.elapsed() < Duration::from_secs(15), "after {:?}", asked.elapsed());
    assert!(house.store.breakers().await.expect("rows").is_empty(), "nothing failed");
}
