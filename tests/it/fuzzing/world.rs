//! The servers, the repository and the five apps of one seed, and what happened so far.

use std::time::Duration;

use super::{branches::Branches, receivers, receivers::Receiver};
use crate::support::{dice::Dice, fleet::Fleet, server::Server};

/// What happens in one seed.
pub(super) struct World {
    seed: u64,
    pub(super) dice: Dice,
    /// How often a server was killed.
    pub(super) kills: u64,
    /// What happened, to be read when it went wrong.
    log: Vec<String>,
    pub(super) servers: Vec<Server>,
    pub(super) branches: Branches,
    pub(super) receivers: Vec<Receiver>,
    /// Goes after the servers.
    _fleet: Option<Fleet>,
}

/// Settings under which nothing waits long.
fn quick(server: Server) -> Server {
    server
        .with("git.branch_gone_after", "300ms")
        .with("delivery.attempt_timeout", "2s")
        .with("telemetry.log_filter", "info,tidings=info")
}

impl World {
    /// One server with a database of its own.
    pub(super) fn of_one_server(seed: u64) -> Self {
        let mut server = quick(Server::prepare());
        server.run();
        Self::over(seed, vec![server], None)
    }

    /// Two replicas that hear no notification; `None` where this machine has no PostgreSQL.
    pub(super) fn of_replicas(seed: u64, lease: Duration) -> Option<Self> {
        let mut fleet = Fleet::deaf(2, lease, quick)?;
        let servers = std::mem::take(&mut fleet.servers);
        let world = Self::over(seed, servers, Some(fleet));
        for receiver in &world.receivers {
            // A lease of a busy machine ends without any mishap.
            receiver.subscriber.model().may_repeat = true;
        }
        Some(world)
    }

    fn over(seed: u64, servers: Vec<Server>, fleet: Option<Fleet>) -> Self {
        let branches = Branches::new();
        let receivers = receivers::register(&servers[0], &branches);
        let mut world = Self {
            seed,
            dice: Dice::of(seed),
            kills: 0,
            log: Vec::new(),
            servers,
            branches,
            receivers,
            _fleet: fleet,
        };
        // The first 2xx of each is what ends the grace of a new registration.
        world.rest();
        world
    }

    /// Adds a line to the log that a failure prints.
    pub(super) fn say(&mut self, what: String) {
        self.log.push(what);
    }

    /// One of the servers, to be asked.
    pub(super) fn any_server(&mut self) -> usize {
        usize::try_from(self.dice.below(self.servers.len() as u64)).expect("few")
    }

    /// One of the apps.
    pub(super) fn any_receiver(&mut self) -> usize {
        usize::try_from(self.dice.below(self.receivers.len() as u64)).expect("few")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("TIDINGS_STORY_SEED={}, what happened:\n  {}", self.seed, self.log.join("\n  "));
            for receiver in &self.receivers {
                let model = receiver.subscriber.model();
                println!("{} {} ({}): {:#?}", receiver.name, receiver.id, receiver.app.id, model.faults);
            }
        }
    }
}
