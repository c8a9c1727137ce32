//! Workers of a queue whose tasks are the changes of watches: good ones and bad ones. They keep an [`Index`] of
//! what their completed tasks say, and hold the server to what is promised about tasks ([`Evidence`]).
//!
//! No worker sleeps over a task. What a worker means to report later waits in a list that outlives servers: to
//! a server, a worker that is slow, frozen or late looks as in the field, and a request that a kill cut off is
//! sent again.

mod claimed;
mod evidence;
mod index;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub(crate) use claimed::{Claimed, Place};
pub(crate) use evidence::Evidence;
pub(crate) use index::Index;

use super::{
    api::{App, items},
    dice::Dice,
    server::Server,
};
use evidence::{Answer, CLOCKS_APART};

/// The command of all these workers.
pub(crate) const COMMAND: &str = "index";
/// Between two looks at an empty queue.
const PAUSE: Duration = Duration::from_millis(40);
/// Before a request is sent again that no server answered.
const AGAIN: Duration = Duration::from_millis(100);

/// What a worker does with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Behaviour {
    /// Does the work and completes the task.
    Complete,
    /// Completes it after two thirds of the claim, with a heartbeat between.
    Slow,
    /// Completes it, and once more at once.
    Twice,
    /// Completes it, and once more long after.
    Late,
    /// Sleeps beyond the claim, and completes it then.
    Freeze,
    /// The same, and gives it up then.
    FreezeAndFail,
    /// Ends while it holds the claim, and never reports.
    Die,
    /// Fails the task for good, so that it becomes a dead letter.
    Fail,
    /// Gives it back after a failed attempt.
    Nack,
    /// Gives it back untried.
    Abandon,
    /// Tries to complete it with bits that are not those of the claim, then completes it.
    Forge,
}

/// A request about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Heartbeat,
    Complete,
    Fail,
    Nack,
    Abandon,
    /// A completion with bits that are not those of the claim.
    Forgery,
}

impl Word {
    fn request(self, claimed: &Claimed) -> (&'static str, Value) {
        let token = match self {
            Self::Forgery => claimed.forged_token(),
            _ => claimed.token().to_owned(),
        };
        match self {
            Self::Heartbeat => {
                let seconds = claimed.lasts.as_secs();
                ("heartbeat", json!({ "token": token, "extend_seconds": seconds, "progress": { "n": 1 } }))
            }
            Self::Complete | Self::Forgery => ("complete", json!({ "token": token, "result": 1 })),
            Self::Fail => ("fail", json!({ "token": token, "error": "no such language" })),
            Self::Nack => ("nack", json!({ "token": token, "delay_seconds": 0, "reason": "no memory" })),
            Self::Abandon => ("abandon", json!({ "token": token })),
        }
    }
}

/// A task in the hands of a worker, with what it reports next and when.
struct Held {
    claimed: Claimed,
    at: Instant,
    words: Vec<(Duration, Word)>,
    /// How often the next word was sent without an answer.
    unheard: u32,
}

/// Workers of one app.
pub(crate) struct Workers {
    app: App,
    /// How long a claim lasts, in whole seconds.
    lasts: Duration,
    /// What a worker does with its next task.
    temper: fn(&mut Dice) -> Behaviour,
    held: Mutex<Vec<Held>>,
    index: Mutex<Index>,
    evidence: Mutex<Evidence>,
    behaviours: Mutex<BTreeMap<Behaviour, u64>>,
}

/// A worker that completes every task.
pub(crate) fn good(_: &mut Dice) -> Behaviour {
    Behaviour::Complete
}

/// Workers of every kind, most of them good.
pub(crate) fn of_every_kind(dice: &mut Dice) -> Behaviour {
    match dice.below(40) {
        0..=1 => Behaviour::Slow,
        2 => Behaviour::Twice,
        3..=4 => Behaviour::Late,
        5..=6 => Behaviour::Freeze,
        7 => Behaviour::FreezeAndFail,
        8 => Behaviour::Die,
        9 => Behaviour::Fail,
        10..=12 => Behaviour::Nack,
        13..=14 => Behaviour::Abandon,
        15 => Behaviour::Forge,
        _ => Behaviour::Complete,
    }
}

impl Workers {
    /// Workers whose claims last this long, with an empty index.
    pub(crate) fn of(app: &App, lasts: Duration, temper: fn(&mut Dice) -> Behaviour) -> Self {
        Self {
            app: app.clone(),
            lasts,
            temper,
            held: Mutex::default(),
            index: Mutex::default(),
            evidence: Mutex::default(),
            behaviours: Mutex::default(),
        }
    }

    /// What they have built.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        locked(&self.index)
    }

    /// What they saw of the server.
    pub(crate) fn evidence(&self) -> MutexGuard<'_, Evidence> {
        locked(&self.evidence)
    }

    /// How often workers showed each behaviour.
    pub(crate) fn behaviours(&self) -> BTreeMap<Behaviour, u64> {
        locked(&self.behaviours).clone()
    }

    /// Whether nobody means to report anything any more.
    pub(crate) fn are_idle(&self) -> bool {
        locked(&self.held).is_empty()
    }

    /// Some of them work at these servers while `meanwhile` runs.
    pub(crate) fn while_they_work<T>(
        &self,
        servers: &[Server],
        dice: &mut Dice,
        meanwhile: impl FnOnce() -> T,
    ) -> T {
        let stops = AtomicBool::new(false);
        // Threads end also where `meanwhile` panics.
        struct Stop<'s>(&'s AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        thread::scope(|scope| {
            let stop = Stop(&stops);
            for server in servers {
                for _ in 0..3 {
                    let (seed, stops) = (dice.number(), &stops);
                    scope.spawn(move || self.work(server, stops, &mut Dice::of(seed)));
                }
            }
            let outcome = meanwhile();
            drop(stop);
            outcome
        })
    }

    fn work(&self, server: &Server, stops: &AtomicBool, dice: &mut Dice) {
        while !stops.load(Ordering::Relaxed) {
            if let Some(held) = self.take_due() {
                self.report_next(server, held);
                continue;
            }
            let count = 1 + dice.below(5);
            match self.claim(server, usize::try_from(count).expect("small")) {
                Some(tasks) if !tasks.is_empty() => {
                    tasks.into_iter().for_each(|task| self.plan(task, (self.temper)(dice)));
                }
                _ => thread::sleep(PAUSE),
            }
        }
    }

    /// Claims tasks; `None`: the server is gone, starts or ends.
    pub(crate) fn claim(&self, server: &Server, count: usize) -> Option<Vec<Claimed>> {
        self.claim_for(server, count, self.lasts)
    }

    /// Claims tasks for this long.
    pub(crate) fn claim_for(&self, server: &Server, count: usize, lasts: Duration) -> Option<Vec<Claimed>> {
        let body = json!({ "commands": [COMMAND], "count": count, "claim_seconds": lasts.as_secs() });
        let (asked, moment) = (Instant::now(), self.evidence().moment());
        let Some((status, answer)) = self.ask(server, "/api/tasks/claim", &body) else {
            self.evidence().note_lost_claim();
            return None;
        };
        let tasks = match status {
            200 => answer["tasks"].as_array().cloned().expect("tasks"),
            204 => Vec::new(),
            // The app is gone, or not served.
            401 | 403 => return Some(Vec::new()),
            _ => panic!("{status}: {answer}"),
        };
        let claimed: Vec<Claimed> = tasks.into_iter().map(|task| Claimed::new(task, lasts, asked)).collect();
        let mut evidence = self.evidence();
        claimed.iter().for_each(|claimed| evidence.note_claim(claimed, moment));
        Some(claimed)
    }

    /// What a worker will report about a task, and when.
    fn plan(&self, claimed: Claimed, behaviour: Behaviour) {
        *locked(&self.behaviours).entry(behaviour).or_default() += 1;
        let (now, third) = (Duration::ZERO, self.lasts / 3);
        let frozen = self.lasts + CLOCKS_APART;
        let words = match behaviour {
            Behaviour::Complete => vec![(now, Word::Complete)],
            Behaviour::Slow => vec![(third, Word::Heartbeat), (third, Word::Complete)],
            Behaviour::Twice => vec![(now, Word::Complete), (now, Word::Complete)],
            Behaviour::Late => vec![(now, Word::Complete), (2 * self.lasts, Word::Complete)],
            Behaviour::Freeze => vec![(frozen, Word::Complete)],
            Behaviour::FreezeAndFail => vec![(frozen, Word::Fail)],
            Behaviour::Die => Vec::new(),
            Behaviour::Fail => vec![(now, Word::Fail), (third, Word::Fail)],
            Behaviour::Nack => vec![(now, Word::Nack)],
            Behaviour::Abandon => vec![(now, Word::Abandon)],
            Behaviour::Forge => vec![(now, Word::Forgery), (now, Word::Complete)],
        };
        self.hold(Held { claimed, at: Instant::now(), words, unheard: 0 });
    }

    fn hold(&self, mut held: Held) {
        if let Some((wait, _)) = held.words.first() {
            held.at = Instant::now() + if held.unheard > 0 { AGAIN } else { *wait };
            locked(&self.held).push(held);
        }
    }

    fn take_due(&self) -> Option<Held> {
        let mut held = locked(&self.held);
        let now = Instant::now();
        let due = held.iter().position(|held| held.at <= now)?;
        Some(held.swap_remove(due))
    }

    fn report_next(&self, server: &Server, mut held: Held) {
        let word = held.words[0].1;
        if self.report(server, &mut held.claimed, word, held.unheard).is_some() {
            held.words.remove(0);
            held.unheard = 0;
        } else {
            held.unheard += 1;
        }
        self.hold(held);
    }

    /// Sends a word about a task, which was sent `unheard` times before without an answer. A completion puts
    /// what the task says into the index. Returns the status; `None`: the server is gone, starts or ends.
    pub(crate) fn report(
        &self,
        server: &Server,
        claimed: &mut Claimed,
        word: Word,
        unheard: u32,
    ) -> Option<u16> {
        let entry = match word {
            Word::Complete => Some(index::entry(server, &self.app, claimed)?),
            _ => None,
        };
        let (verb, body) = word.request(claimed);
        let (asked, moment) = (Instant::now(), self.evidence().note_word(claimed, word));
        let reply = self.ask(server, &format!("/api/tasks/{}/{verb}", claimed.id()), &body);
        let Some((status, answer)) = reply else {
            if word == Word::Heartbeat {
                claimed.may_last_until(Instant::now() + self.lasts);
            }
            return None;
        };
        let answer = Answer { word, status, body: answer, asked, moment, unheard };
        self.evidence().note_answer(claimed, &answer);
        if let (200, Some(entry)) = (status, entry) {
            self.index().put(claimed, entry);
        }
        Some(status)
    }

    /// Asks for a redrive of all dead letters. Returns whether there are any, or any whose redrive is to come.
    pub(crate) fn redrive_all(&self, server: &Server) -> bool {
        let are = |status: &str| {
            let path = format!("/api/dead-letters?status={status}&limit=1");
            !items(&self.app.ask(server, "GET", &path, None).json()).is_empty()
        };
        if are("open") {
            let reply = self.app.ask(server, "POST", "/api/dead-letters/redrive", Some(&json!({})));
            assert!(matches!(reply.status, 200 | 202), "{}", reply.json());
            return true;
        }
        are("redrive_requested")
    }

    fn ask(&self, server: &Server, path: &str, body: &Value) -> Option<(u16, Value)> {
        let reply = server.ask("POST", path, Some(&self.app.token), Some(body)).ok()?;
        match reply.status {
            429 | 503 => None,
            status => Some((status, reply.json())),
        }
    }

    /// The queue as the server counts it.
    pub(crate) fn queue(&self, server: &Server) -> Value {
        self.app.ask(server, "GET", &format!("/api/queues/{COMMAND}"), None).json()
    }

    /// How many of its tasks are unfinished; 0 where there was no task yet.
    pub(crate) fn unfinished(&self, server: &Server) -> u64 {
        let queue = self.queue(server);
        let states = ["waiting", "ready", "aside", "claimed"];
        states.iter().filter_map(|state| queue["counts"][state].as_u64()).sum()
    }
}

/// The state behind a lock, also after a failed story.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
