//! Every verb in random order, with fresh and stale tokens and a clock that moves, against a queue that is
//! written in the most naive way: a list that is searched.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidings_actors::{
    model::task::{ClaimProof, ClaimToken, MoveRefusal, Moved, TaskMove},
    ports::{
        CLOCKS_APART_MAX, ClaimRequest, ClaimStore, NewTask, QueueSettings, Random, TaskFilter, TaskStore,
        TaskWord, WordRefusal,
    },
    testing::{ManualClock, SeededRandom},
    time::Timestamp,
};
use tidings_entity::{
    id::TaskId,
    kind::{
        RetryPolicy,
        TaskState::{self, Cancelled, Claimed, Dead, Failed, Ready, Succeeded, Waiting},
    },
};

use super::{SECOND, START, app, asks, new, open, told};
use crate::{SqlStore, tests::home::Home};

/// Steps of one run.
const STEPS: u64 = 500;
/// Runs with seeds of their own.
const RUNS: u64 = 2;
const COMMANDS: [&str; 3] = ["a", "b", "c"];
/// The wait of the policy.
const WAIT_MS: i64 = 10_000;
/// The longest time of a claim with its extensions.
const TIMEOUT_MS: i64 = 200_000;
const KEPT_MS: i64 = 400_000;

/// A task as anybody would write it down.
#[derive(Clone, Debug)]
struct Naive {
    id: TaskId,
    command: &'static str,
    priority: u8,
    order: usize,
    state: TaskState,
    attempts: u64,
    abandons: u64,
    max: u64,
    /// Every claim that was ever given; the last one is good while the task is claimed.
    tokens: Vec<ClaimToken>,
    /// Whether the last token is the one of the current claim, or ended the task.
    is_good: bool,
    claimed_at: i64,
    wake_at: i64,
    flagged: bool,
}

struct Run {
    random: SeededRandom,
    store: SqlStore,
    clock: Arc<ManualClock>,
    now: i64,
    /// How long after its end a claim is taken from its worker.
    grace: i64,
    tasks: Vec<Naive>,
    paused: BTreeMap<&'static str, bool>,
    max_claimed: BTreeMap<&'static str, Option<u64>>,
    made: u64,
    tried: BTreeMap<&'static str, u64>,
}

/// One process has one clock; the clocks of replicas differ a little.
fn grace_of(store: &SqlStore) -> i64 {
    let is_shared = matches!(store.address, crate::database::address::Address::Server(_));
    if is_shared { i64::try_from(CLOCKS_APART_MAX.as_millis()).expect("small") } else { 0 }
}

pub(super) async fn every_verb_in_any_order_does_what_a_naive_queue_does(home: Home) {
    let (store, clock) = open(&home).await;
    let mut made = 0;
    for seed in 1..=RUNS {
        let random = SeededRandom::new(seed);
        let (paused, max_claimed, tried) = Default::default();
        let mut run = Run {
            random,
            store: store.clone(),
            clock: clock.clone(),
            now: START.0,
            grace: grace_of(&store),
            tasks: Vec::new(),
            paused,
            max_claimed,
            made,
            tried,
        };
        run.clock.set(Timestamp(run.now));
        for command in COMMANDS {
            run.set(command, None).await;
            store.pause_queue(&app(), command, false).await.expect("goes on");
        }
        for step in 0..STEPS {
            run.step().await;
            if step % 20 == 19 {
                run.compare(&format!("seed {seed}, step {step}")).await;
            }
        }
        for verb in ["claimed", "stale", "complete", "nack", "abandon", "expired", "due", "dead", "redriven"]
        {
            assert!(run.tried.contains_key(verb), "seed {seed} never came to {verb}: {:?}", run.tried);
        }
        made = run.made;
        // The next run begins with empty queues.
        run.now += 100 * KEPT_MS;
        run.clock.set(Timestamp(run.now));
        for command in COMMANDS {
            store.purge_queue(&app(), command, 10_000).await.expect("purged");
        }
        while store.wake_tasks().await.expect("woken") != Default::default() {}
        for task in
            store.list_tasks(&app(), &TaskFilter::default(), None, 10_000).await.expect("listed").found
        {
            drop(store.move_tasks(vec![told(&task.id, TaskMove::Cancel)]).await.expect("cancelled"));
        }
        run.now += 100 * KEPT_MS;
        run.clock.set(Timestamp(run.now));
        while store.forget_tasks(500).await.expect("forgotten") > 0 {}
        assert!(
            store.list_tasks(&app(), &TaskFilter::default(), None, 1).await.expect("listed").found.is_empty()
        );
    }
}

impl Run {
    fn draw(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn note(&mut self, verb: &'static str) {
        *self.tried.entry(verb).or_default() += 1;
    }

    async fn set(&mut self, command: &'static str, max_claimed: Option<u64>) {
        let settings = QueueSettings {
            max_claimed,
            max_attempts: Some(3),
            retry_policy: Some(RetryPolicy::Fixed),
            retry_base_ms: Some(WAIT_MS as u64),
            timeout_ms: Some(TIMEOUT_MS as u64),
            retention_ms: Some(KEPT_MS as u64),
            dead_retention_ms: Some(2 * KEPT_MS as u64),
            ..QueueSettings::default()
        };
        self.store.set_queue(&app(), command, &settings, Timestamp(self.now)).await.expect("set");
        self.max_claimed.insert(command, max_claimed);
    }

    async fn step(&mut self) {
        match self.draw(100) {
            0..20 => self.create().await,
            20..45 => self.claim().await,
            45..75 => self.word().await,
            75..79 => self.person(TaskMove::Cancel).await,
            79..85 => self.person(TaskMove::Redrive).await,
            85..90 => self.wake().await,
            90..92 => self.pause().await,
            92..94 => {
                let command = COMMANDS[self.draw(3) as usize];
                let most = [None, Some(1), Some(4)][self.draw(3) as usize];
                self.set(command, most).await;
            }
            94..96 => self.forget().await,
            _ => {
                self.now += [1, 1_000, 15_000, 70_000][self.draw(4) as usize];
                // Somebody sets the clock back.
                self.now -= if self.draw(10) == 0 { 20_000 } else { 0 };
                self.clock.set(Timestamp(self.now));
            }
        }
    }

    async fn create(&mut self) {
        let command = COMMANDS[self.draw(3) as usize];
        let mut tasks = Vec::new();
        for _ in 0..=self.draw(3) {
            self.made += 1;
            let (priority, delay) = ([0, 0, 5, 9][self.draw(4) as usize], self.draw(4) == 0);
            let delay = delay.then(|| Duration::from_millis(5_000));
            tasks.push(NewTask { priority, delay, ..new(self.made, command) });
        }
        for task in &tasks {
            self.tasks.push(Naive {
                id: task.id.clone(),
                command,
                priority: task.priority,
                order: self.tasks.len(),
                state: if task.delay.is_some() { Waiting } else { Ready },
                attempts: 0,
                abandons: 0,
                max: 3,
                tokens: Vec::new(),
                is_good: false,
                claimed_at: 0,
                wake_at: self.now + 5_000,
                flagged: false,
            });
        }
        self.store.create_tasks(&app(), tasks).await.expect("written").expect("created");
    }

    async fn claim(&mut self) {
        let mut requests = Vec::new();
        for _ in 0..=self.draw(2) {
            let commands: Vec<&str> = COMMANDS.into_iter().filter(|_| self.draw(2) == 0).collect();
            requests.push(asks(&commands, 1 + self.draw(3) as usize));
        }
        let claims = self.store.claim_tasks(requests.clone()).await.expect("written");
        for (request, claim) in requests.iter().zip(claims) {
            let expected: Vec<TaskId> = self.hand_out(request);
            let given: Vec<TaskId> = claim.tasks.iter().map(|task| task.task.id.clone()).collect();
            assert_eq!(given, expected, "{:?} of {:?}", request.commands, self.tasks);
            for given in claim.tasks {
                let task = self.tasks.iter_mut().find(|task| task.id == given.task.id).expect("known");
                assert!(!task.tokens.contains(&given.token), "bits are drawn once");
                assert_eq!(given.task.attempts, task.attempts);
                task.tokens.push(given.token);
                self.note("claimed");
            }
        }
    }

    /// What a naive queue gives for a request.
    fn hand_out(&mut self, request: &ClaimRequest) -> Vec<TaskId> {
        let mut given = Vec::new();
        while given.len() < request.count {
            let claimed = |command: &str| {
                self.tasks.iter().filter(|task| task.command == command && task.state == Claimed).count()
            };
            let may = |task: &&Naive| {
                task.state == Ready
                    && request.commands.iter().any(|command| command == task.command)
                    && !self.paused.get(task.command).copied().unwrap_or(false)
                    && self.max_claimed[task.command].is_none_or(|most| (claimed(task.command) as u64) < most)
            };
            let best = self.tasks.iter().filter(may).min_by_key(|task| (9 - task.priority, task.order));
            let Some(order) = best.map(|task| task.order) else { break };
            let now = self.now;
            let task = &mut self.tasks[order];
            (task.state, task.attempts, task.is_good) = (Claimed, task.attempts + 1, true);
            (task.claimed_at, task.wake_at) = (now, now + 60_000);
            given.push(task.id.clone());
        }
        given
    }

    /// A worker says something, with the newest token or an old one.
    async fn word(&mut self) {
        let held: Vec<usize> =
            self.tasks.iter().filter(|task| !task.tokens.is_empty()).map(|task| task.order).collect();
        let fresh: Vec<usize> = held.iter().copied().filter(|at| self.tasks[*at].state == Claimed).collect();
        let from = if self.draw(4) == 0 || fresh.is_empty() { &held } else { &fresh };
        if from.is_empty() {
            return;
        }
        let order = from[self.draw(from.len() as u64) as usize];
        let count = self.tasks[order].tokens.len() as u64;
        let which = if self.draw(4) == 0 { self.draw(count) } else { count - 1 };
        let token = self.tasks[order].tokens[which as usize].clone();
        let is_newest = which == count - 1;
        let step = match self.draw(8) {
            0 | 1 => TaskMove::Complete,
            2 => TaskMove::Fail("no".into()),
            3 => TaskMove::Heartbeat(90 * SECOND),
            4 => TaskMove::Nack { delay: None, reason: Some("busy".into()) },
            5 => TaskMove::Nack { delay: Some(Duration::from_millis(self.draw(2) * 3_000)), reason: None },
            _ => TaskMove::Abandon(Duration::ZERO),
        };
        let word = TaskWord {
            id: token.task.clone(),
            app: app(),
            proof: Some(ClaimProof::Hash(token.hash())),
            step: step.clone(),
            body: None,
            then: Vec::new(),
        };
        let expected = self.expected(order, is_newest, &step);
        let answer = self.store.move_tasks(vec![word]).await.expect("written").pop().expect("an answer");
        assert_eq!(answer.map(|worded| worded.moved), expected, "{step:?} of {:?}", self.tasks[order]);
    }

    /// What a naive queue answers a worker, which it changes accordingly.
    fn expected(&mut self, order: usize, is_newest: bool, step: &TaskMove) -> Result<Moved, WordRefusal> {
        let now = self.now;
        let task = &mut self.tasks[order];
        let lost = Err(WordRefusal::Move(MoveRefusal::ClaimLost));
        let is_over = task.state == Claimed && task.wake_at <= now;
        if !is_newest || !task.is_good || is_over {
            self.note("stale");
            return lost;
        }
        match (task.state, step) {
            (Succeeded, TaskMove::Complete) | (Failed, TaskMove::Fail(_)) => return Ok(Moved::Before),
            (Claimed, TaskMove::Heartbeat(_)) if task.flagged => return Ok(Moved::Flagged),
            (Claimed, TaskMove::Heartbeat(_)) => {
                task.wake_at = (now + 90_000).min(task.claimed_at + TIMEOUT_MS);
            }
            (Claimed, TaskMove::Complete) => task.end(Succeeded, now),
            (Claimed, TaskMove::Fail(_)) => task.end(Failed, now),
            (Claimed, TaskMove::Nack { delay, .. }) => {
                let wait = delay.map_or(WAIT_MS, |delay| delay.as_millis() as i64);
                task.give_back(wait, now);
                let is_dead = task.state == Dead;
                self.note("nack");
                if is_dead {
                    self.note("dead");
                }
            }
            (Claimed, TaskMove::Abandon(_)) => {
                task.abandons += 1;
                task.attempts -= 1;
                task.give_back(0, now);
                self.note("abandon");
            }
            _ => return lost,
        }
        if matches!(step, TaskMove::Complete) {
            self.note("complete");
        }
        Ok(Moved::Now)
    }

    async fn person(&mut self, step: TaskMove) {
        if self.tasks.is_empty() {
            return;
        }
        let order = self.draw(self.tasks.len() as u64) as usize;
        let now = self.now;
        let task = &mut self.tasks[order];
        let expected = match (&step, task.state) {
            (TaskMove::Cancel, Waiting | Ready) => {
                task.end(Cancelled, now);
                Ok(Moved::Now)
            }
            (TaskMove::Cancel, Claimed) => {
                if !task.flagged {
                    task.wake_at = task.wake_at.min(now + 60_000);
                }
                task.flagged = true;
                Ok(Moved::Flagged)
            }
            (TaskMove::Cancel, Cancelled) => Ok(Moved::Before),
            (TaskMove::Redrive, Failed | Dead | Cancelled) => {
                (task.state, task.attempts, task.abandons, task.is_good) = (Ready, 0, 0, false);
                Ok(Moved::Now)
            }
            (_, state) => Err(WordRefusal::Move(MoveRefusal::State(state))),
        };
        let id = task.id.clone();
        if step == TaskMove::Redrive && expected.is_ok() {
            self.note("redriven");
        }
        let answer = self.store.move_tasks(vec![told(&id, step)]).await.expect("written").pop();
        assert_eq!(answer.expect("an answer").map(|worded| worded.moved), expected);
    }

    async fn wake(&mut self) {
        let (now, grace) = (self.now, self.grace);
        let (mut due, mut expired, mut dead) = (0, 0, 0);
        for task in &mut self.tasks {
            match task.state {
                Waiting if task.wake_at <= now => {
                    task.state = Ready;
                    due += 1;
                }
                Claimed if task.wake_at + grace <= now => {
                    task.give_back(0, now);
                    expired += 1;
                    dead += u64::from(task.state == Dead);
                }
                _ => {}
            }
        }
        let woken = self.store.wake_tasks().await.expect("woken");
        assert_eq!((woken.due, woken.expired), (due, expired));
        let next = self.tasks.iter().filter(|task| matches!(task.state, Waiting | Claimed));
        assert_eq!(
            woken.next.map(|at| at.0),
            next.map(|task| task.wake_at + if task.state == Claimed { grace } else { 0 }).min()
        );
        for (verb, count) in [("due", due), ("expired", expired), ("dead", dead)] {
            if count > 0 {
                self.note(verb);
            }
        }
    }

    async fn pause(&mut self) {
        let command = COMMANDS[self.draw(3) as usize];
        let is_paused = self.draw(3) == 0;
        self.store.pause_queue(&app(), command, is_paused).await.expect("paused");
        self.paused.insert(command, is_paused);
    }

    async fn forget(&mut self) {
        let now = self.now;
        let before = self.tasks.len();
        self.tasks.retain(|task| {
            !matches!(task.state, Succeeded | Failed | Dead | Cancelled) || task.wake_at > now
        });
        let gone = (before - self.tasks.len()) as u64;
        for (order, task) in self.tasks.iter_mut().enumerate() {
            task.order = order;
        }
        assert_eq!(self.store.forget_tasks(10_000).await.expect("forgotten"), gone);
    }

    /// Compares all rows, and the numbers of the queues.
    async fn compare(&mut self, when: &str) {
        let listed =
            self.store.list_tasks(&app(), &TaskFilter::default(), None, 10_000).await.expect("listed").found;
        let mut shown: Vec<_> =
            listed.iter().map(|task| (task.id.clone(), task.state, task.attempts, task.is_flagged)).collect();
        let mut expected: Vec<_> = self
            .tasks
            .iter()
            .map(|task| (task.id.clone(), task.state, task.attempts, task.flagged))
            .collect();
        shown.sort();
        expected.sort();
        assert_eq!(shown, expected, "{when}");
        for command in COMMANDS {
            let queue = self.store.queue(&app(), command).await.expect("a queue");
            for (state, count) in queue.counts {
                let of = self.tasks.iter().filter(|task| task.command == command && task.state == state);
                assert_eq!(count, of.count() as u64, "{state} of {command}, {when}");
            }
            let open = self
                .tasks
                .iter()
                .filter(|task| task.command == command && matches!(task.state, Waiting | Ready | Claimed));
            let bytes: usize = open.map(|task| new(task.id.ulid().timestamp_ms(), "").payload.len()).sum();
            assert_eq!(queue.bytes, bytes as u64, "{when}");
        }
    }
}

impl Naive {
    fn end(&mut self, state: TaskState, now: i64) {
        (self.state, self.flagged) = (state, false);
        self.wake_at = now + if state == Dead { 2 * KEPT_MS } else { KEPT_MS };
    }

    fn give_back(&mut self, wait: i64, now: i64) {
        self.is_good = false;
        if self.flagged {
            self.end(Cancelled, now);
        } else if self.attempts >= self.max {
            self.end(Dead, now);
        } else if wait == 0 {
            self.state = Ready;
        } else {
            (self.state, self.wake_at) = (Waiting, now + wait);
        }
    }
}
