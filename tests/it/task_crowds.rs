//! Four replicas on one database whose clients say every word about tasks, in random order: no deadlock, no
//! count that is wrong afterwards, dead rows that are cleared, and answers as fast at the end as at the start.
//!
//! `TIDINGS_STORY_SECONDS` is how long that goes on.

use std::{
    collections::BTreeMap,
    mem,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    support::{
        api::App,
        dice::Dice,
        fleet::{Fleet, pairs},
        http,
        patience::{SOON, SetAtEnd, eventually},
        server::Server,
        setting,
    },
    tasks::app,
};

/// How long it goes on, unless `TIDINGS_STORY_SECONDS` says otherwise.
const SECONDS: u64 = 15;
/// How often it goes on as long. What grows with the time grows in each turn; other load does not.
const TURNS: usize = 4;
/// One answer in this many at most may be 503: the database had no connection in time, as on a busy machine.
const UNAVAILABLE: usize = 20;
const REPLICAS: usize = 4;
/// Clients of each replica.
const CLIENTS: usize = 2;
const COMMANDS: [&str; 3] = ["a", "b", "c"];
/// States of tasks that have not ended.
const OPEN: [&str; 4] = ["waiting", "ready", "aside", "claimed"];
/// What a busy machine may add to an answer.
const BUSY: Duration = Duration::from_millis(250);
/// Dead rows that a table may have before PostgreSQL looks at the table for the first time, after a minute.
const DEAD: i64 = 50_000;

/// A moment since the start, with what was measured then.
type Measure<T> = (Duration, T);

/// A client of one replica.
struct Client<'a> {
    door: SocketAddr,
    app: &'a App,
    dice: Dice,
    began: Instant,
    /// Tasks that it has, as they were handed out.
    held: Vec<Value>,
    /// Ids of tasks that it made.
    made: Vec<String>,
    took: Vec<Measure<Duration>>,
    /// How many answers were 503.
    unavailable: usize,
}

/// What was measured in a turn.
#[derive(Default)]
struct Turn {
    took: Vec<Measure<Duration>>,
    unavailable: usize,
    /// The most dead rows of a table.
    dead: Vec<Measure<i64>>,
}

impl Client<'_> {
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let at = Instant::now();
        let reply = http::ask(self.door, method, path, Some(&self.app.token), Some(body)).expect("an answer");
        self.took.push((at - self.began, at.elapsed()));
        let said = String::from_utf8_lossy(&reply.message.body);
        assert!(reply.status < 500 || reply.status == 503, "{method} {path}: {} {said}", reply.status);
        self.unavailable += usize::from(reply.status == 503);
        serde_json::from_str(&said).unwrap_or_default()
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.dice.below(bound as u64)).expect("small")
    }

    /// One word, whatever comes of it.
    fn act(&mut self) {
        let command = COMMANDS[self.below(COMMANDS.len())];
        match self.dice.below(20) {
            0..=5 => self.create(command),
            6..=10 => self.claim(command),
            11..=15 => self.end_all(),
            16 | 17 => self.end_one(),
            18 => self.change_one(),
            _ => self.change_queue(command),
        }
    }

    fn create(&mut self, command: &str) {
        let delay = self.dice.below(4).saturating_sub(2);
        let mut task = json!({ "command": command, "payload": self.dice.number(), "delay_seconds": delay });
        let made = if self.dice.one_in(3) {
            task["key"] = json!(self.dice.below(50).to_string());
            self.ask("POST", "/api/tasks", &task)
        } else {
            let tasks = vec![task; 1 + self.below(20)];
            let mut made = self.ask("POST", "/api/tasks/batch", &json!({ "tasks": tasks }));
            made.pointer_mut("/tasks/0").map(Value::take).unwrap_or_default()
        };
        self.made.extend(made["id"].as_str().map(str::to_owned));
    }

    fn claim(&mut self, command: &str) {
        let other = COMMANDS[self.below(COMMANDS.len())];
        let commands = if command == other { vec![command] } else { vec![command, other] };
        let (count, seconds) = (1 + self.below(20), 1 + self.below(5));
        let wanted = json!({ "commands": commands, "count": count, "claim_seconds": seconds });
        let mut given = self.ask("POST", "/api/tasks/claim", &wanted);
        self.held.extend(given["tasks"].as_array_mut().map(mem::take).unwrap_or_default());
    }

    /// The same word about all tasks that it has, at most 100 of them.
    fn end_all(&mut self) {
        let verb = ["complete", "complete", "nack", "heartbeat"][self.below(4)];
        let count = self.held.len().min(100);
        let items: Vec<Value> =
            self.held.drain(..count).map(|task| json!({ "token": task["token"] })).collect();
        if !items.is_empty() {
            self.ask("POST", &format!("/api/tasks/batch/{verb}"), &json!({ "items": items }));
        }
    }

    fn end_one(&mut self) {
        let verb = ["complete", "fail", "nack", "abandon", "heartbeat"][self.below(5)];
        if let Some(task) = self.held.pop() {
            let path = format!("/api/tasks/{}/{verb}", task["id"].as_str().expect("an id"));
            self.ask("POST", &path, &json!({ "token": task["token"] }));
        }
    }

    fn change_one(&mut self) {
        let verb = ["cancel", "redrive"][self.below(2)];
        if let Some(id) = self.made.pop() {
            self.ask("POST", &format!("/api/tasks/{id}/{verb}"), &json!({}));
        }
    }

    fn change_queue(&mut self, command: &str) {
        let path = format!("/api/queues/{command}");
        match self.dice.below(6) {
            0 => drop(self.ask("POST", "/api/tasks/redrive", &json!({ "q": format!("command:{command}") }))),
            1 => drop(self.ask("POST", &format!("{path}/purge"), &json!({ "confirm": command }))),
            2 => {
                let bound = if self.dice.one_in(2) { json!(50) } else { Value::Null };
                self.ask("PUT", &path, &settings(&bound));
            }
            _ => {
                self.ask("POST", &format!("{path}/pause"), &json!({}));
                self.ask("POST", &format!("{path}/resume"), &json!({}));
            }
        }
    }
}

/// Settings of a queue whose tasks go as soon as they end.
fn settings(max_claimed: &Value) -> Value {
    json!({
        "max_claimed": max_claimed, "max_attempts": 3, "retry_policy": "fixed", "retry_base_seconds": 1,
        "retention_seconds": 0, "dead_retention_seconds": 0,
    })
}

/// The third of the story in which a moment lies.
fn third(at: Duration, whole: Duration) -> usize {
    (0..2).find(|third| at < whole * (third + 1) / 3).map_or(2, |third| third as usize)
}

/// What 99 of 100 answers took at most, in each third.
fn p99(took: &[Measure<Duration>], whole: Duration) -> [Duration; 3] {
    let mut thirds: [Vec<Duration>; 3] = Default::default();
    took.iter().for_each(|(at, took)| thirds[third(*at, whole)].push(*took));
    thirds.map(|mut third| {
        third.sort_unstable();
        third.get(third.len() * 99 / 100).copied().unwrap_or_default()
    })
}

/// Every open task by queue and state, as rows.
fn rows(url: &str) -> BTreeMap<String, i64> {
    let text = "select q.command || ' ' || t.state, count(*) from task t join queue q on q.id = t.queue_id
                where t.state in ('waiting', 'ready', 'aside', 'claimed') group by 1";
    pairs(url, text).into_iter().collect()
}

/// The same as queues count them.
fn counts(fleet: &Fleet, app: &App) -> BTreeMap<String, i64> {
    let of_queue = |command: &&str| {
        let queue = app.ask(&fleet.servers[0], "GET", &format!("/api/queues/{command}"), None).json();
        let count = |state: &&str| (format!("{command} {state}"), queue["counts"][state].as_i64());
        OPEN.iter().map(count).collect::<Vec<_>>()
    };
    let all = COMMANDS.iter().flat_map(of_queue);
    all.filter_map(|(name, count)| Some((name, count.filter(|count| *count != 0)?))).collect()
}

/// Clients say random words at all replicas for a while.
fn turn(fleet: &Fleet, app: &App, dice: &mut Dice, whole: Duration) -> Turn {
    let (is_over, began, measured) = (AtomicBool::new(false), Instant::now(), Mutex::new(Turn::default()));
    thread::scope(|scope| {
        let (is_over, measured, url) = (&is_over, &measured, &fleet.database.url);
        for server in &fleet.servers {
            for _ in 0..CLIENTS {
                let (door, dice) = (server.address(), Dice::of(dice.number()));
                let (held, made, took) = (Vec::new(), Vec::new(), Vec::new());
                let mut client = Client { door, app, dice, began, held, made, took, unavailable: 0 };
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        client.act();
                    }
                    let mut measured = measured.lock().expect("sound");
                    measured.took.append(&mut client.took);
                    measured.unavailable += client.unavailable;
                });
            }
        }
        scope.spawn(move || {
            let most = "select 'dead', coalesce(max(n_dead_tup), 0) from pg_stat_user_tables";
            while !is_over.load(Ordering::Relaxed) {
                let count = pairs(url, most)[0].1;
                measured.lock().expect("sound").dead.push((began.elapsed(), count));
                thread::sleep(Duration::from_secs(1));
            }
        });
        let _end = SetAtEnd(is_over);
        thread::sleep(whole);
    });
    measured.into_inner().expect("sound")
}

/// Whether answers were as fast at the end as at the start, and dead rows as few.
fn is_steady(turn: Turn, whole: Duration) -> bool {
    let [first, second, last] = p99(&turn.took, whole);
    println!("{} words; p99 of the thirds: {first:?}, {second:?}, {last:?}", turn.took.len());
    assert!(turn.unavailable * UNAVAILABLE <= turn.took.len(), "{} answers with 503", turn.unavailable);
    let mut most = [0; 3];
    for (at, count) in turn.dead {
        let third = third(at, whole);
        most[third] = most[third].max(count);
    }
    println!("most dead rows of a table in the thirds: {most:?}");
    // Without a vacuum they would be half as many again.
    last <= first * 3 + BUSY && most[2] <= most[1] + most[1] / 4 + DEAD
}

#[test]
fn four_replicas_and_random_words_about_tasks_deadlock_nowhere_and_stay_as_fast() {
    let whole = Duration::from_secs(setting("TIDINGS_STORY_SECONDS").unwrap_or(SECONDS));
    let swept = |server: Server| server.with("housekeeping.interval", "1s");
    let Some(fleet) = Fleet::dressed(REPLICAS, Duration::from_secs(10), swept) else { return };
    let mut dice = Dice::thrown("random words about tasks at four replicas");
    let app = app(&fleet.servers[0]);
    for command in COMMANDS {
        let path = format!("/api/queues/{command}");
        assert_eq!(app.ask(&fleet.servers[0], "PUT", &path, Some(&settings(&Value::Null))).status, 200);
    }
    let is_once_steady = (0..TURNS).any(|_| is_steady(turn(&fleet, &app, &mut dice, whole), whole));
    assert!(
        is_once_steady,
        "answers become slower or dead rows more in each of {TURNS} turns, as said above"
    );
    eventually("counts that are those of the rows", SOON, || {
        let before = rows(&fleet.database.url);
        (before == counts(&fleet, &app) && before == rows(&fleet.database.url)).then_some(())
    });
    let deadlocks = "select 'deadlocks', deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(pairs(&fleet.database.url, deadlocks)[0].1, 0, "PostgreSQL resolved deadlocks");
    for server in &fleet.servers {
        assert!(!server.log().to_lowercase().contains("deadlock"), "a deadlock was met");
    }
}
