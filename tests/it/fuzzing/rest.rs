//! Rests: nothing is on its way and nothing waits. Then every receiver has what its branches have.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::world::World;

/// How long receivers that misbehave get to come to rest. Then they are made well.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long receivers that are well get.
const PATIENCE_WITH_THE_WELL: Duration = Duration::from_secs(240);
/// How long a mirror may differ while nothing seems to be on its way: what was asked for is done soon.
const SETTLING: Duration = Duration::from_secs(40);
/// Time between two checks.
const PAUSE: Duration = Duration::from_millis(40);

impl World {
    /// Waits until nothing is on its way, and compares the trees.
    pub(super) fn rest(&mut self) {
        self.say("rest".to_owned());
        for at in 0..self.receivers.len() {
            let receiver = &self.receivers[at];
            receiver.app.tell(&self.servers[0], &receiver.id, "resume");
            receiver.app.tell(&self.servers[0], &receiver.id, "scan");
        }
        for at in 0..self.receivers.len() {
            self.rest_of(at);
        }
        for at in 0..self.receivers.len() {
            let receiver = &self.receivers[at];
            receiver.subscriber.assert_faultless();
            // What was skipped is over; what is skipped later has a gap of its own.
            receiver.subscriber.model().skips = 0;
        }
    }

    fn rest_of(&mut self, at: usize) {
        let began = Instant::now();
        let (mut is_healed, mut still_since) = (false, None);
        loop {
            let busy = self.busy(at);
            let differences = if busy.is_none() { self.differences(at) } else { Vec::new() };
            if busy.is_none() && differences.is_empty() {
                return;
            }
            if busy.is_some() {
                still_since = None;
            } else if still_since.get_or_insert_with(Instant::now).elapsed() > SETTLING {
                self.fail(at, &differences.join("\n"));
            }
            if !is_healed && began.elapsed() > PATIENCE {
                is_healed = true;
                self.heal(at);
            }
            if began.elapsed() > PATIENCE_WITH_THE_WELL {
                self.fail(at, &busy.unwrap_or_default());
            }
            thread::sleep(PAUSE);
        }
    }

    /// Its receiver accepts everything, and its breaker is closed.
    fn heal(&mut self, at: usize) {
        let receiver = &self.receivers[at];
        receiver.program.accept_all();
        let path = format!("/api/admin/breakers/endpoint/{}/reset", receiver.app.id);
        // There may be none, and on another replica than the one that works.
        let statuses: Vec<u16> =
            self.servers.iter().map(|server| server.ask_as_admin("POST", &path).status).collect();
        self.say(format!("{}: made well, breakers {statuses:?}", self.receivers[at].name));
    }

    /// What a receiver waits for, if it does.
    fn busy(&self, at: usize) -> Option<String> {
        let receiver = &self.receivers[at];
        let shown = receiver.app.repository(&self.servers[0], &receiver.id);
        let of = |name: &str| {
            let full = format!("refs/heads/{name}");
            let branches = shown["branches"].as_array().expect("branches");
            branches.iter().find(|branch| branch["branch"] == full.as_str()).cloned()
        };
        for name in receiver.branches() {
            let branch = of(name).unwrap_or_default();
            let is_there = self.branches.has(name);
            let expected = if is_there { Value::from(self.branches.head(name)) } else { Value::Null };
            if branch["held_commit"] != expected || !branch["round"].is_null() {
                return Some(format!("{name} is expected at {expected}: {branch:#}"));
            }
        }
        let waiting = receiver.letters(&self.servers[0], "redrive_requested");
        (!waiting.is_empty()).then(|| format!("letters wait for their redrive: {waiting:#?}"))
    }

    /// How its mirrors differ from the branches, but for paths with a letter.
    fn differences(&self, at: usize) -> Vec<String> {
        let receiver = &self.receivers[at];
        let shown = receiver.app.repository(&self.servers[0], &receiver.id);
        let mut found = Vec::new();
        for name in receiver.branches() {
            let full = format!("refs/heads/{name}");
            let branches = shown["branches"].as_array().expect("branches");
            let branch = branches.iter().find(|branch| branch["branch"] == full.as_str());
            let cursor = branch.and_then(|branch| branch["cursor"].as_str()).unwrap_or_default();
            let parked = receiver.parked(&self.servers[0], cursor);
            let tree = self.branches.tree(name, |path| receiver.admits(path));
            let model = receiver.subscriber.model();
            found.extend(model.differences(&receiver.mirror(name), &tree, &parked));
        }
        found
    }

    fn fail(&self, at: usize, what: &str) -> ! {
        let receiver = &self.receivers[at];
        let shown = receiver.app.repository(&self.servers[0], &receiver.id);
        let letters = receiver.app.ask(&self.servers[0], "GET", "/api/dead-letters?limit=100", None).json();
        for path in ["status=open", "status=redrive_requested"] {
            println!("{path}: {}", receiver.letters(&self.servers[0], &path[7..]).len());
        }
        let applied = receiver.subscriber.applied();
        let last = &applied[applied.len().saturating_sub(30)..];
        panic!("{}: {what}\n{:#}\n{letters:#}\napplied last: {last:?}", receiver.name, shown["branches"]);
    }

    /// Every receiver is made well, everything is redriven, and every file removed.
    pub(super) fn end(&mut self) {
        for at in 0..self.receivers.len() {
            self.heal(at);
        }
        self.rest();
        for at in 0..self.receivers.len() {
            self.redrive_until_nothing_is_left(at);
        }
        self.rest();
        self.branches.clear();
        self.say("every file is removed".to_owned());
        self.rest();
        for at in 0..self.receivers.len() {
            let letters = self.receivers[at].letters(&self.servers[0], "open");
            if !letters.is_empty() {
                self.fail(at, "letters that a receiver which is well should have got");
            }
        }
    }

    fn redrive_until_nothing_is_left(&mut self, at: usize) {
        let until = Instant::now() + PATIENCE_WITH_THE_WELL;
        let receiver = &self.receivers[at];
        loop {
            let open = receiver.letters(&self.servers[0], "open").len();
            let waiting = receiver.letters(&self.servers[0], "redrive_requested").len();
            if open + waiting == 0 {
                return;
            }
            if Instant::now() > until {
                self.fail(at, "letters are left after all was redriven to a receiver that is well");
            }
            if waiting == 0 {
                receiver.app.ask(&self.servers[0], "POST", "/api/dead-letters/redrive", None);
            }
            thread::sleep(PAUSE);
        }
    }
}
