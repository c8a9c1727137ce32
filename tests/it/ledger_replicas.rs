//! One ledger, written by two replicas at once: a reader never sees an entry before the one with the number
//! below, and misses none.

use std::thread;

use serde_json::json;

use crate::{
    ledger::{FOLLOW, commit, entries, numbers, park_bad},
    support::{
        api::App,
        fleet::Fleet,
        project::Project,
        server::Server,
        subscriber::Subscriber,
        tail::{Tail, TailEvent},
    },
};

/// Repositories, so many that each replica works on some.
const REPOSITORIES: usize = 8;
/// Commits of each repository before a replica is killed, and as many after it.
const COMMITS: u64 = 6;

/// Numbers of the first entries that a follower sees: fewer than `count` if no other came for long.
fn follow(server: &Server, app: &App, count: u64) -> Vec<u64> {
    let mut tail = Tail::open(server, app, &format!("{FOLLOW}?after=beginning"), "");
    let number = |(_, _, entry): TailEvent| entry["number"].as_u64().expect("a number");
    (0..count).map_while(|_| tail.try_next()).map(number).collect()
}

#[test]
fn an_entry_is_never_seen_before_the_one_below_it_while_two_replicas_write() {
    let Some(mut fleet) = Fleet::start(2, crate::replicas::CALM_LEASE) else { return };
    let subscriber = Subscriber::start();
    let app = App::onboard(&fleet.servers[0], &subscriber);
    park_bad(&subscriber);
    let projects: Vec<Project> = (0..REPOSITORIES).map(|_| Project::with(&[("a", "1")])).collect();
    let watches: Vec<String> = projects
        .iter()
        .map(|project| app.watch_with(&fleet.servers[0], &json!({ "url": project.url(), "mode": "every" })))
        .collect();
    // A commit that the first poll of its watch finds shares a round with all commits before it, and the
    // refused files of one round are folded.
    for (watch, project) in watches.iter().zip(&projects) {
        app.wait_until_held(&fleet.servers[0], watch, &project.head());
    }
    let total = REPOSITORIES as u64 * COMMITS;
    thread::scope(|scope| {
        let readers: Vec<_> =
            fleet.servers.iter().map(|server| scope.spawn(|| follow(server, &app, total))).collect();
        for project in &projects {
            scope.spawn(move || (0..COMMITS).for_each(|number| drop(commit(project, number))));
        }
        for reader in readers {
            let seen = reader.join().expect("it read");
            assert_eq!(seen, (1..=total).collect::<Vec<_>>(), "in order, without a hole");
        }
    });
    for (watch, project) in watches.iter().zip(&projects) {
        app.wait_until_held(&fleet.servers[0], watch, &project.head());
    }
    // The end of a replica changes nothing of that.
    fleet.servers[0].kill();
    subscriber.model().note_kill();
    for project in &projects {
        commit(project, COMMITS);
    }
    for (watch, project) in watches.iter().zip(&projects) {
        app.wait_until_held(&fleet.servers[1], watch, &project.head());
    }
    let all = numbers(&entries(&fleet.servers[1], &app, ""));
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>(), "no hole and no double after a kill");
    assert_eq!(all.len() as u64, total + REPOSITORIES as u64);
}
