//! What goes wrong beside the history: hosts that misbehave for some requests, packing, lost mirrors, kills.

use std::{thread, time::Duration};

use super::World;
use crate::support::{dice::Dice, git_host::Fault};

/// The longest life of a server between a push and its kill.
const LIFE: Duration = Duration::from_millis(400);
/// Most requests at which a host misbehaves.
const REQUESTS: u64 = 4;

/// A misdeed of a host, at requests of any kind.
fn fault(dice: &mut Dice) -> Fault {
    match dice.below(14) {
        0 => Fault::Status(403, None),
        1 => Fault::Status(500, None),
        2 => Fault::Status(503, Some("1")),
        3 => Fault::Status(429, Some("1")),
        4 => Fault::Html,
        5 => Fault::WebPage,
        6 => Fault::FlippedBit,
        7 => Fault::ObjectCount(1),
        8 => Fault::RefusesHaves,
        9 => Fault::Late(Duration::from_millis(300)),
        10 => Fault::Stale,
        _ => Fault::CutAt(u8::try_from(dice.below(256)).expect("below 256")),
    }
}

impl World {
    /// What happens before a push; whether a host lists what was before.
    pub(super) fn trouble_before(&mut self) -> bool {
        let mut is_stale = false;
        self.hosts.iter().for_each(|host| host.misbehave(None));
        if self.dice.one_in(3) {
            let (fault, requests) = (fault(&mut self.dice), 1 + self.dice.below(REQUESTS));
            let at = usize::try_from(self.dice.below(self.hosts.len() as u64)).expect("few");
            self.say(format!("host {at}: {fault:?} for {requests} requests"));
            is_stale = fault == Fault::Stale;
            self.hosts[at].misbehave_for(fault, requests);
        }
        if self.dice.one_in(8) {
            self.pack();
        }
        is_stale
    }

    /// What happens while the push is taken in.
    pub(super) fn trouble_after(&mut self) {
        match self.dice.below(16) {
            0..=1 => self.kill(),
            2 => self.lose_mirrors(),
            3 => self.stop(),
            4 => self.pack(),
            _ => {}
        }
    }

    /// Somebody tidies the repository up. No object goes.
    fn pack(&mut self) {
        let ways: [&[&str]; 6] = [
            &["repack", "-adkq"],
            &["gc", "--quiet", "--prune=never"],
            &["repack", "-dq"],
            &["pack-refs", "--all"],
            &["commit-graph", "write", "--reachable"],
            &["repack", "-dq", "--write-midx"],
        ];
        let way = *self.dice.pick(&ways).expect("some");
        self.say(format!("git {}", way.join(" ")));
        self.truth.close();
        self.history.repository.git(way);
    }

    fn lose_mirrors(&mut self) {
        self.say("the mirrors are lost".to_owned());
        self.server.lose(&self.server.data().join("mirrors"));
    }

    fn kill(&mut self) {
        let life = self.dice.up_to(LIFE);
        let loses = self.dice.one_in(3);
        self.say(format!("the server is killed after {life:?}"));
        thread::sleep(life);
        self.server.kill();
        for watch in &self.watches {
            watch.subscriber.model().note_kill();
        }
        if loses {
            self.lose_mirrors();
        }
        self.server.run();
    }

    fn stop(&mut self) {
        let life = self.dice.up_to(LIFE);
        self.say(format!("the server is stopped after {life:?}"));
        thread::sleep(life);
        let (status, _) = self.server.terminate();
        assert!(status.success(), "{status}");
        self.server.run();
    }
}
