//! Hosts that send as slowly as they may keep nobody else from being polled: an app watches ninety repositories
//! of ten hosts, each of which answers a fetch with a word of progress a second and no pack. Another app, whose
//! repository is at a host of its own, gets its commits as before; and so does another repository of the app that
//! watches them.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    isolation::usual,
    support::{
        api::App,
        git_host::Fault,
        patience::{SOON, eventually},
        project::Project,
        remote::Host,
        server::Server,
        subscriber::Subscriber,
    },
};

/// Hosts, and repositories of each.
const HOSTS: usize = 10;
const REPOSITORIES: usize = 9;
/// Scans at the same time, over all apps.
const SCANS: u64 = 64;

#[test]
fn hosts_that_drip_keep_nobody_else_from_being_polled() {
    let server = Server::start();
    let (quick_side, slow_side) = (Subscriber::start(), Subscriber::start());
    let (quick, slow) = (App::onboard(&server, &quick_side), App::onboard(&server, &slow_side));
    let (project, host) = (Project::with(&[("a", "0")]), Host::start_apart());
    host.publish(&project, "o/r");
    let watched = quick.watch_with(&server, &json!({ "url": host.url("o/r") }));
    quick.wait_until_held(&server, &watched, &project.head());
    let deliver = |text: &str| {
        let began = Instant::now();
        project.write("a", text.as_bytes());
        let head = project.commit(text);
        host.push_main(&project, "o/r");
        quick.wait_until_held(&server, &watched, &head);
        began.elapsed()
    };
    let alone = (1..=3).map(|round| deliver(&format!("alone {round}"))).max().expect("three");

    let (own_project, own_host) = (Project::with(&[("a", "0")]), Host::start_apart());
    own_host.publish(&own_project, "o/r");
    let own = slow.watch_with(&server, &json!({ "url": own_host.url("o/r") }));
    slow.wait_until_held(&server, &own, &own_project.head());

    let hosts: Vec<Host> = (0..HOSTS).map(|_| Host::start_apart()).collect();
    for host in &hosts {
        let small = Project::with(&[("a", "1")]);
        for number in 0..REPOSITORIES {
            host.publish(&small, &format!("o/{number}"));
        }
        host.misbehave(Some(Fault::ProgressAlone));
        for number in 0..REPOSITORIES {
            slow.watch_with(&server, &json!({ "url": host.url(&format!("o/{number}")) }));
        }
    }
    let scanning = || {
        let shown = server.ask_as_admin("GET", "/api/admin/overview").json();
        let hosts = shown["hosts"].as_array().cloned().unwrap_or_default();
        hosts.iter().filter_map(|host| host["scanning"].as_u64()).sum::<u64>()
    };
    eventually("places that slow hosts hold", SOON, || (scanning() >= SCANS / 2).then_some(()));
    let beside: Vec<Duration> = (1..=5).map(|round| deliver(&format!("beside {round}"))).collect();
    println!("{beside:?} beside slow hosts, {alone:?} alone");
    // A place that a slow host holds is held for minutes.
    assert!(usual(&beside) < alone * 4 + Duration::from_secs(10), "{beside:?} instead of {alone:?}");
    // Those that drip hold no place for long, so that the app that watches them goes on as well.
    own_project.write("a", b"1");
    let head = own_project.commit("own");
    own_host.push_main(&own_project, "o/r");
    slow.wait_until_held(&server, &own, &head);
    quick_side.assert_straight();
}
