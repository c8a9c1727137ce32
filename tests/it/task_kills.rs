//! Kill stories of tasks: SIGKILLs of servers and of workers, and workers that freeze, under load. No
//! acknowledged create is lost, no task has two valid tokens, n attempts are n, and the record of what each
//! worker was given and said agrees with the rows.
//!
//! `TIDINGS_STORY_KILLS` is the number of kills; `TIDINGS_STORY_DATABASE=postgres` tells the stories of one
//! server on PostgreSQL.

mod record;
mod workers;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    slice,
    sync::{Mutex, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use self::{
    record::Record,
    workers::{COMMAND, Scene, produce, try_tokens, work},
};
use crate::support::{
    api::App,
    balancer::Balancer,
    dice::Dice,
    fleet::Fleet,
    kills,
    patience::{SOON, SetAtEnd, eventually},
    server::Server,
    subscriber::Subscriber,
};

/// Kills, unless `TIDINGS_STORY_KILLS` says otherwise.
const KILLS: u64 = 12;
/// The longest time between two kills.
const LIFE: Duration = Duration::from_millis(600);
/// Kills from which on everything that the story is about must have happened.
const MANY: u64 = 100;
/// Most attempts of a task.
const ATTEMPTS: u64 = 5;
/// Worker processes, and how long a frozen one is frozen: longer than its claim, which is the shortest.
const PROGRAMS: usize = 2;
const FROZEN: Duration = Duration::from_millis(4_500);

/// One server, or several replicas.
enum House {
    One(Box<Server>),
    Several(Fleet),
}

impl House {
    fn servers(&mut self) -> &mut [Server] {
        match self {
            Self::One(server) => slice::from_mut(&mut **server),
            Self::Several(fleet) => &mut fleet.servers,
        }
    }

    /// Kills some servers at once, and starts them again. How many.
    fn kill(&mut self, door: &Balancer, dice: &mut Dice) -> u64 {
        let servers = self.servers();
        let count = servers.len() as u64;
        let (victim, is_all) = (usize::try_from(dice.below(count)).expect("few"), dice.one_in(4));
        let mut killed = Vec::new();
        for (place, server) in servers.iter_mut().enumerate() {
            if is_all || place == victim {
                server.kill();
                killed.push(place);
            }
        }
        let left = |place: &usize| !killed.contains(place);
        door.lead_to((0..servers.len()).filter(left).map(|place| servers[place].address()).collect());
        for place in &killed {
            servers[*place].run();
        }
        door.lead_to(servers.iter().map(Server::address).collect());
        killed.len() as u64
    }
}

/// Processes of `tidings worker start`, whose program writes down each task that it is given.
struct Programs {
    children: Vec<Child>,
    frozen: Vec<(usize, Instant)>,
    file: PathBuf,
    address: String,
    token: String,
}

impl Programs {
    fn start(&self, server: &Server) -> Child {
        let program = format!(
            "echo $TIDINGS_TASK_ID $TIDINGS_TASK_ATTEMPT >> '{}'; \
             case $TIDINGS_TASK_ID in *[0-3]) exit 75;; *[45]) exit 100;; *[6-9]) sleep 4;; esac; \
             echo '{{\"attempt\":'$TIDINGS_TASK_ATTEMPT'}}'",
            self.file.display()
        );
        let mut command = server.command(&["worker", "start", COMMAND, "--claim", "3", "--exec", &program]);
        command.args(["--server", &self.address, "--concurrency", "2"]).env("TIDINGS_TOKEN", &self.token);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }

    fn signal(&self, place: usize, signal: Signal) {
        kill_process(Pid::from_child(&self.children[place]), signal).expect("sent");
    }

    /// Kills a process and starts another one.
    fn kill(&mut self, server: &Server, dice: &mut Dice) {
        let place = usize::try_from(dice.below(PROGRAMS as u64)).expect("few");
        self.frozen.retain(|(frozen, _)| *frozen != place);
        let next = self.start(server);
        end(std::mem::replace(&mut self.children[place], next));
    }

    /// Stops a process beyond its claims.
    fn freeze(&mut self, dice: &mut Dice) {
        let place = usize::try_from(dice.below(PROGRAMS as u64)).expect("few");
        if self.frozen.iter().all(|(frozen, _)| *frozen != place) {
            self.signal(place, Signal::STOP);
            self.frozen.push((place, Instant::now() + FROZEN));
        }
    }

    /// Lets processes go on that were frozen long enough.
    fn thaw(&mut self) {
        let now = Instant::now();
        for (place, _) in self.frozen.iter().filter(|(_, until)| *until <= now) {
            self.signal(*place, Signal::CONT);
        }
        self.frozen.retain(|(_, until)| *until > now);
    }
}

fn end(mut child: Child) {
    // One that has ended cannot be killed.
    drop(child.kill());
    drop(child.wait());
}

impl Drop for Programs {
    fn drop(&mut self) {
        self.children.drain(..).for_each(end);
    }
}

/// Tells the whole story.
fn rage(mut house: House, name: &str) {
    let mut dice = Dice::thrown(name);
    let kills = kills(KILLS);
    let app = App::onboard(&house.servers()[0], &Subscriber::start());
    let settings = json!({ "max_attempts": ATTEMPTS, "retry_policy": "fixed", "retry_base_seconds": 0 });
    let path = format!("/api/queues/{COMMAND}");
    assert_eq!(app.ask(&house.servers()[0], "PUT", &path, Some(&settings)).status, 200);
    let door = Balancer::to(house.servers().iter().map(Server::address).collect());
    let (is_over, record) = (AtomicBool::new(false), Mutex::new(Record::default()));
    let scene = Scene { door: door.address(), token: &app.token, is_over: &is_over, record: &record };
    let folder = tempfile::tempdir().expect("a folder");
    let mut programs = Programs {
        children: Vec::new(),
        frozen: Vec::new(),
        file: folder.path().join("given"),
        address: format!("http://{}", door.address()),
        token: app.token.clone(),
    };
    programs.children = (0..PROGRAMS).map(|_| programs.start(&house.servers()[0])).collect();
    let mut killed = [0, 0];
    thread::scope(|scope| {
        let scene = &scene;
        for number in 0..2 {
            let dice = [dice.number(), dice.number()].map(Dice::of);
            let [one, other] = dice;
            scope.spawn(move || produce(scene, number));
            scope.spawn(move || work(scene, one));
            scope.spawn(move || work(scene, other));
        }
        let of_tokens = Dice::of(dice.number());
        scope.spawn(move || try_tokens(scene, of_tokens));
        // All of them must end with the story, also when it fails.
        let _end = SetAtEnd(&is_over);
        while killed.iter().sum::<u64>() < kills {
            thread::sleep(dice.up_to(LIFE));
            programs.thaw();
            match dice.below(10) {
                0..6 => killed[0] += house.kill(&door, &mut dice),
                6..8 => {
                    programs.kill(&house.servers()[0], &mut dice);
                    killed[1] += 1;
                }
                _ => programs.freeze(&mut dice),
            }
        }
    });
    drop(programs);
    settle(&scene, &mut dice);
    let text = fs::read_to_string(folder.path().join("given")).unwrap_or_default();
    let mut record = record.into_inner().expect("sound");
    record.of_programs = text.lines().map(started).collect();
    judge(&record, house.servers(), &app, killed);
}

/// A line that a program wrote: the task and the attempt.
fn started(line: &str) -> (String, u64) {
    let (task, attempt) = line.split_once(' ').expect("two words");
    (task.to_owned(), attempt.parse().expect("a number"))
}

/// Completes what is left.
fn settle(scene: &Scene<'_>, dice: &mut Dice) {
    let path = format!("/api/queues/{COMMAND}");
    eventually("queue whose tasks have ended", 4 * SOON, || {
        for given in scene.claim(100, 1) {
            scene.complete(&given, dice);
        }
        let (_, queue) = scene.ask("GET", &path, None)?;
        let is_none = |state: &str| queue["counts"][state].as_u64().unwrap_or(0) == 0;
        ["waiting", "ready", "claimed"].into_iter().all(is_none).then_some(())
    });
}

/// Reads all rows and compares them with the record.
fn judge(record: &Record, servers: &[Server], app: &App, killed: [u64; 2]) {
    let ids: Vec<&String> = record.created.values().collect();
    let rows: BTreeMap<String, Value> = thread::scope(|scope| {
        let readers = ids.chunks(ids.len().div_ceil(4).max(1)).enumerate().map(|(number, ids)| {
            let server = &servers[number % servers.len()];
            scope.spawn(move || {
                let row = |id: &&String| {
                    let row = app.ask(server, "GET", &format!("/api/tasks/{id}"), None);
                    assert_eq!(row.status, 200, "the create of {id} was acknowledged: {}", row.json());
                    ((*id).clone(), row.json())
                };
                ids.iter().map(row).collect::<Vec<_>>()
            })
        });
        let readers: Vec<_> = readers.collect();
        readers.into_iter().flat_map(|reader| reader.join().expect("sound")).collect()
    });
    assert_eq!(rows.len(), record.created.len(), "each key has a task of its own");
    let queue = app.ask(&servers[0], "GET", &format!("/api/queues/{COMMAND}"), None).json();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows.values() {
        *counts.entry(row["state"].as_str().expect("a state")).or_default() += 1;
    }
    for (state, count) in queue["counts"].as_object().expect("an object") {
        let of_rows = counts.get(state.as_str()).copied().unwrap_or(0);
        assert_eq!(*count, of_rows, "the queue counts its rows, and no create was done twice: {queue}");
    }
    record.replay(&rows);
    let [of_servers, of_workers] = killed;
    println!(
        "{of_servers} kills of servers and {of_workers} of workers: {} tasks ({counts:?}), {} claims of workers \
         and {} of programs, {} words, of which {} came too late and {} had no answer",
        rows.len(),
        record.given.len(),
        record.of_programs.len(),
        record.said.len(),
        record.refused(),
        record.unheard()
    );
    assert!(!rows.is_empty() && !record.said.is_empty(), "nothing happened");
    if of_servers + of_workers >= MANY {
        assert!(record.refused() > 0 && record.unheard() > 0 && !record.of_programs.is_empty());
        assert!(["succeeded", "failed", "dead"].into_iter().all(|state| counts.contains_key(state)));
    }
}

#[test]
fn kills_of_server_and_workers_lose_nothing_and_no_task_has_two_workers() {
    rage(House::One(Box::new(Server::start())), "killing workers");
}

#[test]
fn kills_of_replicas_and_workers_lose_nothing_and_no_task_has_two_workers() {
    // On a busy machine the database may take a second to answer, which a short lease does not bear.
    let Some(fleet) = Fleet::start(2, Duration::from_secs(10)) else { return };
    rage(House::Several(fleet), "killing workers of replicas");
}

#[test]
fn a_worker_process_that_is_stopped_beyond_its_claim_changes_nothing_when_it_goes_on() {
    let server = Server::start();
    let app = App::onboard(&server, &Subscriber::start());
    let made = app.ask(&server, "POST", "/api/tasks", Some(&json!({ "command": "slow", "payload": 1 })));
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    // A worker that uses the command line: it claims, works until it is told to end, and completes.
    let program = "set -e; \"$0\" --json task claim slow --claim 1 > claimed.new; mv claimed.new claimed; \
                   while [ ! -e go ]; do sleep 0.02; done; \
                   token=$(sed -n 's/.*\"token\": *\"\\([^\"]*\\)\".*/\\1/p' claimed); \
                   code=0; \"$0\" task complete \"$token\" --result '\"stale\"' 2> said || code=$?; \
                   echo $code > code.new; mv code.new code";
    let home = tempfile::tempdir().expect("a folder");
    let mut worker = std::process::Command::new("sh");
    worker.args(["-c", program, env!("CARGO_BIN_EXE_tidings")]).current_dir(home.path());
    worker.env("TIDINGS_TOKEN", &app.token).env("HOME", home.path());
    worker.env("TIDINGS_SERVER", format!("http://{}", server.address()));
    let worker = Stopped(worker.stdin(Stdio::null()).spawn().expect("a shell"));
    let file = |name: &str| home.path().join(name);
    eventually("claim of the worker", SOON, || file("claimed").exists().then_some(()));
    worker.signal(Signal::STOP);
    let wanted = json!({ "commands": ["slow"], "wait_seconds": 20, "claim_seconds": 60 });
    let second = app.ask(&server, "POST", "/api/tasks/claim", Some(&wanted)).json()["tasks"][0].clone();
    assert_eq!((&second["id"], &second["attempt"]), (&json!(id), &json!(2)), "{second}");
    let shown = || app.ask(&server, "GET", &format!("/api/tasks/{id}"), None).json();
    let before = shown();
    fs::write(file("go"), "").expect("written");
    worker.signal(Signal::CONT);
    let code = eventually("word of the worker", SOON, || fs::read_to_string(file("code")).ok());
    let said = fs::read_to_string(file("said")).expect("its message");
    assert!(code.trim() != "0" && said.contains("claim"), "{code} {said}");
    assert_eq!(shown(), before, "the stale word changed the task");
    let path = format!("/api/tasks/{id}/complete");
    let word = json!({ "token": second["token"], "result": "second" });
    assert_eq!(app.ask(&server, "POST", &path, Some(&word)).status, 200);
    let task = shown();
    assert_eq!((&task["state"], &task["result"]), (&json!("succeeded"), &json!("second")), "{task}");
    let ends: Vec<&Value> = task["claims"].as_array().expect("a list").iter().map(|c| &c["end"]).collect();
    assert_eq!(ends, ["expired", "completed"], "{task}");
}

/// A process that may be stopped, and does not outlive its story.
struct Stopped(Child);

impl Stopped {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("sent");
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
