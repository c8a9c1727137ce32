//! Seeded walks: commits, answers of every kind, redrives, cancels, skips, replays, resyncs, filters,
//! kills, in any order. At each rest the receiver has the files of the commit, but for paths with an
//! open letter; when the receiver is well and everything was redriven, it has all of them.
//!
//! `TIDINGS_STORY_SEED=7` walks one seed, `TIDINGS_STORY_SEEDS=2000` that many.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidings_entity::{
    id::{AppId, ObjectId},
    kind::{ContentRule, HistoryMode, LetterStatus, WatchState},
};

use super::doubts::ways;
use crate::{
    model::view::{MAX_SIZE_DEFAULT, View},
    ports::{LaneStore, LetterStore, Random, SendFailure, Watch, WatchPatch, WatchStore},
    supervision::tree::DELIVERER,
    testing::{
        SeededRandom,
        house::{House, URL, location},
        transport::{Answer, Reply},
    },
};

/// Walks, unless the environment says otherwise.
const SEEDS: u64 = 40;
/// Steps of a walk.
const STEPS: u64 = 60;
/// The paths that change.
const PATHS: [&str; 3] = ["a", "b", "c"];
/// What a path may be. Few, so that paths are often turned back.
const ENTRIES: [Option<(&str, u32)>; 4] =
    [None, Some(("1", 0o100_644)), Some(("2", 0o100_644)), Some(("1", 0o120_000))];
/// What a filter leaves out.
const FILTERS: [&[&str]; 3] = [&[], &["c"], &["a", "b"]];

struct Walk {
    seed: u64,
    dice: SeededRandom,
    house: House,
    app: AppId,
    watch: Watch,
    /// What the branch has.
    tree: BTreeMap<&'static str, (&'static str, u32)>,
    /// What each path was before it was changed last.
    before: BTreeMap<&'static str, Option<(&'static str, u32)>>,
    head: ObjectId,
    commits: Vec<ObjectId>,
    view: View,
    log: Vec<String>,
}

impl Drop for Walk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("TIDINGS_STORY_SEED={}\n{}", self.seed, self.log.join("\n"));
        }
    }
}

/// A number that the environment names.
#[expect(clippy::disallowed_methods, reason = "tests have no settings file; these are their dials")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[tokio::test(start_paused = true)]
async fn after_any_walk_the_receiver_has_the_tree_or_a_letter() {
    let seeds = match number("TIDINGS_STORY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDINGS_STORY_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let mut walk = Walk::begin(seed).await;
        for _ in 0..STEPS {
            walk.step().await;
        }
        walk.end().await;
    }
}

fn view(exclude: &[&str]) -> View {
    let exclude = exclude.iter().map(|glob| (*glob).to_owned()).collect();
    View::new(vec![], exclude, true, ContentRule::Inline, MAX_SIZE_DEFAULT).expect("a view")
}

impl Walk {
    async fn begin(seed: u64) -> Self {
        let mut house = House::new();
        house.start().await;
        let dice = SeededRandom::new(seed);
        let way = ways()[usize::try_from(seed % 4).expect("four")].clone();
        let tree = BTreeMap::from([("a", ("1", 0o100_644)), ("b", ("1", 0o100_644))]);
        let head = house.git.commit_modes(&location(URL), "main", &listed(&tree));
        let log = vec![format!("{:?}, batch: {}", way.order, way.batch.is_some())];
        let app = house.app_with(|delivery| *delivery = way).await;
        let mode = if seed.is_multiple_of(3) { HistoryMode::Every } else { HistoryMode::Net };
        let view = view(FILTERS[0]);
        let watch = house.watch_with(&app, URL, |new| (new.view, new.mode) = (view.clone(), mode)).await;
        Self {
            seed,
            dice,
            house,
            app,
            watch,
            tree,
            before: BTreeMap::new(),
            head,
            commits: vec![head],
            view,
            log,
        }
    }

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.dice.below(bound as u64)).expect("small")
    }

    fn path(&self) -> &'static str {
        PATHS[self.below(PATHS.len())]
    }

    fn say(&mut self, what: String) {
        self.log.push(what);
    }

    async fn step(&mut self) {
        match self.below(38) {
            0..=7 => self.commit().await,
            8..=12 => self.answer(),
            13..=14 => self.heal_one(),
            15..=16 => self.redrive_all().await,
            17 => self.redrive_one().await,
            18..=19 => self.cancel().await,
            20 => self.resync().await,
            21 => self.replay().await,
            22 => self.skip().await,
            23 => self.pause().await,
            24 => self.filter().await,
            25 => self.stop(Duration::ZERO).await,
            26 => self.stop(Duration::from_secs(20)).await,
            27 => self.kill_deliverer(),
            28..=31 => self.wait().await,
            _ => self.rest().await,
        }
        tokio::time::sleep(Duration::from_millis(self.dice.below(1_500))).await;
    }

    async fn commit(&mut self) {
        for _ in 0..=self.below(2) {
            let path = self.path();
            let entry = match self.before.get(path) {
                // Turned back: what a letter says of the path shows now.
                Some(before) if self.below(2) == 0 => *before,
                _ => ENTRIES[self.below(ENTRIES.len())],
            };
            let before = match entry {
                Some(entry) => self.tree.insert(path, entry),
                None => self.tree.remove(path),
            };
            self.before.insert(path, before);
        }
        self.head = self.house.git.commit_modes(&location(URL), "main", &listed(&self.tree));
        self.commits.push(self.head);
        self.say(format!("commit {} {:?}", self.head, self.tree));
        self.house.poke(&self.watch).await;
    }

    fn answer(&mut self) {
        let path = self.path();
        let refused = [409, 422, 404, 405][self.below(4)];
        // What says that the endpoint is not well ends by itself; a refusal lasts until it is taken back.
        let (answer, lasts) = match self.below(14) {
            0..=3 => (Answer::Applied(Reply::Status(refused)), self.below(2) == 0),
            4..=5 => (Answer::Status(refused), self.below(2) == 0),
            6 => (Answer::Applied(Reply::Status(500)), self.below(2) == 0),
            7 => (Answer::Status(500), self.below(2) == 0),
            8 => (Answer::Status(503), false),
            9 => (Answer::Applied(Reply::Failure(SendFailure::Timeout)), false),
            10 => (Answer::Applied(Reply::Failure(SendFailure::Connection)), false),
            11 => (Answer::Applied(Reply::Late(Duration::from_secs(30))), false),
            12 => (Answer::Applied(Reply::Slow(200, Duration::from_secs(20))), false),
            _ => (Answer::Slow(200, Duration::from_secs(20)), false),
        };
        if lasts {
            self.say(format!("{path} is answered {answer:?}"));
            self.house.transport.answer_path(path, Some(answer));
        } else {
            let tries = 1 + self.below(3);
            self.say(format!("{path} is answered {answer:?}, {tries} times"));
            self.house.transport.script_path(path, vec![answer; tries]);
        }
    }

    fn heal_one(&mut self) {
        let path = self.path();
        self.say(format!("{path} is accepted"));
        self.house.transport.answer_path(path, None);
    }

    fn heal(&mut self) {
        self.say("everything is accepted".to_owned());
        PATHS.iter().for_each(|path| self.house.transport.answer_path(path, None));
    }

    async fn redrive_all(&mut self) {
        let asked = self.house.redrive_all(&self.app).await;
        self.say(format!("redrive all: {asked}"));
        self.house.refresh(&self.app).await;
    }

    async fn redrive_one(&mut self) {
        let mut open = self.house.letters(&self.app).await;
        open.retain(|letter| letter.status == LetterStatus::Open);
        if open.is_empty() {
            return;
        }
        let letter = &open[self.below(open.len())];
        let asked = self.house.store.request_redrive(&self.app, std::slice::from_ref(&letter.id)).await;
        let path = String::from_utf8_lossy(&letter.path).into_owned();
        self.say(format!("redrive {path}: {:?}", asked.map(|(count, _)| count)));
        self.house.refresh(&self.app).await;
    }

    async fn cancel(&mut self) {
        let cancelled = self.house.store.cancel_redrive(&self.app, None).await.expect("asked");
        self.say(format!("cancel: {cancelled:?}"));
        self.house.refresh(&self.app).await;
    }

    async fn resync(&mut self) {
        let complete = self.below(4) == 0;
        self.house.store.request_resync(&self.app, &self.watch.id, complete).await.expect("asked");
        self.say(format!("resync, complete: {complete}"));
        self.house.refresh(&self.app).await;
    }

    async fn replay(&mut self) {
        let commit = self.commits[self.below(self.commits.len())];
        let held = self.house.store.was_held(&self.app, &self.watch.id, None, commit).await;
        if let Ok((cursor, from)) = held {
            let asked = self.house.store.request_replay(&cursor, &from).await;
            self.say(format!("replay from {commit}: {asked:?}"));
            self.house.refresh(&self.app).await;
        }
    }

    async fn skip(&mut self) {
        let asked = self.house.store.request_skip(&self.app, &self.watch.id, None, None).await;
        self.say(format!("skip: {asked:?}"));
        self.house.refresh(&self.app).await;
    }

    async fn serve(&mut self, state: WatchState) {
        let patch = WatchPatch { state: Some((state, None)), ..WatchPatch::default() };
        self.house.store.patch_watch(&self.app, &self.watch.id, &patch).await.expect("changed");
        self.say(format!("the watch is {state:?}"));
        self.house.refresh(&self.app).await;
    }

    async fn pause(&mut self) {
        let state = if self.below(2) == 0 { WatchState::Paused } else { WatchState::Active };
        self.serve(state).await;
    }

    async fn filter(&mut self) {
        self.view = view(FILTERS[self.below(FILTERS.len())]);
        let patch = WatchPatch { view: Some(self.view.clone()), ..WatchPatch::default() };
        self.house.store.patch_watch(&self.app, &self.watch.id, &patch).await.expect("changed");
        self.say(format!("without {:?}", self.view.exclude()));
        self.house.refresh(&self.app).await;
    }

    async fn stop(&mut self, deadline: Duration) {
        self.say(format!("stopped within {deadline:?} and started"));
        self.house.stop(deadline).await;
        self.house.start().await;
    }

    fn kill_deliverer(&mut self) {
        if self.house.deliverer(&self.app).is_some() {
            self.say("the deliverer is killed".to_owned());
            self.house.kill(DELIVERER, self.app.as_str());
        }
    }

    async fn wait(&mut self) {
        let wait = Duration::from_secs(self.dice.below(60));
        self.say(format!("{wait:?} pass"));
        tokio::time::sleep(wait).await;
    }

    /// Whether nothing is open, waits, or was asked for.
    async fn is_idle(&self) -> bool {
        let cursor = &self.watch.cursors[0].id;
        let lane = self.house.store.lane(cursor).await.expect("a lane");
        let asked = self.house.letters(&self.app).await.into_iter();
        let asked = asked.filter(|letter| letter.status == LetterStatus::RedriveRequested).count();
        let held = lane.held.is_some_and(|(commit, view)| commit == self.head && view == self.view);
        held && lane.open.is_none() && lane.replay.is_none() && lane.resync.is_none() && asked == 0
    }

    async fn is_idle_within(&self, span: Duration) -> bool {
        let until = tokio::time::Instant::now() + span;
        while !self.is_idle().await {
            if tokio::time::Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        true
    }

    /// Comes to rest, if need be by a receiver that is well, and compares.
    async fn rest(&mut self) {
        self.serve(WatchState::Active).await;
        if !self.is_idle_within(Duration::from_secs(600)).await {
            self.heal();
            if !self.is_idle_within(Duration::from_secs(6 * 3_600)).await {
                let lane = self.house.store.lane(&self.watch.cursors[0].id).await;
                panic!("no rest: {lane:#?}, {:#?}", self.house.letters(&self.app).await);
            }
        }
        let letters = self.house.letters(&self.app).await;
        let open = letters.into_iter().filter(|letter| letter.status == LetterStatus::Open);
        let open: BTreeSet<Vec<u8>> = open.map(|letter| letter.path).collect();
        let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
        self.say(format!("rest, open letters of {:?}", open.iter().map(text).collect::<Vec<_>>()));
        let filter = self.view.filter().expect("a filter");
        let admitted = |path: &Vec<u8>| {
            self.tree.get(text(path).as_str()).is_some_and(|(_, mode)| filter.admits(path, *mode))
        };
        let mut expected = self.house.git.files(self.head);
        expected.retain(|path, _| admitted(path) && !open.contains(path));
        let mut mirror = self.house.transport.mirror(&self.app);
        mirror.retain(|path, _| !open.contains(path));
        let shown = |tree: &BTreeMap<Vec<u8>, ObjectId>| -> Vec<String> {
            tree.iter().map(|(path, blob)| format!("{} {blob}", text(path))).collect()
        };
        assert_eq!(shown(&mirror), shown(&expected), "the receiver, and the files of {}", self.head);
    }

    /// The receiver is well, everything is redriven, and then everything is removed.
    async fn end(&mut self) {
        self.heal();
        self.rest().await;
        // Tries that were told what to answer may be left.
        for _ in 0..10 {
            if self.house.redrive_all(&self.app).await == 0 {
                break;
            }
            self.house.refresh(&self.app).await;
            self.rest().await;
        }
        let letters = self.house.letters(&self.app).await;
        let open = letters.iter().filter(|letter| letter.status == LetterStatus::Open).count();
        assert_eq!(open, 0, "every letter was redriven to a receiver that takes everything: {letters:#?}");
        self.tree.clear();
        self.head = self.house.git.commit_modes(&location(URL), "main", &[]);
        self.house.poke(&self.watch).await;
        self.rest().await;
        self.house.stop(Duration::ZERO).await;
    }
}

fn listed<'t>(tree: &BTreeMap<&'t str, (&'t str, u32)>) -> Vec<(&'t str, &'t str, u32)> {
    tree.iter().map(|(path, (content, mode))| (*path, *content, *mode)).collect()
}
