//! What may happen, each with how often.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{receivers::RELEASES, world::World};

/// The longest wait between two verbs.
const BETWEEN: Duration = Duration::from_millis(100);

impl World {
    /// Draws one event and lets it happen.
    pub(super) fn step(&mut self) {
        match self.dice.below(66) {
            0..=10 => self.commit("main"),
            11..=15 => self.commit_to_release(),
            16..=17 => self.force(),
            18..=19 => self.turn_branch(),
            20..=31 => self.misbehave(),
            32..=33 => self.behave(),
            34..=37 => self.redrive_all(),
            38..=39 => self.redrive_one(),
            40..=43 => self.verb_of_letters("cancel"),
            44 => self.verb("resync"),
            45 => self.replay(),
            46..=47 => self.skip(),
            48 => self.verb("pause"),
            49 => self.verb("resume"),
            50..=51 => self.filter(),
            52..=53 => self.move_house(),
            54..=55 => self.kill(),
            56..=57 => self.stop(),
            58..=60 => self.wait(),
            _ => self.rest(),
        }
        thread::sleep(self.dice.up_to(BETWEEN));
    }

    fn commit(&mut self, branch: &str) {
        let what = self.branches.commit(branch, &mut self.dice);
        self.say(format!("commit on {branch}: {what}"));
    }

    fn any_release(&mut self) -> &'static str {
        self.dice.pick(&RELEASES).expect("some")
    }

    fn commit_to_release(&mut self) {
        let name = self.any_release();
        if self.branches.has(name) {
            self.commit(name);
        }
    }

    fn force(&mut self) {
        let name = if self.dice.one_in(2) { "main" } else { self.any_release() };
        if self.branches.has(name) {
            let what = self.branches.force(name, &mut self.dice);
            self.say(format!("force push of {name}: {what}"));
        }
    }

    fn turn_branch(&mut self) {
        let name = self.any_release();
        let what = self.branches.turn(name);
        self.say(format!("{name} {what}"));
    }

    fn misbehave(&mut self) {
        let at = self.any_receiver();
        let what = self.receivers[at].misbehave(&mut self.dice);
        self.say(what);
    }

    fn behave(&mut self) {
        let at = self.any_receiver();
        self.receivers[at].program.accept_all();
        self.say(format!("{}: accepts everything", self.receivers[at].name));
    }

    /// Asks as one of the apps; the status of the answer.
    fn ask(&mut self, at: usize, path: &str, body: Option<&Value>) -> u16 {
        let server = self.any_server();
        let reply = self.receivers[at].app.ask(&self.servers[server], "POST", path, body);
        let text = if reply.status < 300 { String::new() } else { reply.json()["title"].to_string() };
        self.say(format!("{}: {path} at server {server}: {} {text}", self.receivers[at].name, reply.status));
        assert!(reply.status < 500, "{}", reply.json());
        reply.status
    }

    fn verb(&mut self, verb: &str) {
        let at = self.any_receiver();
        let path = format!("/api/repositories/{}/{verb}", self.receivers[at].id);
        let body = (verb == "resync" && self.dice.one_in(4)).then(|| json!({ "complete": true }));
        self.ask(at, &path, body.as_ref());
    }

    fn verb_of_letters(&mut self, verb: &str) {
        let at = self.any_receiver();
        self.ask(at, &format!("/api/dead-letters/redrive/{verb}"), None);
    }

    fn redrive_all(&mut self) {
        let at = self.any_receiver();
        self.ask(at, "/api/dead-letters/redrive", None);
        // People press twice.
        if self.dice.one_in(4) {
            self.ask(at, "/api/dead-letters/redrive", None);
        }
    }

    fn redrive_one(&mut self) {
        let (at, server) = (self.any_receiver(), self.any_server());
        let letters = self.receivers[at].letters(&self.servers[server], "open");
        if let Some(letter) = self.dice.pick(&letters) {
            self.say(format!("one letter: {} of {}", letter["path"], letter["cursor"]));
            let id = letter["dead_letter_id"].as_str().expect("an id").to_owned();
            self.ask(at, &format!("/api/dead-letters/{id}/redrive"), None);
        }
    }

    fn replay(&mut self) {
        let at = self.any_receiver();
        let commit = self.dice.pick(&self.branches.heads).expect("some").to_string();
        let path = format!("/api/repositories/{}/replay", self.receivers[at].id);
        self.say(format!("from {commit}"));
        self.ask(at, &path, Some(&json!({ "commit": commit })));
    }

    fn skip(&mut self) {
        let at = self.any_receiver();
        // Noted before it is asked for: it may be done before it is answered.
        self.receivers[at].subscriber.model().skips += 1;
        let path = format!("/api/repositories/{}/skip", self.receivers[at].id);
        self.ask(at, &path, None);
    }

    fn filter(&mut self) {
        let (at, server) = (self.any_receiver(), self.any_server());
        let what = self.receivers[at].filter(&self.servers[server], &mut self.dice);
        self.say(what);
    }

    fn move_house(&mut self) {
        let (at, server) = (self.any_receiver(), self.any_server());
        let what = self.receivers[at].move_house(&self.servers[server]);
        self.say(what);
    }

    pub(super) fn kill(&mut self) {
        let at = self.any_server();
        self.kills += 1;
        self.say(format!("server {at} is killed"));
        self.servers[at].kill();
        for receiver in &self.receivers {
            receiver.subscriber.model().note_kill();
        }
        self.servers[at].run();
    }

    fn stop(&mut self) {
        let at = self.any_server();
        self.say(format!("server {at} is stopped"));
        let (status, took) = self.servers[at].terminate();
        assert!(status.success(), "{status}");
        self.say(format!("after {took:?} it is started"));
        self.servers[at].run();
    }

    fn wait(&mut self) {
        let wait = self.dice.up_to(BETWEEN * 10);
        self.say(format!("{wait:?} pass"));
        thread::sleep(wait);
    }
}
