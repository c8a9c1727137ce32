//! Those who ask in a storm: producers that repeat a create until it is acknowledged, workers that complete,
//! give back, die, freeze and come late, and somebody who tries every token that a task ever had.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::record::{Given, Record, Said};
use crate::support::{
    dice::Dice,
    http,
    patience::{SOON, eventually},
};

/// The queue of the storm.
pub(super) const COMMAND: &str = "storm";
/// Tasks of one create, and the pause between two creates of a producer.
const TOGETHER: u64 = 3;
const BETWEEN: Duration = Duration::from_millis(150);
/// How long a claim of these workers lasts, in seconds.
const CLAIM: u64 = 2;
/// How late a late word comes, beyond the end of its claim and the difference of two clocks.
const LATE: Duration = Duration::from_millis(2_800);

/// What all of them know.
pub(super) struct Scene<'a> {
    pub(super) door: SocketAddr,
    pub(super) token: &'a str,
    pub(super) is_over: &'a AtomicBool,
    pub(super) record: &'a Mutex<Record>,
}

impl Scene<'_> {
    /// Asks; `None`: the answer was lost, or there was no server.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let reply = http::ask(self.door, method, path, Some(self.token), body).ok()?;
        if reply.message.body.is_empty() {
            return Some((reply.status, Value::Null));
        }
        Some((reply.status, serde_json::from_slice(&reply.message.body).ok()?))
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Claims tasks and notes what was given.
    pub(super) fn claim(&self, count: u64, wait_seconds: u64) -> Vec<Given> {
        let wanted = json!({ "commands": [COMMAND], "count": count, "claim_seconds": CLAIM,
            "wait_seconds": wait_seconds });
        let Some((200, answer)) = self.ask("POST", "/api/tasks/claim", Some(&wanted)) else {
            // No task, no server, or no answer.
            thread::sleep(Duration::from_millis(10));
            return Vec::new();
        };
        let at = Instant::now();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let given = |task: &Value| Given {
            task: text(&task["id"]),
            token: text(&task["token"]),
            attempt: task["attempt"].as_u64().expect("a number"),
            at,
        };
        let given: Vec<Given> = answer["tasks"].as_array().expect("a list").iter().map(given).collect();
        self.note(|record| record.given.extend(given.iter().cloned()));
        given
    }

    /// Says a word and notes it with its answer.
    pub(super) fn say(&self, given: &Given, verb: &'static str, mut body: Value) -> Option<u16> {
        body["token"] = json!(given.token);
        let (sent, path) = (Instant::now(), format!("/api/tasks/{}/{verb}", given.task));
        let answer = self.ask("POST", &path, Some(&body));
        let status = answer.as_ref().map(|(status, _)| *status);
        let result = body["result"].clone();
        self.note(|record| record.said.push(Said { given: given.clone(), verb, result, sent, answer }));
        status
    }

    /// Completes a task; a worker that hears no answer says it once more.
    pub(super) fn complete(&self, given: &Given, dice: &mut Dice) {
        let result = json!({ "result": { "attempt": given.attempt, "word": dice.number() } });
        if self.say(given, "complete", result.clone()).is_none() && dice.one_in(2) {
            self.say(given, "complete", result);
        }
    }
}

/// Creates tasks until the storm is over. Each create is repeated until it is acknowledged: its tasks have
/// keys.
pub(super) fn produce(scene: &Scene<'_>, number: u64) {
    for turn in 0.. {
        let keys: Vec<String> = (0..TOGETHER).map(|place| format!("{number}-{turn}-{place}")).collect();
        let task = |key: &String| json!({ "command": COMMAND, "payload": { "key": key }, "key": key });
        let body = json!({ "tasks": keys.iter().map(task).collect::<Vec<_>>() });
        let made = eventually("acknowledged create", SOON, || {
            match scene.ask("POST", "/api/tasks/batch", Some(&body))? {
                (200 | 201, made) => Some(made),
                (503, _) => None,
                other => panic!("a create is refused: {other:?}"),
            }
        });
        let ids = made["tasks"].as_array().expect("a list").iter();
        let ids = ids.map(|task| task["id"].as_str().expect("an id").to_owned());
        scene.note(|record| record.created.extend(keys.into_iter().zip(ids)));
        if scene.is_over() {
            return;
        }
        thread::sleep(BETWEEN);
    }
}

/// Works until the storm is over, each time in another manner.
pub(super) fn work(scene: &Scene<'_>, mut dice: Dice) {
    let mut late: Vec<(Instant, Given)> = Vec::new();
    while !scene.is_over() {
        for given in scene.claim(1 + dice.below(3), 1) {
            match dice.below(100) {
                0..55 => scene.complete(&given, &mut dice),
                55..65 => {
                    scene.say(&given, "nack", json!({ "delay_seconds": dice.below(2), "reason": "no" }));
                }
                65..70 => {
                    scene.say(&given, "abandon", json!({}));
                }
                70..73 => {
                    scene.say(&given, "fail", json!({ "error": "for good" }));
                }
                // It dies: nobody hears of it again.
                73..81 => {}
                // It freezes, and goes on when its claim is over.
                81..91 => late.push((Instant::now() + LATE, given)),
                _ => {
                    scene.say(&given, "heartbeat", json!({ "extend_seconds": CLAIM, "progress": 1 }));
                    scene.complete(&given, &mut dice);
                }
            }
        }
        let now = Instant::now();
        let is_due = |(at, _): &mut (Instant, Given)| *at <= now;
        for (_, given) in late.extract_if(.., is_due) {
            let (verb, body) = match dice.below(4) {
                0 => ("nack", json!({})),
                1 => ("abandon", json!({})),
                2 => ("fail", json!({ "error": "late" })),
                _ => ("complete", json!({ "result": { "attempt": given.attempt, "late": true } })),
            };
            scene.say(&given, verb, body);
        }
    }
}

/// Tries every token that some task had, until the storm is over: at most one of them is valid.
pub(super) fn try_tokens(scene: &Scene<'_>, mut dice: Dice) {
    while !scene.is_over() {
        let mut of_tasks: BTreeMap<String, Vec<Given>> = BTreeMap::new();
        scene.note(|record| {
            // The newest ones: older tasks have ended.
            for given in record.given.iter().rev().take(60) {
                of_tasks.entry(given.task.clone()).or_default().push(given.clone());
            }
        });
        let several: Vec<Vec<Given>> = of_tasks.into_values().filter(|given| given.len() > 1).collect();
        if let Some(tokens) = dice.pick(&several) {
            let beat =
                |given: &&Given| scene.say(given, "heartbeat", json!({ "extend_seconds": 1 })) == Some(200);
            let valid: Vec<&Given> = tokens.iter().filter(beat).collect();
            assert!(valid.len() <= 1, "two valid tokens: {valid:?}");
        }
        thread::sleep(Duration::from_millis(100));
    }
}
