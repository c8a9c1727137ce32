//! The budget of a host on paused time: who gets a turn, when, and who must not ask.

use std::sync::Arc;

use tidings_entity::id::RepositoryId;
use tokio::task::JoinSet;
use ulid::Ulid;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Polls of 40 seconds, one after another, that go on beyond the end of a test.
const HANGING_POLLS: usize = 100;

fn app(number: u128) -> AppId {
    AppId::new(Ulid::from_parts(1, number))
}

fn remote(host: &str, credential: Option<&str>) -> Remote {
    Remote {
        repository: RepositoryId::new(Ulid::from_parts(1, 1)),
        location: Location::Http(address(host)),
        credential: credential.map(|secret| Secret::new(secret.to_owned())),
        apps: Vec::new(),
    }
}

fn address(host: &str) -> Url {
    Url::parse(&format!("https://{host}/o/r")).expect("an address")
}

/// This many scans that each take `span`; when each began, and for which app.
async fn scans(hosts: &Hosts, of_app: &[(u128, usize)], span: Duration) -> Vec<(Duration, u128)> {
    let (start, began) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let mut tasks = JoinSet::new();
    for (number, count) in of_app {
        for _ in 0..*count {
            let (hosts, began, number) = (hosts.clone(), Arc::clone(&began), *number);
            tasks.spawn(async move {
                let remote = Remote { apps: vec![app(number)], ..remote("git.example", None) };
                let turn = hosts.turn(&remote, false).await;
                let turn = turn.expect("no host asked for a pause");
                began.lock().push((start.elapsed(), number));
                tokio::time::sleep(span).await;
                drop(turn);
            });
            // The order of the line is the order in which they come.
            tokio::task::yield_now().await;
        }
    }
    tasks.join_all().await;
    Arc::into_inner(began).expect("the tasks ended").into_inner()
}

/// A poll that takes one request, which its host answers after this time.
async fn poll(hosts: &Hosts, host: &str, of_app: u128, answer: Duration) {
    let remote = Remote { apps: vec![app(of_app)], ..remote(host, None) };
    let turn = hosts.turn(&remote, false).await.expect("no host asked for a pause");
    let permit = hosts.request(&address(host), None, &remote.apps, false).await;
    tokio::time::sleep(answer).await;
    drop((permit.expect("no host asked for a pause"), turn));
}

/// The slowest of Bob's polls, which follow each other by a second, while this many clients of Alice send
/// requests to the same host one after another, and this many repositories of hers are polled without a pause.
async fn slowest_poll_beside((clients, polled): (usize, usize), answer: Duration) -> Duration {
    let (hosts, mut alice, start) = (Hosts::default(), JoinSet::new(), Instant::now());
    let hour = 3_600 * SECOND;
    for _ in 0..clients {
        let hosts = hosts.clone();
        alice.spawn(async move {
            while start.elapsed() < hour {
                let permit = hosts.request(&address("git.example"), None, &[app(1)], false).await;
                tokio::time::sleep(answer).await;
                drop(permit.expect("no host asked for a pause"));
            }
        });
    }
    for _ in 0..polled {
        let hosts = hosts.clone();
        alice.spawn(async move {
            while start.elapsed() < hour {
                poll(&hosts, "git.example", 1, answer).await;
            }
        });
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..60 {
        tokio::time::sleep(SECOND).await;
        let began = Instant::now();
        let ended = tokio::time::timeout(60 * SECOND, poll(&hosts, "git.example", 2, answer)).await;
        ended.unwrap_or_else(|_| panic!("{clients} clients of another app let no poll through"));
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

/// The most that began within any second.
fn most_in_a_second(began: &[(Duration, u128)]) -> usize {
    let in_second =
        |from: Duration| began.iter().filter(|(at, _)| *at >= from && *at < from + SECOND).count();
    began.iter().map(|(at, _)| in_second(*at)).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_that_are_due_at_once_never_burst() {
    let hosts = Hosts::default();
    let began = scans(&hosts, &[(1, 10_000)], Duration::from_millis(50)).await;
    assert_eq!(began.len(), 10_000);
    let window: Vec<_> = began.iter().take(400).copied().collect();
    assert!(most_in_a_second(&window) <= 15, "{} in one second", most_in_a_second(&window));
    let last = began.last().expect("some").0.as_secs();
    assert!((660..680).contains(&last), "the rate is used: the last began after {last} s");
}

#[tokio::test(start_paused = true)]
async fn another_apps_few_sources_do_not_wait_behind_a_crowd() {
    let hosts = Hosts::default();
    let began = scans(&hosts, &[(1, 3_000), (2, 10)], Duration::from_millis(50)).await;
    let of_second: Vec<_> = began.iter().filter(|(_, app)| *app == 2).map(|(at, _)| *at).collect();
    assert_eq!(of_second.len(), 10);
    assert!(of_second.iter().all(|at| *at < 3 * SECOND), "{of_second:?}");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_scans_list_at_once_and_fetches_leave_room_for_polls() {
    let hosts = Hosts::default();
    let mut turns = Vec::new();
    for _ in 0..5 {
        turns.push(hosts.turn(&remote("git.example", None), false).await.expect("a turn"));
    }
    let remote = remote("git.example", None);
    let next = hosts.turn(&remote, false);
    tokio::pin!(next);
    assert!(tokio::time::timeout(60 * SECOND, &mut next).await.is_err(), "five scans are under way");
    assert_eq!(hosts.shown(10)[0].waiting, 1);
    turns[0].fetches();
    turns[0].fetches();
    turns.push(tokio::time::timeout(SECOND, next).await.expect("room beside a fetch").expect("a turn"));
    for turn in &mut turns {
        turn.fetches();
    }
    for _ in 0..5 {
        turns.push(hosts.turn(&remote, false).await.expect("fetches take no turn of a listing"));
    }
    let beyond = hosts.turn(&remote, false);
    assert!(tokio::time::timeout(60 * SECOND, beyond).await.is_err(), "five listings are under way");
    turns.clear();
    assert_eq!(hosts.shown(10), [], "nothing is held and nobody waits");
}

#[tokio::test(start_paused = true)]
async fn the_ports_of_a_host_share_what_it_takes() {
    let hosts = Hosts::default();
    let mut turns = Vec::new();
    for port in 8_001..=8_005 {
        let remote = remote(&format!("git.example:{port}"), None);
        turns.push(hosts.turn(&remote, false).await.expect("a turn"));
    }
    let sixth = remote("git.example:8006", None);
    let beyond = hosts.turn(&sixth, false);
    assert!(tokio::time::timeout(60 * SECOND, beyond).await.is_err(), "five listings are under way");
    let shown = hosts.shown(10);
    assert_eq!((shown.len(), shown[0].host.as_str(), shown[0].scanning), (1, "git.example", 5));
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_asked_by_one_scan_at_a_time_until_it_answers() {
    let hosts = Hosts::default();
    let remote = remote("git.example", None);
    hosts.turn(&remote, false).await.expect("a turn").ended(false);
    let probe = hosts.turn(&remote, false).await.expect("a turn");
    let second = tokio::time::timeout(60 * SECOND, hosts.turn(&remote, false)).await;
    assert!(second.is_err(), "one at a time");
    probe.ended(true);
    let second = tokio::time::timeout(SECOND, hosts.turn(&remote, false)).await;
    drop(second.expect("it answers again").expect("a turn"));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_silent_for_one_app_is_asked_by_one_scan_of_each_app() {
    let hosts = Hosts::default();
    let [of_one, of_other] =
        [1, 2].map(|number| Remote { apps: vec![app(number)], ..remote("git.example", None) });
    hosts.turn(&of_one, false).await.expect("a turn").ended(false);
    let probe = hosts.turn(&of_one, false).await.expect("a turn");
    let second = hosts.turn(&of_one, false);
    tokio::pin!(second);
    assert!(tokio::time::timeout(60 * SECOND, &mut second).await.is_err(), "one at a time");
    let other = tokio::time::timeout(SECOND, hosts.turn(&of_other, false)).await;
    other.expect("it does not wait for the first app").expect("a turn").ended(true);
    drop(tokio::time::timeout(SECOND, second).await.expect("the host answers again").expect("a turn"));
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn an_app_leaves_places_and_turns_at_a_host_to_other_apps() {
    for (concurrency, most) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (8, 6)] {
        let hosts = Hosts::new(HostPolicy { concurrency, ..HostPolicy::default() });
        let of_one = Remote { apps: vec![app(1)], ..remote("git.example", None) };
        let (mut permits, mut turns) = (Vec::new(), Vec::new());
        let url = address("git.example");
        let request = || tokio::time::timeout(SECOND, hosts.request(&url, None, &of_one.apps, false));
        while let Ok(permit) = request().await {
            permits.push(permit.expect("no host asked for a pause"));
        }
        while let Ok(turn) = tokio::time::timeout(SECOND, hosts.turn(&of_one, false)).await {
            turns.push(turn.expect("no host asked for a pause"));
        }
        assert_eq!((permits.len(), turns.len()), (most, most), "of {concurrency}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_app_holds_enough_places_holds_up_no_other_app() {
    let hosts = Hosts::default();
    let url = address("git.example");
    let (one, other) = ([app(1)], [app(2)]);
    let mut permits = Vec::new();
    for _ in 0..4 {
        permits.push(hosts.request(&url, None, &one, false).await.expect("a permit"));
    }
    let fifth = hosts.request(&url, None, &one, false);
    tokio::pin!(fifth);
    assert!(tokio::time::timeout(SECOND, &mut fifth).await.is_err(), "the last place is for others");
    let before = Instant::now();
    for _ in 0..5 {
        drop(hosts.request(&url, None, &other, false).await.expect("a permit"));
    }
    assert_eq!(before.elapsed(), Duration::ZERO, "the first app's request is the first in the queue");
    permits.pop();
    drop(tokio::time::timeout(SECOND, fifth).await.expect("the first app may have four").expect("a permit"));
}

#[tokio::test(start_paused = true)]
async fn listings_of_one_app_that_hang_delay_no_poll_of_another() {
    let (hosts, mut hanging) = (Hosts::default(), JoinSet::new());
    for port in 8_001..=8_020 {
        let hosts = hosts.clone();
        hanging.spawn(async move {
            for _ in 0..HANGING_POLLS {
                poll(&hosts, &format!("git.example:{port}"), 1, 40 * SECOND).await;
            }
        });
    }
    for _ in 0..600 {
        tokio::time::sleep(SECOND).await;
        let began = Instant::now();
        let ended = tokio::time::timeout(SECOND, poll(&hosts, "git.example", 2, SECOND / 20)).await;
        assert!(ended.is_ok() && began.elapsed() < SECOND / 2, "a poll took {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn listings_of_many_apps_that_hang_take_all_places_only_once() {
    let (hosts, mut hanging, start) = (Hosts::default(), JoinSet::new(), Instant::now());
    for number in 1..=20 {
        let hosts = hosts.clone();
        hanging.spawn(async move {
            for _ in 0..HANGING_POLLS {
                poll(&hosts, &format!("git.example:{}", 8_000 + number), number, 40 * SECOND).await;
            }
        });
    }
    // Four rounds of five listings.
    tokio::time::sleep_until(start + 200 * SECOND).await;
    for _ in 0..600 {
        tokio::time::sleep(SECOND).await;
        let ended = tokio::time::timeout(SECOND, poll(&hosts, "git.example", 100, SECOND / 20)).await;
        assert!(ended.is_ok(), "slow addresses took all places again, {:?} after the start", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn patience_holds_for_one_host_and_credential_and_for_nobody_else() {
    let hosts = Hosts::default();
    let (a, b) = (Secret::new("a".to_owned()), Secret::new("b".to_owned()));
    let url = address("git.example");
    hosts.grant_patience(&url, Some(&a), Some(100 * SECOND));
    let refused = hosts.request(&url, Some(&a), &[], false).await.expect_err("nothing may be sent");
    assert!(matches!(refused, GitError::RateLimited { retry_after: Some(wait) } if wait == 100 * SECOND));
    let postponed = hosts.turn(&remote("git.example", Some("a")), true).await.expect_err("it waits");
    assert_eq!(postponed.wait, 100 * SECOND);
    drop(hosts.request(&url, Some(&b), &[], false).await.expect("another credential"));
    drop(hosts.request(&url, None, &[], false).await.expect("no credential"));
    drop(hosts.request(&address("other.example"), Some(&a), &[], false).await.expect("another host"));
    drop(hosts.turn(&remote("git.example", Some("b")), false).await.expect("another credential"));
    tokio::time::sleep(100 * SECOND).await;
    drop(hosts.request(&url, Some(&a), &[], false).await.expect("the time has come"));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_permit_when_the_host_asks_for_patience_sends_nothing() {
    let hosts = Hosts::new(HostPolicy { concurrency: 1, ..HostPolicy::default() });
    let url = address("git.example");
    let first = hosts.request(&url, None, &[], false).await.expect("a permit");
    let second = hosts.request(&url, None, &[], false);
    tokio::pin!(second);
    assert!(tokio::time::timeout(SECOND, &mut second).await.is_err());
    hosts.grant_patience(&url, None, Some(100 * SECOND));
    drop(first);
    assert!(matches!(second.await, Err(GitError::RateLimited { .. })));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_rate_when_the_host_asks_for_patience_sends_nothing() {
    let hosts = Hosts::new(HostPolicy { interval: 10 * SECOND, burst: 1, concurrency: 5 });
    let url = address("git.example");
    drop(hosts.request(&url, None, &[], false).await.expect("a permit"));
    let second = hosts.request(&url, None, &[], false);
    tokio::pin!(second);
    assert!(tokio::time::timeout(SECOND, &mut second).await.is_err(), "its rate is spent");
    hosts.grant_patience(&url, None, Some(100 * SECOND));
    let refused = second.await.expect_err("the host asked for a pause meanwhile");
    assert!(matches!(refused, GitError::RateLimited { retry_after: Some(wait) } if wait == 91 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_asked_for_patience_is_not_forgotten_among_many_others() {
    let hosts = Hosts::default();
    let url = address("git.example");
    hosts.grant_patience(&url, None, Some(1_000 * SECOND));
    tokio::time::sleep(100 * SECOND).await;
    for number in 0..=HOSTS_KEPT {
        hosts.answered(&address(&format!("host{number}.example")), None);
    }
    let kept = hosts.lock().len();
    assert!(kept < HOSTS_KEPT, "{kept} hosts are kept, idle ones among them");
    let refused = hosts.request(&url, None, &[], false).await.expect_err("900 seconds are left");
    assert!(matches!(refused, GitError::RateLimited { retry_after: Some(wait) } if wait == 900 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn long_requests_leave_a_place_for_a_poll() {
    let hosts = Hosts::default();
    let url = address("git.example");
    let mut long = Vec::new();
    for _ in 0..4 {
        long.push(hosts.request(&url, None, &[], true).await.expect("a permit"));
    }
    let fifth = tokio::time::timeout(60 * SECOND, hosts.request(&url, None, &[], true)).await;
    assert!(fifth.is_err(), "one place is left for polls");
    let poll = tokio::time::timeout(SECOND, hosts.request(&url, None, &[], false)).await;
    drop(poll.expect("in time").expect("a permit"));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_place_is_free_waits_for_no_timer() {
    let (hosts, before) = (Hosts::default(), Instant::now());
    for _ in 0..HostPolicy::default().burst {
        drop(hosts.request(&address("git.example"), None, &[], false).await.expect("a permit"));
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_app_with_long_requests_leaves_a_place_to_others() {
    let hosts = Hosts::default();
    let url = address("git.example");
    let (one, other) = ([app(1)], [app(2)]);
    let mut long = Vec::new();
    for _ in 0..3 {
        long.push(hosts.request(&url, None, &one, true).await.expect("a permit"));
    }
    let fourth = tokio::time::timeout(60 * SECOND, hosts.request(&url, None, &one, true)).await;
    assert!(fourth.is_err(), "the last one is for others");
    let of_other = tokio::time::timeout(SECOND, hosts.request(&url, None, &other, true)).await;
    drop(of_other.expect("in time").expect("a permit"));
}

#[tokio::test(start_paused = true)]
async fn what_one_port_asks_for_binds_no_other() {
    let hosts = Hosts::default();
    let (one, other) = (address("git.example:8001"), address("git.example:8002"));
    hosts.grant_patience(&one, None, Some(900 * SECOND));
    assert!(matches!(hosts.request(&one, None, &[], false).await, Err(GitError::RateLimited { .. })));
    drop(hosts.request(&other, None, &[], false).await.expect("it asked for nothing"));
}

#[tokio::test(start_paused = true)]
async fn requests_that_no_scan_makes_slow_the_scans_down() {
    let hosts = Hosts::default();
    let url = address("git.example");
    for _ in 0..45 {
        drop(hosts.request(&url, None, &[], false).await.expect("a permit"));
    }
    let before = Instant::now();
    poll(&hosts, "git.example", 1, Duration::ZERO).await;
    assert!(before.elapsed() >= Duration::from_millis(60), "after {:?}", before.elapsed());
    let elsewhere = Instant::now();
    poll(&hosts, "other.example", 1, Duration::ZERO).await;
    assert_eq!(elsewhere.elapsed(), Duration::ZERO, "hosts share nothing");
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_one_app_leave_the_polls_of_another_their_turn() {
    for crowd in [(1, 20), (3, 20), (8, 20), (100, 0)] {
        // A quick answer, as 404, and a slow one.
        for answer in [Duration::from_millis(2), Duration::from_millis(250)] {
            let slowest = slowest_poll_beside(crowd, answer).await;
            assert!(slowest < 2 * SECOND, "{crowd:?}, {answer:?}: a poll took {slowest:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_host_takes_is_divided_by_those_who_share_it() {
    for (sharers, most) in [(1, 15), (3, 5)] {
        let hosts = Hosts::default();
        hosts.divide_by(sharers);
        let count = 600 / sharers;
        let began = scans(&hosts, &[(1, count)], Duration::from_millis(50)).await;
        assert!(most_in_a_second(&began) <= most, "{} of {sharers}", most_in_a_second(&began));
        let last = began.last().expect("some").0.as_secs();
        assert!((36..=41).contains(&last), "all of it is used: the last of {sharers} began after {last} s");

        // Requests that no scan makes.
        let (hosts, url) = (Hosts::default(), address("git.example"));
        hosts.divide_by(sharers);
        let start = Instant::now();
        for _ in 0..count {
            drop(hosts.request(&url, None, &[], false).await.expect("a permit"));
        }
        let took = start.elapsed().as_secs();
        assert!((38..=40).contains(&took), "{count} requests of {sharers} took {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_repository_waits_for_nothing() {
    let hosts = Hosts::new(HostPolicy { interval: 60 * SECOND, burst: 1, concurrency: 1 });
    let local = Remote { location: Location::Local("/r".into()), ..remote("git.example", None) };
    let mut turns = Vec::new();
    for _ in 0..10 {
        turns.push(hosts.turn(&local, false).await.expect("a turn"));
    }
    assert_eq!(hosts.shown(10), []);
}
