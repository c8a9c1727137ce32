//! A differential oracle: random histories of a real repository, watched over every protocol, mode and view at
//! once, while hosts misbehave, mirrors vanish and the server is killed. After each step everything that the
//! apps were told is held against what git itself says: which rounds there are, every field of every change,
//! and the files that they make.
//!
//! `TIDINGS_ORACLE_STEPS=1000` makes it longer, `TIDINGS_ORACLE_SEED=7` plays one seed, `TIDINGS_ORACLE_SEEDS=20`
//! that many. A failure prints how it is played again. The history follows from the seed; which of its commits
//! meets which moment of the server does not.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::{dice::Dice, patience::SOON, remote::Host, server::Server, setting};

mod bites;
mod compare;
mod edits;
mod expected;
mod history;
mod indexed;
mod names;
mod objects;
mod rounds;
mod trouble;
mod truth;
mod watches;

use history::History;
use truth::Truth;
use watches::{Watch, Way};

/// Steps of a seed, unless `TIDINGS_ORACLE_STEPS` says otherwise.
const STEPS: u64 = 30;
/// The seeds that the suite plays.
const SEEDS: &[u64] = &[1];
/// Between two looks at the watches.
const PAUSE: Duration = Duration::from_millis(15);
/// Between two looks at the repository that are asked for while somebody waits.
const NUDGE: Duration = Duration::from_millis(250);

/// A seed on its way.
struct World {
    seed: u64,
    steps: u64,
    log: Vec<String>,
    dice: Dice,
    history: History,
    truth: Truth,
    hosts: Vec<Host>,
    server: Server,
    watches: Vec<Watch>,
    counts: (usize, usize),
    was_stale: bool,
    began: Instant,
    _folder: TempDir,
}

impl World {
    fn begin(seed: u64) -> Self {
        let began = Instant::now();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("r.git");
        let history = History::begin(&path, seed);
        history.repository.config("uploadpack.allowAnySHA1InWant", "true");
        history.repository.config("uploadpack.allowFilter", "true");
        let hosts: Vec<Host> = (0..3).map(|_| Host::start_apart()).collect();
        hosts.iter().for_each(|host| host.link("r", &path));
        hosts[2].speak_version_0();
        let mut server = Server::prepare()
            // Looks are asked for: polls beside them would only make the machine busy.
            .with("git.poll_min", "1s")
            .with("git.poll_max", "1s")
            .with("git.branch_gone_after", "200ms")
            // This many rebuild their mirrors often.
            .with("git.packs_max", "5")
            .with("telemetry.log_filter", "info,tidings=info");
        server.run();
        let watches = watches::register(&server, |way| match way {
            Way::Two => hosts[0].url("r"),
            Way::Narrow => hosts[1].url("r"),
            Way::Zero => hosts[2].url("r"),
            Way::Path => path.display().to_string(),
        });
        let (dice, truth) = (Dice::of(!seed), Truth::of(&path));
        let (log, counts) = (Vec::new(), (0, 0));
        let mut world = Self {
            seed,
            steps: 0,
            log,
            dice,
            history,
            truth,
            hosts,
            server,
            watches,
            counts,
            was_stale: false,
            began,
            _folder: folder,
        };
        world.rest();
        world.compare(false);
        world
    }

    fn say(&mut self, what: String) {
        self.log.push(format!("{} after {:?}: {what}", self.steps, self.began.elapsed()));
    }

    fn step(&mut self) {
        self.steps += 1;
        let is_stale = self.trouble_before();
        let what = self.history.step();
        self.say(what);
        self.look();
        self.trouble_after();
        self.rest();
        if is_stale {
            // A source that was not asked yet must hear no old listing after this rest.
            self.hosts.iter().for_each(|host| host.misbehave(None));
            self.look();
            thread::sleep(NUDGE);
            self.rest();
        }
        // What was listed before the rest may still be on its way.
        self.compare(is_stale || self.was_stale);
        self.was_stale = is_stale;
    }

    /// Waits until every watch holds the heads of its branches.
    fn rest(&self) {
        let began = Instant::now();
        let mut nudged = None;
        for watch in &self.watches {
            while let Some(waits) = watch.waits_for(&self.server, |branch| self.history.head(branch)) {
                assert!(began.elapsed() < 4 * SOON, "{} does not come to rest: {waits:#}", watch.name);
                if nudged.is_none_or(|nudged: Instant| nudged.elapsed() > NUDGE) {
                    nudged = Some(Instant::now());
                    self.look();
                }
                thread::sleep(PAUSE);
            }
        }
    }

    /// Lets the server look at the repository on every way.
    fn look(&self) {
        for way in [Way::Two, Way::Narrow, Way::Zero, Way::Path] {
            let first = self.watches.iter().find(|watch| watch.way == way).expect("one of each");
            first.app.tell(&self.server, &first.id, "scan");
        }
    }

    /// Nothing was given up on the way.
    fn end(&self) {
        for watch in &self.watches {
            let letters = watch.app.dead_letters(&self.server);
            assert!(letters.is_empty(), "{}: {letters:#?}", watch.name);
        }
        self.history.repository.git(["fsck", "--connectivity-only", "--no-dangling"]);
        let (took, (changes, rounds)) = (self.began.elapsed(), self.counts);
        println!("seed {}: {changes} changes in {rounds} rounds in {took:?}", self.seed);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("what happened, step by step:\n  {}", self.log.join("\n  "));
            println!(
                "again: TIDINGS_ORACLE_SEED={} TIDINGS_ORACLE_STEPS={} cargo test --test it oracle:: -- --nocapture",
                self.seed, self.steps
            );
        }
    }
}

#[test]
fn every_app_is_told_what_git_says_over_random_histories_and_mishaps() {
    let seeds = match (setting("TIDINGS_ORACLE_SEED"), setting("TIDINGS_ORACLE_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (1..=count).collect(),
        (None, None) => SEEDS.to_vec(),
    };
    let steps = setting("TIDINGS_ORACLE_STEPS").unwrap_or(STEPS);
    let mut failed = Vec::new();
    for seed in seeds {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::begin(seed);
            for _ in 0..steps {
                world.step();
            }
            world.end();
        }));
        failed.extend(played.is_err().then_some(seed));
    }
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}
