//! Many repositories of one host: no burst, no worker held for it in vain, nobody behind a crowd of others,
//! and patience that every source grants which shares host and credential.

use super::*;
use crate::ports::{UpkeepStore, WatchStore};

/// How often a host takes a request where it is slower than those who ask.
const ONE_EACH: Duration = Duration::from_secs(1);

/// The address of a repository of a host.
fn address(host: &str, number: usize) -> String {
    format!("https://{host}.example/o/{number:05}")
}

/// An app that watches this many repositories of a host, each with one file.
async fn in_flight(house: &House, app: &tidings_entity::id::AppId, host: &str, count: usize) -> Vec<Watch> {
    let mut watches = Vec::new();
    for number in 0..count {
        let url = address(host, number);
        house.git.commit(&location(&url), "main", &[("a", "1")]);
        watches.push(house.register(app, &url, |_| {}).await);
    }
    // What was made just now is looked at before anything else; these are old.
    tokio::time::sleep(Duration::from_secs(10)).await;
    watches
}

/// The most polls of a host that began within a second, from `since` on.
fn most_in_a_second(house: &House, host: &str, since: Instant) -> usize {
    let of_host = format!("https://{host}.example/");
    let log = house.git.poll_log();
    let is_of_host = |place: &crate::ports::Location| matches!(place, crate::ports::Location::Http(url) if url.as_str().starts_with(&of_host));
    let began: Vec<Instant> =
        log.iter().filter(|(place, at)| *at >= since && is_of_host(place)).map(|(_, at)| *at).collect();
    let second = Duration::from_secs(1);
    let from = |at: &Instant| began.iter().filter(|other| **other >= *at && **other < *at + second).count();
    began.iter().map(from).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_holds_no_worker_that_another_host_needs() {
    let mut house = House::with(|policy| policy.scan_workers = 22);
    let app = house.app().await;
    let slow = in_flight(&house, &app, "slow", 40).await;
    let quick = in_flight(&house, &app, "quick", 1).await.remove(0);
    (0..slow.len()).for_each(|number| house.git.hang(&location(&address("slow", number)), true));
    house.start().await;
    house.until("it is held", async || house.cursor(&quick).await.held.is_some()).await;
    for round in 0..3 {
        let start = Instant::now();
        let commit =
            house.git.commit(&location(&address("quick", 0)), "main", &[("a", &format!("x{round}"))]);
        house.until_held(&quick, commit).await;
        assert!(start.elapsed() < Duration::from_secs(60), "after {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_scan_gives_its_place_to_another_one_of_its_app() {
    // Two quick places for this app, and two slow ones.
    let mut house = House::with(|policy| policy.scan_workers = 4);
    let app = house.app().await;
    for number in 0..8 {
        let host = format!("slow{number}");
        in_flight(&house, &app, &host, 1).await;
        house.git.hang(&location(&address(&host, 0)), true);
    }
    let quick = in_flight(&house, &app, "quick", 1).await.remove(0);
    house.start().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let commit = house.git.commit(&location(&address("quick", 0)), "main", &[("a", "2")]);
    let start = Instant::now();
    house.poke(&quick).await;
    house.until_held(&quick, commit).await;
    assert!(start.elapsed() < Duration::from_secs(60), "after {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_holds_no_turn_at_a_host() {
    // One quick and one slow place for the first app, which its hanging hosts take.
    let mut house = House::with(|policy| policy.scan_workers = 2);
    let (many, one) = (house.app().await, house.app().await);
    for number in 0..4 {
        let host = format!("slow{number}");
        in_flight(&house, &many, &host, 1).await;
        house.git.hang(&location(&address(&host, 0)), true);
    }
    // More than may list at a time.
    in_flight(&house, &many, "shared", 8).await;
    let url = address("shared", 99);
    house.git.commit(&location(&url), "main", &[("a", "1")]);
    let watch = house.register(&one, &url, |_| {}).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    house.start().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    for round in 0..3 {
        let commit = house.git.commit(&location(&url), "main", &[("a", &format!("x{round}"))]);
        let start = Instant::now();
        house.poke(&watch).await;
        house.until_held(&watch, commit).await;
        assert!(start.elapsed() < Duration::from_secs(30), "after {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_never_bursts_neither_at_a_start_nor_after_an_outage() {
    let mut house = House::with_slow_hosts(ONE_EACH);
    let app = house.app().await;
    let watches = in_flight(&house, &app, "git", 80).await;
    let start = Instant::now();
    house.start().await;
    let all_held = async || {
        let mut all = true;
        for watch in watches.iter().step_by(10) {
            all &= house.cursor(watch).await.held.is_some();
        }
        all
    };
    house.until("all are held", all_held).await;
    let most = most_in_a_second(&house, "git", start);
    assert!(most <= 1, "{most} in one second after the start");

    let places: Vec<_> = (0..watches.len()).map(|number| location(&address("git", number))).collect();
    places.iter().for_each(|place| house.git.hang(place, true));
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    let recovered = Instant::now();
    places.iter().for_each(|place| house.git.hang(place, false));
    let commits: Vec<_> = places.iter().map(|place| house.git.commit(place, "main", &[("a", "2")])).collect();
    for (watch, commit) in watches.iter().zip(commits).step_by(10) {
        house.until_held(watch, commit).await;
    }
    let most = most_in_a_second(&house, "git", recovered);
    assert!(most <= 1, "{most} in one second after the outage");
    let took = recovered.elapsed();
    assert!(took < Duration::from_secs(900), "the rate is used: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_with_hundreds_of_repositories_of_one_host_keeps_to_its_rate() {
    let mut house = House::new();
    let app = house.app().await;
    let watches = in_flight(&house, &app, "git", 600).await;
    let start = Instant::now();
    house.start().await;
    house.poke(&watches[0]).await;
    let last = &watches[watches.len() - 1];
    house.until("the last is held", async || house.cursor(last).await.held.is_some()).await;
    let polled = async || {
        let log = house.git.poll_log();
        let places: std::collections::HashSet<_> =
            log.iter().filter(|(_, at)| *at >= start).map(|(place, _)| place.clone()).collect();
        places.len() == watches.len()
    };
    house.until("each was polled", polled).await;
    // The rate of a host is 15 a second, and its least interval spreads them over 45 seconds.
    let most = most_in_a_second(&house, "git", start);
    assert!(most <= 15, "{most} in one second");
    let took = start.elapsed();
    assert!((40..=75).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn another_apps_repository_is_polled_in_its_time_beside_a_crowd() {
    let mut house = House::with_slow_hosts(ONE_EACH);
    let (many, one) = (house.app().await, house.app().await);
    in_flight(&house, &many, "git", 120).await;
    let url = address("git", 99_999);
    house.git.commit(&location(&url), "main", &[("a", "1")]);
    let watch = house.register(&one, &url, |_| {}).await;
    house.start().await;
    house.until("it is held", async || house.cursor(&watch).await.held.is_some()).await;
    for round in 0..3 {
        let start = Instant::now();
        let commit = house.git.commit(&location(&url), "main", &[("a", &format!("x{round}"))]);
        house.until_held(&watch, commit).await;
        assert!(start.elapsed() < Duration::from_secs(60), "after {:?}", start.elapsed());
    }
    // A poke goes before routine also among all of them, which take two minutes to go round.
    let crowded = house.store.watches(&many, None, 1).await.expect("watches").remove(0);
    let commit = house.git.commit(&location(&crowded.facts.github_url), "main", &[("a", "poked")]);
    let start = Instant::now();
    house.poke(&crowded).await;
    house.until_held(&crowded, commit).await;
    assert!(start.elapsed() < Duration::from_secs(6), "after {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn patience_is_granted_by_every_source_that_shares_host_and_credential() {
    let mut house = House::new();
    let app = house.app().await;
    let mut watches = Vec::new();
    let token = || Some(Secret::new("token".into()));
    for (host, number) in [("git", 1), ("git", 2), ("git", 3), ("git", 4), ("other", 1)] {
        let url = address(host, number);
        house.git.commit(&location(&url), "main", &[("a", "1")]);
        let anonymous = number == 4;
        let credential = if anonymous { None } else { token() };
        watches.push(house.register(&app, &url, |watch| watch.credential = credential).await);
    }
    let polls_of = |host: &str, number: usize, since: Instant| {
        let place = location(&address(host, number));
        house.git.poll_log().iter().filter(|(of, at)| *of == place && *at >= since).count()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    crate::ports::GitSource::hosts(house.git.as_ref()).grant_patience(
        &url::Url::parse(&address("git", 1)).expect("an address"),
        token().as_ref(),
        Some(Duration::from_secs(1_800)),
    );
    let start = Instant::now();
    let tree = crate::handle::Tree::start(house.context.clone()).await.expect("the tree starts");
    let granted = house.context.now().after(Duration::from_secs(1_800));
    tokio::time::sleep(Duration::from_secs(1_795)).await;
    let polls = house.context.directory.polls();
    let pause_of = |watch: &Watch| polls.of(&watch.source).and_then(|polled| polled.pause);
    let pauses: Vec<_> = watches.iter().map(pause_of).collect();
    for pause in &pauses[..3] {
        let pause = pause.expect("the pause is shown");
        assert!(!pause.is_anonymous && granted.since(pause.until) < Duration::from_secs(1), "{pause:?}");
    }
    assert_eq!(pauses[3..], [None, None], "nobody asked these to wait");
    for number in 1..=3 {
        assert_eq!(polls_of("git", number, start), 0, "repository {number} shares the credential");
    }
    assert!(polls_of("git", 4, start) > 3 && polls_of("other", 1, start) > 3, "the others go on");
    assert!(house.store.breakers().await.expect("rows").is_empty(), "nothing failed");
    tokio::time::sleep(Duration::from_secs(60)).await;
    for number in 1..=3 {
        assert!(polls_of("git", number, start) > 0, "repository {number} is polled when the time has come");
    }
    tree.stop(Duration::ZERO).await;
    house.context.directory = crate::supervision::directory::Directory::default();
}
