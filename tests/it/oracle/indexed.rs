//! The same random histories, but changes become tasks: workers that are slow, killed, frozen and wrong build an
//! index of every branch, servers are killed meanwhile, and in the end the index is what git lists, byte for
//! byte.
//!
//! `TIDINGS_STORY_COMMITS=500` makes the stories longer, `TIDINGS_STORY_SEED=7` plays one seed.

use std::{path::PathBuf, thread, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use super::history::{History, RELEASES};
use crate::support::{
    api::App,
    dice::Dice,
    fleet::Fleet,
    patience::{SOON, eventually},
    server::Server,
    setting,
    workers::{Behaviour, COMMAND, Workers, of_every_kind},
};

/// Pushes, unless `TIDINGS_STORY_COMMITS` says otherwise.
const COMMITS: u64 = 30;
/// Between two pushes at most.
const LIFE: Duration = Duration::from_millis(1_200);
/// A claim of these workers.
const CLAIM: Duration = Duration::from_secs(2);
/// Unfinished tasks of a branch at most.
const WINDOW: u64 = 40;
/// Claims until a task is dead.
const ATTEMPTS: u64 = 4;
/// After this many pushes everything comes to rest, and the index is compared.
const REST: u64 = 10;

/// Whether a watch follows `main` alone, or branches that come and go.
struct Watched {
    id: String,
    branches: &'static [&'static str],
}

struct World<'w> {
    servers: &'w mut [Server],
    app: App,
    workers: Workers,
    watched: Vec<Watched>,
    history: History,
    path: PathBuf,
    dice: Dice,
    most_unfinished: u64,
}

fn prepared(server: Server) -> Server {
    server.with("git.branch_gone_after", "200ms").with("telemetry.log_filter", "info,tidings=info")
}

impl<'w> World<'w> {
    fn begin(servers: &'w mut [Server], path: PathBuf, thrown: &str) -> Self {
        let mut dice = Dice::thrown(thrown);
        let history = History::begin(&path, dice.number());
        let app = App::onboard_alone(&servers[0]);
        app.follow_patterns(&servers[0]);
        let queue = json!({ "max_attempts": ATTEMPTS, "retry_base_seconds": 1 });
        let reply = app.ask(&servers[0], "PUT", &format!("/api/queues/{COMMAND}"), Some(&queue));
        assert_eq!(reply.status, 200, "{}", reply.json());
        let kinds: [(&str, &'static [&'static str]); 2] = [("main", &["main"]), ("release/*", &RELEASES)];
        let watch = |(branch, branches): (&str, &'static [&'static str])| {
            let sink = json!({ "kind": "tasks", "command": COMMAND, "window": WINDOW });
            let url = format!("file://{}", path.display());
            let mut body = json!({ "url": url, "branch": branch, "symlinks": "send", "sink": sink });
            if branch != "main" {
                body["on_branch_gone"] = json!("delete");
            }
            Watched { id: app.watch_with(&servers[0], &body), branches }
        };
        let watched = kinds.map(watch).into();
        let workers = Workers::of(&app, CLAIM, of_every_kind);
        Self { servers, app, workers, watched, history, path, dice, most_unfinished: 0 }
    }

    /// A push, and a while in which workers work and a server may be killed.
    fn step(&mut self, number: u64) {
        if number % 7 == 6 {
            self.history.lose_main();
            let gone = self.dice.up_to(LIFE);
            self.work(gone, None);
            self.history.bring_main_back();
        } else {
            self.history.step();
        }
        let (life, victim) = (self.dice.up_to(LIFE), self.dice.below(self.servers.len() as u64));
        let victim = self.dice.one_in(3).then(|| usize::try_from(victim).expect("small"));
        self.work(life, victim);
        if let Some(victim) = victim {
            self.servers[victim].kill();
            self.servers[victim].run();
        }
    }

    fn work(&mut self, life: Duration, victim: Option<usize>) {
        let (servers, workers) = (&*self.servers, &self.workers);
        let most = workers.while_they_work(servers, &mut self.dice, || {
            thread::sleep(life);
            let unfinished = workers.unfinished(&servers[0]);
            if let Some(victim) = victim {
                servers[victim].signal(Signal::KILL);
            }
            unfinished
        });
        self.most_unfinished = self.most_unfinished.max(most);
    }

    /// Waits until every branch is held, every dead letter was sent again, and no task is unfinished.
    fn rest(&mut self) {
        let Self { servers, app, workers, watched, history, dice, .. } = self;
        let servers: &[Server] = servers;
        let server = &servers[0];
        let waits_for = || {
            if workers.redrive_all(server) {
                return Some("dead letters".to_owned());
            }
            for watch in watched.iter() {
                let shown = app.repository(server, &watch.id);
                let listed = shown["branches"].as_array().cloned().unwrap_or_default();
                for name in watch.branches {
                    let full = format!("refs/heads/{name}");
                    let branch =
                        listed.iter().find(|branch| branch["branch"] == *full).cloned().unwrap_or_default();
                    let head = history.head(name).map(|head| head.to_string());
                    if branch["held_commit"] != json!(head) || !branch["round"].is_null() {
                        return Some(format!("{head:?} of {name}: {branch:#}"));
                    }
                }
            }
            (!workers.are_idle()).then(|| "workers".to_owned())
        };
        let mut last = None;
        workers.while_they_work(servers, dice, || {
            let until = std::time::Instant::now() + 5 * SOON;
            loop {
                last = waits_for();
                if last.is_none() || std::time::Instant::now() > until {
                    break;
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        workers.evidence().assert_faultless();
        assert!(last.is_none(), "nothing comes to rest: {last:?}; {}", workers.queue(server));
    }

    /// The index is what git lists, and the queue counts nothing.
    fn compare(&self) {
        for watch in &self.watched {
            for name in watch.branches {
                let head = self.history.head(name).map(|head| head.to_string());
                let commit = (self.path.as_path(), head.as_deref());
                self.workers.index().assert_is((&watch.id, name), commit, |_| true);
            }
        }
        let counts = eventually("queue at rest", SOON, || {
            let queue = self.workers.queue(&self.servers[0]);
            let counts = queue["counts"].as_object().expect("counts").clone();
            counts.values().all(|count| *count == 0).then_some(counts)
        });
        assert!(!counts.is_empty());
    }

    fn assert_showed_something(&self) {
        let (behaviours, sights) = (self.workers.behaviours(), self.workers.evidence().sights());
        let (dead, most) = (sights.dead, self.most_unfinished);
        println!("{sights:?}, {dead} of them dead, at most {most} tasks at once; {behaviours:?}");
        let all = [
            Behaviour::Slow,
            Behaviour::Late,
            Behaviour::Freeze,
            Behaviour::Die,
            Behaviour::Fail,
            Behaviour::Nack,
            Behaviour::Abandon,
        ];
        assert!(
            all.iter().all(|behaviour| behaviours.contains_key(behaviour)),
            "not every kind of worker had a task"
        );
        let seen = [sights.done, sights.refused, sights.confirmed, sights.given_up, sights.forged];
        assert!(seen.iter().all(|count| *count > 0), "{sights:?} proves nothing");
        let cursors = 1 + RELEASES.len() as u64;
        assert!(self.most_unfinished <= WINDOW * cursors, "{} unfinished tasks", self.most_unfinished);
    }
}

/// Plays a history at these servers.
fn play(servers: &mut [Server], thrown: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::begin(servers, folder.path().join("r.git"), thrown);
    let commits = setting("TIDINGS_STORY_COMMITS").unwrap_or(COMMITS);
    for number in 0..commits {
        world.step(number);
        if number % REST == REST - 1 || number + 1 == commits {
            world.rest();
            world.compare();
        }
    }
    world.assert_showed_something();
}

#[test]
fn workers_of_every_kind_build_the_index_that_git_lists() {
    let mut server = prepared(Server::prepare());
    server.run();
    play(&mut [server], "index");
}

#[test]
fn at_two_replicas_workers_of_every_kind_build_the_index_that_git_lists() {
    let Some(mut fleet) = Fleet::dressed(2, Duration::from_secs(2), prepared) else { return };
    play(&mut fleet.servers, "index at replicas");
}
