//! The watcher in a whole tree over in-memory ports, on paused time.

mod calm;
mod hosts;
mod intervals;
mod line;
mod many;
mod shown;

use std::time::Duration;

use tidings_entity::kind::{BreakerKind, CursorState, SelectorKind};
use tokio::time::Instant;

use crate::{
    model::secret::Secret,
    ports::{Action, BreakerRow, GitError, Notice, Selector, SourceStore, UpkeepStore, Watch, WatchStore},
    scanning::repository_watcher::RepositoryWatcherMessage,
    supervision::tree::{REPOSITORY_WATCHER, SCANS},
    testing::{
        Fault,
        house::{House, URL, location},
    },
};

/// A house where one app holds the head of `main`.
async fn held() -> (House, Watch) {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    (house, watch)
}

/// A house where one app holds the heads of two branches, `main` and `other`; there is a `third` branch.
async fn two_held() -> (House, Watch, Watch) {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    house.git.commit(&location(URL), "other", &[("a", "1")]);
    house.git.commit(&location(URL), "third", &[("a", "1")]);
    let app = house.app_with(|delivery| delivery.multi_branch = true).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    let branch = Selector { kind: SelectorKind::Branch, value: "other".into() };
    let other = house.watch_with(&app, URL, |watch| watch.selector = branch).await;
    house.until("it is held", async || house.cursor(&other).await.held.is_some()).await;
    (house, watch, other)
}

fn failures(count: usize) -> Vec<GitError> {
    vec![GitError::Unauthorized; count]
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_found_by_polling_alone() {
    let (house, watch) = held().await;
    let second = house.commit(&[("a", "2")]);
    let start = Instant::now();
    house.until_held(&watch, second).await;
    assert!(start.elapsed() < Duration::from_secs(60), "after {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_pokes_lead_to_at_most_two_scans() {
    let (house, watch) = held().await;
    house.git.poll_takes(Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = house.git.polls();
    for _ in 0..1_000 {
        house.poke(&watch).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..1_000 {
        house.poke(&watch).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let polls = house.git.polls() - before;
    assert!((1..=2).contains(&polls), "{polls} polls");
}

#[tokio::test(start_paused = true)]
async fn two_sources_of_one_repository_never_scan_at_the_same_time() {
    let (house, watch) = held().await;
    let other = house.app().await;
    let secret = Some(Secret::new("token".into()));
    house.watch_with(&other, URL, |watch| watch.credential = secret).await;
    house.git.poll_takes(Duration::from_secs(20));
    for _ in 0..30 {
        house.poke(&watch).await;
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    assert_eq!(house.git.most_polls_at_once(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_starts_again_does_not_scan_beside_its_old_scan() {
    let (house, watch) = held().await;
    house.git.poll_takes(Duration::from_secs(100));
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    house.kill(REPOSITORY_WATCHER, watch.repository.as_str());
    tokio::time::sleep(Duration::from_secs(1)).await;
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(house.git.most_polls_at_once(), 1);
    house.git.poll_takes(Duration::ZERO);
    let second = house.commit(&[("a", "2")]);
    house.until_held(&watch, second).await;
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_panics_restarts_only_its_worker_and_the_breaker_counts() {
    let (house, watch) = held().await;
    house.git.panic(7);
    let before = house.git.polls();
    while house.git.polls() < before + 5 {
        house.poke(&watch).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    house
        .until("the breaker opened", async || {
            let rows = house.store.breakers().await.expect("rows");
            rows.iter().any(|row| row.kind == BreakerKind::Source && row.opened_at.is_some())
        })
        .await;
    let tree = house.handle().tree().await;
    for role in [SCANS, REPOSITORY_WATCHER] {
        let restarts = restarts(&tree, role);
        assert_eq!(restarts, 0, "{role} goes on");
    }
    let second = house.commit(&[("a", "2")]);
    house.until_held(&watch, second).await;
}

fn restarts(node: &crate::supervision::directory::TreeNode, role: &str) -> u64 {
    let own = if node.actor.starts_with(role) { node.restarts } else { 0 };
    own + node.children.iter().map(|child| restarts(child, role)).sum::<u64>()
}

#[tokio::test(start_paused = true)]
async fn sync_failed_comes_once_per_opening_and_sync_recovered_to_those_who_asked() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let plain = house.app().await;
    let eager = house.app_with(|delivery| delivery.sync_recovered = true).await;
    let watch = house.watch(&plain).await;
    house.until_held(&watch, first).await;
    let second = house.watch(&eager).await;
    house.until_held(&second, first).await;
    for opening in 1..=2_usize {
        house.git.fail(failures(8));
        house
            .until("it recovered", async || {
                let told = house.transport.notices(&eager).len();
                told >= opening * 2
            })
            .await;
        let to_plain = house.transport.notices(&plain);
        assert_eq!(to_plain.len(), opening, "once per opening, and nothing else: {to_plain:#?}");
        let Notice::SyncFailed { error, consecutive_failures, threshold, repository, .. } =
            &to_plain[opening - 1]
        else {
            panic!("{to_plain:#?}")
        };
        assert_eq!((error.code(), *consecutive_failures, *threshold), ("auth_failed", 5, 5));
        assert_eq!(error.to_string(), "the Git host refuses the credential");
        assert_eq!(repository.repository_id, watch.id);
        let to_eager = house.transport.notices(&eager);
        assert!(matches!(to_eager.last(), Some(Notice::SyncRecovered { .. })), "{to_eager:#?}");
    }
    let notices: Vec<Action> = house.transport.arrivals().iter().map(|arrival| arrival.action).collect();
    assert_eq!(notices.iter().filter(|action| **action == Action::SyncFailed).count(), 4);
    let watch = house.store.watch(&plain, &watch.id).await.expect("watched");
    assert_eq!(watch.last_error, None);
}

#[tokio::test(start_paused = true)]
async fn the_row_of_a_sources_breaker_is_named_by_the_source() {
    let (mut house, watch) = held().await;
    house.git.fail(failures(7));
    let is_open = async || {
        let rows = house.store.breakers().await.expect("rows");
        rows.iter().any(|row| row.id == watch.source.as_str() && row.opened_at.is_some())
    };
    house.until("it is open", is_open).await;
    // A new process takes it up, and its watcher with it.
    house.stop(Duration::ZERO).await;
    let polls = house.git.polls();
    house.start().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(house.git.polls() <= polls + 1, "an open breaker rejects also after a restart");
    let second = house.commit(&[("a", "2")]);
    house.until_held(&watch, second).await;
    assert!(house.store.breakers().await.expect("rows").is_empty());
}

fn is_open_with(rows: &[BreakerRow], watch: &Watch) -> bool {
    rows.iter().any(|row| row.id == watch.source.as_str() && row.opened_at.is_some())
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_somebody_asks_for_is_the_probe_of_an_open_breaker() {
    let (house, watch) = held().await;
    house.git.fail(failures(7));
    let breakers = async || house.store.breakers().await.expect("rows");
    house.until("two probes failed", async || breakers().await.iter().any(|row| row.failures == 7)).await;
    let second = house.commit(&[("a", "2")]);
    let asked = Instant::now();
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "after {:?}", asked.elapsed());
    house.until("it closed", async || breakers().await.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_an_operator_opened_lets_no_probe_go_early() {
    let (house, watch) = held().await;
    let key = crate::circuit_breaker::source_key(watch.source.as_str(), watch.repository.as_str());
    house.handle().open_breaker(BreakerKind::Source, &key, Duration::from_secs(3_600));
    let breakers = async || house.store.breakers().await.expect("rows");
    house.until("it is open", async || is_open_with(&breakers().await, &watch)).await;
    let polls = house.git.polls();
    for _ in 0..10 {
        house.poke(&watch).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(house.git.polls(), polls);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_of_a_source_that_nobody_watches_any_more_ends() {
    let (house, watch) = held().await;
    house.git.fail(failures(30));
    let breakers = async || house.store.breakers().await.expect("rows");
    house.until("it is open", async || is_open_with(&breakers().await, &watch)).await;
    let key = crate::circuit_breaker::source_key(watch.source.as_str(), watch.repository.as_str());
    let runs = || house.context.directory.cell(crate::supervision::tree::CIRCUIT_BREAKER, &key).is_some();
    assert!(runs());
    let was_open = house.store.unwatch(&watch.app, &watch.id).await.expect("unwatched");
    house.handle().unwatched(&watch, was_open).await;
    house.until("it is gone", async || !runs()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!runs() && breakers().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_missing_branch_is_believed_after_two_listings_and_a_returning_one_goes_on() {
    let (house, watch) = held().await;
    let held = house.cursor(&watch).await.held;
    house.git.commit(&location(URL), "other", &[("x", "1")]);
    house.git.remove_branch(&location(URL), "main");
    house.poke(&watch).await;
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(30)).await;
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active, "one minute has not passed");
    house
        .until("it is missing", async || house.cursor(&watch).await.state == CursorState::BranchMissing)
        .await;
    assert!(start.elapsed() >= Duration::from_secs(60), "already after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(200), "only after {:?}", start.elapsed());
    assert_eq!(house.cursor(&watch).await.held, held, "files stay");
    let back = house.commit(&[("a", "2"), ("b", "1")]);
    house.until_held(&watch, back).await;
    assert_eq!(house.taken(&watch.app), ["C a", "C b", "U a"], "from what was held");
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_vanishes_later_has_a_minute_of_its_own() {
    let (house, watch, other) = two_held().await;
    house.git.remove_branch(&location(URL), "main");
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    house.git.remove_branch(&location(URL), "other");
    let vanished = Instant::now();
    house
        .until("it is missing", async || house.cursor(&other).await.state == CursorState::BranchMissing)
        .await;
    assert!(vanished.elapsed() >= Duration::from_secs(60), "already after {:?}", vanished.elapsed());
    assert_eq!(house.cursor(&watch).await.state, CursorState::BranchMissing);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_default_branch_with_an_equal_tree_is_no_event() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let app = house.app().await;
    let default = Selector { kind: SelectorKind::DefaultBranch, value: String::new() };
    let watch = house.watch_with(&app, URL, |watch| watch.selector = default).await;
    house.until_held(&watch, first).await;
    house.git.point(&location(URL), "trunk", first);
    house.git.set_default_branch(&location(URL), "trunk");
    house.git.remove_branch(&location(URL), "main");
    house.poke(&watch).await;
    house.until("it is followed", async || house.cursor(&watch).await.branch == "refs/heads/trunk").await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
    assert_eq!(house.taken(&app), ["C a"], "no file event");
    let second = house.git.commit(&location(URL), "trunk", &[("a", "2")]);
    house.until_held(&watch, second).await;
    assert_eq!(house.taken(&app), ["C a", "U a"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_whose_last_source_goes_during_its_scan_ends() {
    let (house, watch) = held().await;
    house.git.poll_takes(Duration::from_secs(5));
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    house.store.unwatch(&watch.app, &watch.id).await.expect("unwatched");
    house.handle().repository_changed(&watch.repository).await;
    let directory = house.context.directory.clone();
    house
        .until("it ended", async || directory.cell(REPOSITORY_WATCHER, watch.repository.as_str()).is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_or_hangs_does_not_stop_the_polling() {
    for verb in ["sources", "move_heads", "record_scan_error"] {
        let (house, watch) = held().await;
        house.store.befall(verb, Fault::Hangs);
        house.store.befall(verb, Fault::Fails(crate::ports::StoreError::Unavailable("down".into())));
        if verb == "record_scan_error" {
            house.git.fail(failures(1));
        }
        house.handle().repository_changed(&watch.repository).await;
        let second = house.commit(&[("a", "2")]);
        house.poke(&watch).await;
        house.until_held(&watch, second).await;
    }
}

#[tokio::test(start_paused = true)]
async fn patience_that_a_host_asks_for_is_granted() {
    let (house, watch) = held().await;
    house.git.fail(vec![GitError::RateLimited { retry_after: Some(Duration::from_secs(900)) }]);
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let polls = house.git.polls();
    tokio::time::sleep(Duration::from_secs(800)).await;
    assert_eq!(house.git.polls(), polls);
    let second = house.commit(&[("a", "2")]);
    house.until_held(&watch, second).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_asks_for_patience_again_and_again_is_obeyed_and_not_failed() {
    let (house, watch) = held().await;
    let times = 12;
    let asks = GitError::RateLimited { retry_after: Some(Duration::from_secs(20)) };
    house.git.fail(vec![asks; times]);
    let (polls, start) = (house.git.polls(), Instant::now());
    house.poke(&watch).await;
    let shown = async || house.store.watch(&watch.app, &watch.id).await.expect("watched").last_error;
    house.until("the app sees it", async || shown().await.is_some()).await;
    assert_eq!(shown().await.as_deref(), Some("the Git host asks to wait"));
    house.until("it asked often", async || house.git.polls() >= polls + times as u64).await;
    // Half the calm each time, up to five minutes; failures would have doubled it, to an hour in all.
    assert!(start.elapsed() < Duration::from_secs(2_700), "after {:?}", start.elapsed());
    assert!(house.store.breakers().await.expect("rows").is_empty(), "nothing failed");
    assert!(house.transport.notices(&watch.app).is_empty(), "nobody is told of a failure");
    let second = house.commit(&[("a", "2")]);
    house.until_held(&watch, second).await;
    house.until("it is over", async || shown().await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_sources_breaker_restarts_it_alone_and_it_goes_on_counting() {
    let (house, watch) = held().await;
    house.git.fail(failures(3));
    house.poke(&watch).await;
    let key = crate::circuit_breaker::source_key(watch.source.as_str(), watch.repository.as_str());
    let row = async || {
        let rows = house.store.breakers().await.expect("rows");
        rows.into_iter().find(|row| row.id == watch.source.as_str())
    };
    house.until("three are counted", async || row().await.is_some_and(|row| row.failures == 3)).await;
    let gauge =
        house.context.directory.gauge(crate::supervision::tree::CIRCUIT_BREAKER, &key).expect("it runs");
    gauge.let_panic(1);
    house.git.fail(failures(2));
    house
        .until("it opened all the same", async || row().await.is_some_and(|row| row.opened_at.is_some()))
        .await;
    assert_eq!((gauge.panics_to_come(), gauge.restarts()), (0, 1), "it panicked");
    let tree = house.handle().tree().await;
    assert_eq!(restarts(&tree, ""), 1, "it alone: {tree:#?}");
    assert_eq!(row().await.expect("a row").failures, 5, "none is counted twice");
    house.until("the app hears of it", async || house.transport.notices(&watch.app).len() == 1).await;
    let second = house.commit(&[("a", "2")]);
    house.until_held(&watch, second).await;
    assert_eq!(row().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_moved_is_asked_at_its_new_address_also_after_a_restart() {
    let (mut house, watch) = held().await;
    let new = "https://git.example/one/renamed";
    house.git.rename(&location(URL), &location(new));
    house.poke(&watch).await;
    let shown = async || house.store.watch(&watch.app, &watch.id).await.expect("watched");
    house.until("it is known", async || shown().await.moved_to.as_deref() == Some(new)).await;
    let second = house.git.commit(&location(new), "main", &[("a", "2")]);
    house.until_held(&watch, second).await;
    assert_eq!(house.taken(&watch.app), ["C a", "U a"], "from what was held");
    // Somebody else takes the old name; what he puts there is nothing to this app.
    house.git.commit(&location(URL), "main", &[("evil", "1")]);
    house.stop(Duration::ZERO).await;
    let start = Instant::now();
    house.start().await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    let log = house.git.poll_log();
    let since: Vec<_> = log.iter().filter(|(_, at)| *at >= start).map(|(place, _)| place.clone()).collect();
    assert!(since.len() > 2 && since.iter().all(|place| *place == location(new)), "{since:?}");
    assert_eq!(house.taken(&watch.app), ["C a", "U a"]);
    let shown = house.store.watch(&watch.app, &watch.id).await.expect("watched");
    assert_eq!(shown.facts.github_url, URL, "bodies name what was registered");
}

#[tokio::test(start_paused = true)]
async fn a_killed_watcher_starts_again_and_polls() {
    let (house, watch) = held().await;
    house.kill(REPOSITORY_WATCHER, watch.repository.as_str());
    let second = house.commit(&[("a", "2")]);
    house.until_held(&watch, second).await;
    assert_eq!(restarts(&house.handle().tree().await, REPOSITORY_WATCHER), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_handler_restarts_the_watcher_alone_and_loses_nothing() {
    let (house, watch) = held().await;
    house.git.commit(&location("https://git.example/other"), "main", &[("a", "1")]);
    let neighbour = house.register(&watch.app, "https://git.example/other", |_| {}).await;
    house.handle().repository_changed(&neighbour.repository).await;
    house.until("it is polled", async || house.cursor(&neighbour).await.held.is_some()).await;
    let mut expected = vec!["C a".to_owned(), "C a".to_owned()];
    for panics in 1..=3 {
        let next = house.commit(&[("a", &format!("content {panics}"))]);
        // A scan ends, its heads are written, and the handler that hears of it draws its next wait.
        house.poke(&watch).await;
        house.random.panic(1);
        house.until_held(&watch, next).await;
        house.until("it panicked", async || house.random.panics_left() == 0).await;
        expected.push("U a".to_owned());
        let tree = house.handle().tree().await;
        assert!(restarts(&tree, REPOSITORY_WATCHER) >= 1, "{tree:#?}");
        assert_eq!(restarts(&tree, ""), restarts(&tree, REPOSITORY_WATCHER), "it alone: {tree:#?}");
    }
    assert_eq!(house.taken(&watch.app), expected);
    let last = house.commit(&[("a", "last")]);
    house.until_held(&watch, last).await;
    house.assert_mirrors(&watch.app, last);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_puts_nothing_old_over_what_was_read_since_it_began() {
    let house = House::running().await;
    let commit = house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.until_held(&watch, commit).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (began, old) = (Instant::now(), house.store.sources(&watch.repository).await.expect("sources"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let other = house.app().await;
    house.watch_with(&other, URL, |new| new.credential = Some(Secret::new("own".into()))).await;
    let watches = |count: usize| {
        let doing = house.doing(REPOSITORY_WATCHER, watch.repository.as_str());
        doing.is_some_and(|doing| doing.to_string().starts_with(&format!("watching {count} source")))
    };
    house.until("both are watched", async || watches(2)).await;
    let watcher =
        house.context.directory.find(REPOSITORY_WATCHER, watch.repository.as_str()).expect("it runs");
    watcher.send(RepositoryWatcherMessage::Swept(began, old.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(watches(2), "they were read after the sweep");
    watcher.send(RepositoryWatcherMessage::Swept(Instant::now(), old));
    house.until("the sweep is newer", async || watches(1)).await;
}
