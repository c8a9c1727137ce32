//! The budget of a host on paused time: who gets a turn, when, and who must not ask.

use std::sync::Arc;

use tidings_entity::id::RepositoryId;
use tokio::task::JoinSet;
use ulid::Ulid;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

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

/// So many scans that each take `span`; when each began, and for which app.
async fn scans(hosts: &Hosts, of_app: &[(u128, usize)], span: Duration) -> Vec<(Duration, u128)> {
    let (start, began) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let mut tasks = JoinSet::new();
    for (number, count) in of_app {
        for _ in 0..*count {
            let (hosts, began, number) = (hosts.clone(), Arc::clone(&began), *number);
            tasks.spawn(async move {
                let remote = Remote { apps: vec![app(number)], ..remote("git.example", None) };
                let turn = hosts.turn(&remote, false).await;
                let turn = turn.expect("nobody asks for requested");
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
async fn patience_holds_for_one_host_and_credential_and_for_nobody_else() {
    let hosts = Hosts::default();
    let (a, b) = (Secret::new("a".to_owned()), Secret::new("b".to_owned()));
    let url = address("git.example");
    hosts.grant_patience(&url, Some(&a), Some(100 * SECOND));
    let refused = hosts.request(&url, Some(&a), None).await.expect_err("nothing may be sent");
    assert!(matches!(refused, GitError::RateLimited { retry_after: Some(wait) } if wait == 100 * SECOND));
    let postponed = hosts.turn(&remote("git.example", Some("a")), true).await.expect_err("it waits");
    assert_eq!(postponed.wait, 100 * SECOND);
    drop(hosts.request(&url, Some(&b), None).await.expect("another credential"));
    drop(hosts.request(&url, None, None).await.expect("no credential"));
    drop(hosts.request(&address("other.example"), Some(&a), None).await.expect("another host"));
    drop(hosts.turn(&remote("git.example", Some("b")), false).await.expect("another credential"));
    tokio::time::sleep(100 * SECOND).await;
    drop(hosts.request(&url, Some(&a), None).await.expect("the time has come"));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_permit_when_the_host_asks_for_patience_sends_nothing() {
    let hosts = Hosts::new(HostPolicy { concurrency: 1, ..HostPolicy::default() });
    let url = address("git.example");
    let first = hosts.request(&url, None, None).await.expect("a permit");
    let second = hosts.request(&url, None, None);
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
    drop(hosts.request(&url, None, None).await.expect("a permit"));
    let second = hosts.request(&url, None, None);
    tokio::pin!(second);
    assert!(tokio::time::timeout(SECOND, &mut second).await.is_err(), "its rate is spent");
    hosts.grant_patience(&url, None, Some(100 * SECOND));
    let refused = second.await.expect_err("the host asked for requested meanwhile");
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
    let refused = hosts.request(&url, None, None).await.expect_err("900 seconds are left");
    assert!(matches!(refused, GitError::RateLimited { retry_after: Some(wait) } if wait == 900 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn long_requests_leave_a_place_for_a_poll() {
    let hosts = Hosts::default();
    let url = address("git.example");
    let mut long = Vec::new();
    for _ in 0..4 {
        long.push(hosts.request(&url, None, Some(&[])).await.expect("a permit"));
    }
    let fifth = tokio::time::timeout(60 * SECOND, hosts.request(&url, None, Some(&[]))).await;
    assert!(fifth.is_err(), "one place is left for polls");
    let poll = tokio::time::timeout(SECOND, hosts.request(&url, None, None)).await;
    drop(poll.expect("in time").expect("a permit"));
}

#[tokio::test(start_paused = true)]
async fn an_app_with_long_requests_leaves_a_place_to_others() {
    let hosts = Hosts::default();
    let url = address("git.example");
    let (one, other) = ([app(1)], [app(2)]);
    let mut long = Vec::new();
    for _ in 0..3 {
        long.push(hosts.request(&url, None, Some(&one)).await.expect("a permit"));
    }
    let fourth = tokio::time::timeout(60 * SECOND, hosts.request(&url, None, Some(&one))).await;
    assert!(fourth.is_err(), "the last one is for others");
    let of_other = tokio::time::timeout(SECOND, hosts.request(&url, None, Some(&other))).await;
    drop(of_other.expect("in time").expect("a permit"));
}

#[tokio::test(start_paused = true)]
async fn what_one_port_asks_for_binds_no_other() {
    let hosts = Hosts::default();
    let (one, other) = (address("git.example:8001"), address("git.example:8002"));
    hosts.grant_patience(&one, None, Some(900 * SECOND));
    assert!(matches!(hosts.request(&one, None, None).await, Err(GitError::RateLimited { .. })));
    drop(hosts.request(&other, None, None).await.expect("it asked for nothing"));
}

#[tokio::test(start_paused = true)]
async fn requests_that_no_scan_makes_slow_the_scans_down() {
    let hosts = Hosts::default();
    let url = address("git.example");
    for _ in 0..45 {
        drop(hosts.request(&url, None, None).await.expect("a permit"));
    }
    let before = Instant::now();
    drop(hosts.turn(&remote("git.example", None), false).await.expect("a turn"));
    assert!(before.elapsed() >= Duration::from_millis(60), "after {:?}", before.elapsed());
    let elsewhere = Instant::now();
    drop(hosts.turn(&remote("other.example", None), false).await.expect("a turn"));
    assert_eq!(elsewhere.elapsed(), Duration::ZERO, "hosts share nothing");
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
            drop(hosts.request(&url, None, None).await.expect("a permit"));
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
