//! A subscription over two replicas on one PostgreSQL database: both write the ledger that it reads, and the
//! one that sends dies again and again.

use std::collections::BTreeMap;

use super::*;
use crate::support::fleet::Fleet;

/// Repositories, so many that each replica works on some: their ids fall to one of the two by chance.
const REPOSITORIES: usize = 16;
/// Commits of each repository between two deaths.
const COMMITS: usize = 2;
/// Deaths of the replica that sends.
const DEATHS: usize = 3;

#[test]
fn another_replica_goes_on_where_the_one_that_sent_was_killed_while_both_write() {
    let Some(mut fleet) = Fleet::start(2, crate::replicas::LEASE) else { return };
    let (subscriber, inbox) = (Subscriber::start(), Inbox::start());
    let app = App::onboard(&fleet.servers[0], &subscriber);
    let projects: Vec<Project> = (0..REPOSITORIES).map(|_| Project::with(&[("a", "0")])).collect();
    let watch = |project: &Project| {
        let id = app.watch_with(&fleet.servers[0], &json!({ "url": project.url(), "mode": "every" }));
        app.wait_until_held(&fleet.servers[0], &id, &project.head());
        id
    };
    let watches: Vec<String> = projects.iter().map(watch).collect();
    let body = json!({ "name": "ops", "filter": ROUNDS, "sink": { "url": inbox.url() } });
    let made = app.ask(&fleet.servers[1], "POST", "/api/subscriptions", Some(&body));
    assert_eq!(made.status, 201, "{}", made.json());
    let mut killed_at = Vec::new();
    for death in 0..=DEATHS {
        let owners: Vec<_> = watches.iter().filter_map(|watch| fleet.owner_of(watch)).collect();
        assert!(owners.contains(&0) && owners.contains(&1), "both write: {owners:?}");
        let before = inbox.taken().len();
        let (fleet_now, inbox) = (&fleet, &inbox);
        let sender = thread::scope(|scope| {
            for (number, project) in projects.iter().enumerate() {
                scope.spawn(move || {
                    for commit in 0..COMMITS {
                        project.write("a", format!("{death} {number} {commit}").as_bytes());
                        project.commit("one more");
                    }
                });
            }
            // In the middle of its work, the last time not at all.
            eventually("entries on their way", SOON, || (inbox.taken().len() > before + 3).then_some(()));
            let sender = fleet_now.owner_of_app(&app.id).expect("an owner");
            if death < DEATHS {
                fleet_now.servers[sender].signal(Signal::KILL);
            }
            sender
        });
        let alive = if death < DEATHS { 1 - sender } else { sender };
        if death < DEATHS {
            fleet.servers[sender].kill();
            subscriber.model().note_kill();
            killed_at.push(inbox.taken().len());
        }
        for (watch, project) in watches.iter().zip(&projects) {
            app.wait_until_held(&fleet.servers[alive], watch, &project.head());
        }
        if death < DEATHS {
            fleet.servers[sender].run();
            fleet.wait_until_shared(2);
        }
    }
    let listed = crate::ledger::entries(&fleet.servers[0], &app, "q=type%3A~round");
    let numbers: Vec<u64> = listed.iter().map(|entry| entry["number"].as_u64().expect("one")).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "the ledger has no hole");
    inbox.wait_for(*numbers.last().expect("entries"));
    assert_eq!(once(&inbox.taken()), numbers, "each at least once, in order");
    assert!(killed_at.iter().all(|taken| *taken < inbox.taken().len()), "another one went on: {killed_at:?}");
    let mut ids: BTreeMap<u64, String> = BTreeMap::new();
    for letter in inbox.letters() {
        let id = letter.header("webhook-id").to_owned();
        let known = ids.entry(letter.number()).or_insert_with(|| id.clone());
        assert_eq!(*known, id, "entry {} has one id, whichever replica sends it", letter.number());
    }
    for entry in &listed {
        assert_eq!(ids[&entry["number"].as_u64().expect("one")], entry["entry_id"].as_str().expect("an id"));
    }
}
