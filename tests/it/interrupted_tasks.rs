//! What people and branches do in the middle of a round whose changes are tasks, with claims out and a kill of a
//! server at that moment: nothing is lost, nothing is told twice, and nothing comes after the end of a watch.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    api::App,
    dice::Dice,
    fleet::Fleet,
    patience::{SOON, eventually},
    project::Project,
    server::Server,
    workers::{COMMAND, Claimed, Word, Workers, good},
};

/// Files of the first commit, half of them below `a`.
const FILES: usize = 120;
/// Unfinished tasks at most.
const WINDOW: usize = 20;
/// This many changes are done before it happens.
const DONE: usize = 15;
/// How long workers claim. A kill may cut off the answer to a claim; its tasks come again after this time.
const CLAIM: Duration = Duration::from_secs(10);
/// How long the tasks are claimed that stay out over a kill: longer than a case lasts.
const OUT: Duration = Duration::from_secs(600);
/// Nothing comes for this long.
const STILL: Duration = Duration::from_millis(400);
/// A kill comes this long after a request was sent, at most.
const CUT: Duration = Duration::from_millis(40);
/// And this long after workers went on.
const LIFE: Duration = Duration::from_millis(800);

/// What happens in the middle.
enum Happening {
    /// A request, with the answers that mean that it was done; it is sent again after a kill.
    Asked(&'static str, fn(&Scene<'_>) -> String, fn() -> Value, &'static [u16]),
    /// A push to the watched repository.
    Pushed(fn(&Project)),
}

/// The state in which a case must end.
enum End {
    /// The index is the tree of `main`, of the paths that are meant. The number is that of the changes done,
    /// where it is certain.
    Tree(fn(&[u8]) -> bool, Option<usize>),
    /// The index stays as it is.
    Nothing,
}

struct Case {
    name: &'static str,
    /// The branch, or a pattern whose branches have their files deleted when they are gone.
    branch: &'static str,
    happens: Happening,
    /// The answers to a worker that then completes a task, or gives a task back.
    complete: u16,
    nack: u16,
    /// Whether workers are given nothing until it goes on.
    is_still: bool,
    goes_on: fn(&mut Scene<'_>),
    end: End,
}

/// An app, its watch and its workers.
struct Scene<'s> {
    servers: &'s mut [Server],
    dice: &'s mut Dice,
    app: App,
    project: Project,
    id: String,
    workers: Workers,
}

fn everything(_: &[u8]) -> bool {
    true
}

fn below_a(path: &[u8]) -> bool {
    path.starts_with(b"a/")
}

fn nothing() -> Value {
    Value::Null
}

fn verb(scene: &Scene<'_>, verb: &str) -> String {
    format!("/api/repositories/{}/{verb}", scene.id)
}

fn watch(scene: &Scene<'_>) -> String {
    format!("/api/repositories/{}", scene.id)
}

fn own_app(_: &Scene<'_>) -> String {
    "/api/app".to_owned()
}

const CASES: &[Case] = &[
    Case {
        name: "pause and resume",
        branch: "main",
        happens: Happening::Asked("POST", |scene| verb(scene, "pause"), nothing, &[200, 202]),
        complete: 200,
        nack: 200,
        is_still: true,
        goes_on: |scene| scene.ask("POST", &verb(scene, "resume"), &Value::Null, &[200, 202]),
        end: End::Tree(everything, Some(FILES)),
    },
    Case {
        name: "resync",
        branch: "main",
        happens: Happening::Asked("POST", |scene| verb(scene, "resync"), nothing, &[200, 202]),
        complete: 409,
        nack: 200,
        is_still: true,
        goes_on: |_| (),
        end: End::Tree(everything, None),
    },
    Case {
        name: "changed view",
        branch: "main",
        happens: Happening::Asked("PATCH", watch, || json!({ "include": ["a/**"] }), &[200]),
        complete: 200,
        nack: 200,
        is_still: false,
        goes_on: |_| (),
        end: End::Tree(below_a, None),
    },
    Case {
        name: "force push",
        branch: "main",
        happens: Happening::Pushed(|project| drop(project.git(["update-ref", "refs/heads/main", "other"]))),
        complete: 200,
        nack: 200,
        is_still: false,
        goes_on: |_| (),
        end: End::Tree(everything, None),
    },
    Case {
        name: "branch gone, files kept",
        branch: "main",
        happens: Happening::Pushed(lose_main),
        complete: 200,
        nack: 200,
        is_still: false,
        goes_on: |scene| {
            let first = scene.project.git(["rev-parse", "first"]);
            scene.work_until_held(Some(&first), everything);
            drop(scene.project.git(["update-ref", "refs/heads/main", "other"]));
        },
        end: End::Tree(everything, None),
    },
    Case {
        name: "branch gone, files deleted",
        branch: "main*",
        happens: Happening::Pushed(lose_main),
        complete: 200,
        nack: 200,
        is_still: false,
        goes_on: |scene| {
            scene.work_until_held(None, everything);
            drop(scene.project.git(["update-ref", "refs/heads/main", "other"]));
        },
        end: End::Tree(everything, None),
    },
    Case {
        name: "app disabled and enabled",
        branch: "main",
        happens: Happening::Asked("PATCH", own_app, || json!({ "disabled": true }), &[200]),
        complete: 200,
        nack: 200,
        is_still: true,
        goes_on: |scene| scene.ask("PATCH", &own_app(scene), &json!({ "disabled": false }), &[200]),
        end: End::Tree(everything, Some(FILES)),
    },
    Case {
        name: "unwatch",
        branch: "main",
        happens: Happening::Asked("DELETE", watch, nothing, &[204, 404]),
        complete: 409,
        nack: 409,
        is_still: true,
        goes_on: |_| (),
        end: End::Nothing,
    },
    Case {
        name: "erase",
        branch: "main",
        happens: Happening::Asked("DELETE", own_app, nothing, &[204, 401]),
        complete: 401,
        nack: 401,
        is_still: true,
        goes_on: |_| (),
        end: End::Nothing,
    },
];

fn lose_main(project: &Project) {
    project.git(["update-ref", "-d", "refs/heads/main"]);
}

/// A project whose branch `main` is at `first`, and that has another history on `other`.
fn project() -> Project {
    let project = Project::new();
    for number in 0..FILES / 2 {
        project.write(format!("a/{number:02}"), format!("first {number}").as_bytes());
        project.write(format!("b/{number:02}"), format!("first {number}").as_bytes());
    }
    project.commit("first");
    project.git(["branch", "first"]);
    project.git(["checkout", "--quiet", "--orphan", "other"]);
    for number in 0..FILES / 4 {
        project.remove(&format!("a/{number:02}"));
        project.write(format!("b/{number:02}"), b"other");
        project.write(format!("a/new {number:02}"), b"new");
    }
    project.commit("other");
    project
}

impl<'s> Scene<'s> {
    fn begin(servers: &'s mut [Server], dice: &'s mut Dice, case: &Case) -> Self {
        let app = App::onboard_alone(&servers[0]);
        app.follow_patterns(&servers[0]);
        let project = project();
        let sink = json!({ "kind": "tasks", "command": COMMAND, "window": WINDOW });
        let mut body = json!({ "url": project.url(), "branch": case.branch, "sink": sink });
        if case.branch != "main" {
            body["on_branch_gone"] = json!("delete");
        }
        let id = app.watch_with(&servers[0], &body);
        let workers = Workers::of(&app, CLAIM, good);
        Self { servers, dice, app, project, id, workers }
    }

    /// Sends a request to any server until the answer is one of these.
    fn ask(&self, method: &str, path: &str, body: &Value, accepted: &[u16]) {
        let body = (!body.is_null()).then_some(body);
        eventually("answer", SOON, || {
            let reply = self.servers[0].ask(method, path, Some(&self.app.token), body).ok()?;
            let known = accepted.contains(&reply.status) || reply.status == 503;
            assert!(known, "{method} {path}: {} {}", reply.status, reply.json());
            (reply.status != 503).then_some(())
        });
    }

    fn branch(&self) -> Value {
        self.app.repository(&self.servers[0], &self.id)["branches"][0].take()
    }

    fn any_server(&mut self) -> usize {
        usize::try_from(self.dice.below(self.servers.len() as u64)).expect("small")
    }

    /// It happens, and a server is killed meanwhile.
    fn strike(&mut self, happening: &Happening) {
        let (victim, asked) = (self.any_server(), self.any_server());
        let cut = self.dice.up_to(CUT);
        match happening {
            Happening::Asked(method, path, body, accepted) => {
                let (path, body) = (path(self), body());
                let (servers, token) = (&*self.servers, &self.app.token);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let body = (!body.is_null()).then_some(&body);
                        // An answer that the kill cuts off is no answer.
                        drop(servers[asked].ask(method, &path, Some(token), body));
                    });
                    thread::sleep(cut);
                    servers[victim].signal(Signal::KILL);
                });
                self.restart(victim);
                self.ask(method, &path, &body, accepted);
            }
            Happening::Pushed(push) => {
                push(&self.project);
                thread::sleep(10 * cut);
                self.servers[victim].signal(Signal::KILL);
                self.restart(victim);
            }
        }
    }

    fn restart(&mut self, victim: usize) {
        self.servers[victim].kill();
        self.servers[victim].run();
    }

    /// Workers work until this many changes are done.
    fn work_until_done(&mut self, count: usize) {
        let workers = &self.workers;
        workers.while_they_work(self.servers, self.dice, || {
            eventually("done changes", SOON, || (workers.evidence().done() >= count).then_some(()));
        });
    }

    /// Workers work, over a kill, until the branch is held at this commit with nothing open, and the index is
    /// its tree: the round of a changed view begins when another one has ended.
    fn work_until_held(&mut self, commit: Option<&str>, is_meant: fn(&[u8]) -> bool) {
        let (victim, life) = (self.any_server(), self.dice.up_to(LIFE));
        let (servers, workers) = (&*self.servers, &self.workers);
        workers.while_they_work(servers, self.dice, || {
            thread::sleep(life);
            servers[victim].signal(Signal::KILL);
        });
        self.restart(victim);
        let (app, id, server, path) = (&self.app, &self.id, &self.servers[0], self.project.path());
        let index_is = || self.workers.index().is((id, "main"), (&path, commit), is_meant);
        self.workers.while_they_work(self.servers, self.dice, || {
            let mut last = Value::Null;
            let until = Instant::now() + 2 * SOON;
            while Instant::now() < until {
                last = app.repository(server, id)["branches"][0].take();
                if last["held_commit"] == json!(commit) && last["round"].is_null() && index_is() {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(last["held_commit"], json!(commit), "{last:#}");
            self.workers.index().assert_is((id, "main"), (&path, commit), is_meant);
            panic!("a round stays open: {last:#}");
        });
    }

    /// Claims tasks that stay out.
    fn claim(&self, count: usize) -> Vec<Claimed> {
        let mut claimed = Vec::new();
        let until = Instant::now() + SOON;
        while claimed.len() < count {
            assert!(Instant::now() < until, "no tasks to claim: {:#}", self.branch());
            let given = self.workers.claim_for(&self.servers[0], count - claimed.len(), OUT);
            claimed.extend(given.unwrap_or_default());
            thread::sleep(Duration::from_millis(20));
        }
        claimed
    }

    fn report(&self, claimed: &mut Claimed, word: Word) -> u16 {
        eventually("answer", SOON, || self.workers.report(&self.servers[0], claimed, word, 0))
    }

    /// No worker is given anything for a while.
    fn assert_still(&self, name: &str) {
        let until = Instant::now() + STILL;
        while Instant::now() < until {
            for server in &*self.servers {
                let given = self.workers.claim(server, 10).unwrap_or_default();
                let paths: Vec<_> = given.iter().map(Claimed::path).collect();
                assert!(given.is_empty(), "{name}: {} tasks came, {paths:?}", given.len());
            }
            thread::sleep(Duration::from_millis(40));
        }
    }

    fn play(mut self, case: &Case) {
        println!("{}", case.name);
        self.work_until_done(DONE);
        let mut out = self.claim(3);
        self.workers.evidence().may_void = case.complete != 200;
        self.strike(&case.happens);
        assert_eq!(self.report(&mut out[0], Word::Complete), case.complete, "{}: complete", case.name);
        assert_eq!(self.report(&mut out[1], Word::Nack), case.nack, "{}: give back", case.name);
        if case.is_still {
            self.assert_still(case.name);
        }
        assert_eq!(self.report(&mut out[2], Word::Complete), case.complete, "{}: complete", case.name);
        (case.goes_on)(&mut self);
        match case.end {
            End::Tree(is_meant, told) => {
                let head = self.project.git(["rev-parse", "main"]);
                self.work_until_held(Some(&head), is_meant);
                let done = self.workers.evidence().done();
                assert!(told.is_none_or(|told| done == told), "{}: {done} changes were done", case.name);
            }
            End::Nothing => {
                let before = self.workers.index().listed(&self.id, "main");
                let workers = &self.workers;
                // Those that had tasks report them, and are refused.
                workers.while_they_work(self.servers, self.dice, || {
                    eventually("idle workers", SOON, || workers.are_idle().then_some(()));
                });
                self.assert_still(case.name);
                assert!(before == self.workers.index().listed(&self.id, "main"), "{}: more came", case.name);
                let queues = self.servers[0].ask_as_admin("GET", "/api/admin/queues?limit=100").json();
                let rows = queues["items"].as_array().expect("rows").iter();
                let mut own = rows.filter(|queue| queue.to_string().contains(&self.app.id));
                assert!(own.all(|queue| queue["counts"]["claimed"] == 0), "{queues}");
            }
        }
        self.workers.evidence().assert_faultless();
        assert_eq!(self.workers.unfinished(&self.servers[0]), 0, "{}: tasks are left", case.name);
    }
}

fn play(servers: &mut [Server], thrown: &str) {
    let mut dice = Dice::thrown(thrown);
    for case in CASES {
        Scene::begin(servers, &mut dice, case).play(case);
    }
}

fn prepared(server: Server) -> Server {
    server.with("git.branch_gone_after", "200ms")
}

#[test]
fn tasks_that_are_interrupted_are_not_lost_and_not_told_twice() {
    let mut server = prepared(Server::prepare());
    server.run();
    play(&mut [server], "interrupted tasks");
}

#[test]
fn tasks_that_are_interrupted_at_two_replicas_are_not_lost_and_not_told_twice() {
    let Some(mut fleet) = Fleet::dressed(2, Duration::from_secs(10), prepared) else { return };
    play(&mut fleet.servers, "interrupted tasks at replicas");
}
