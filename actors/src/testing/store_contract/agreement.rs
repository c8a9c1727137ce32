//! Two stores that are told the same say the same: random verbs of lanes, letters, redrives, resyncs and
//! replays go to both, and after each step everything that can be seen of both is compared. A store in
//! memory that shares a mistake of the real one shows nowhere else.

use std::{collections::HashMap, fmt::Debug};

use tidings_entity::{
    id::{AppId, DeadLetterId},
    kind::{LetterStatus, RoundKind, WatchState},
};

use super::world::{MAIN, World, commit, listing, view};
use crate::{
    model::round::{DeliveryId, Letter, Round},
    model::view::View,
    ports::{
        AttemptRecord, LetterFilter, NewRound, Random, Reach, RoundFilter, Settlement, Standing, Store,
        StoreError, Watch, WatchPatch,
    },
    testing::SeededRandom,
    time::Timestamp,
};

/// The paths of every round, by position.
const PATHS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// What begins an id in a text.
const PREFIXES: [&str; 6] = ["cur_", "src_", "dlv_", "rdv_", "rep_", "cred_"];

/// What is done, by numbers that mean the same for both stores.
#[derive(Clone, Debug)]
enum Verb {
    MoveHead(u8),
    Sync {
        target: u8,
        total: u64,
        bound: Vec<usize>,
    },
    Redrive(usize),
    Resync {
        target: u8,
        total: u64,
    },
    Replay {
        total: u64,
    },
    Settle {
        by: u64,
        parks: Vec<usize>,
        standing: Standing,
    },
    /// What is settled above the position, twice: nobody knew whether the first was written.
    SettleAbove {
        parks: bool,
    },
    Finish,
    Advance(u8),
    AskRedrive(Vec<usize>),
    BeginRedrive,
    MarkRedrive,
    Cancel {
        of_watch: bool,
    },
    EndRedrive(Vec<usize>),
    AskResync {
        complete: bool,
    },
    AskResyncOfCursor {
        complete: bool,
    },
    Skip,
    AskReplay(u8),
    DropReplay(u8),
    Serve(bool),
    Filter(bool),
    Block(bool),
    Guard,
    Attempt {
        number: u32,
        item: bool,
    },
}

/// One of the two stores, with what was made in it.
struct Side<'s> {
    world: World<'s>,
    app: AppId,
    watches: Vec<Watch>,
    /// Names of ids that the store made up, by order of appearance.
    names: HashMap<String, String>,
}

/// Walks `steps` steps of a seed through both stores, which are empty.
///
/// # Panics
/// At the first step after which they say different things; what was done is told.
pub async fn two_stores_agree(one: &dyn Store, other: &dyn Store, seed: u64, steps: u32) {
    let dice = SeededRandom::new(seed);
    let (mut one, mut other) = (Side::new(one).await, Side::new(other).await);
    let mut log = Vec::new();
    for _ in 0..steps {
        let at = below(&dice, one.watches.len());
        let Some(verb) = one.think(&dice, at).await else { continue };
        log.push(format!("{at} {verb:?}"));
        let (first, second) = (one.act(at, &verb).await, other.act(at, &verb).await);
        let told = log.join("\n");
        assert!(first == second, "seed {seed}, the answers differ: {first} and {second}\n{told}");
        for (line, (first, second)) in one.shown().await.iter().zip(other.shown().await).enumerate() {
            assert!(
                *first == second,
                "seed {seed}, what is seen differs ({line})\n{}\n{told}",
                difference(first, &second)
            );
        }
    }
}

/// The lines of two texts that differ.
fn difference(one: &str, other: &str) -> String {
    let lines = one.lines().zip(other.lines()).filter(|(one, other)| one != other);
    let lines: Vec<String> = lines.take(12).map(|(one, other)| format!("  {one}\n  {other}")).collect();
    let (count, others) = (one.lines().count(), other.lines().count());
    format!("{count} and {others} lines, of which differ:\n{}", lines.join("\n"))
}

fn below(dice: &SeededRandom, bound: usize) -> usize {
    usize::try_from(dice.below(bound as u64)).expect("small")
}

fn some(dice: &SeededRandom, bound: usize) -> Vec<usize> {
    (0..bound).filter(|_| below(dice, 2) == 0).collect()
}

/// The answer of a verb: what it gives, or what kind of error.
fn answer<T: Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Ok(value) => format!("{value:?}"),
        Err(StoreError::Conflict(_)) => "a conflict".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

impl<'s> Side<'s> {
    async fn new(store: &'s dyn Store) -> Self {
        let world = World::new(store);
        let app = world.app().await;
        let mut watches = Vec::new();
        for url in ["https://git.example/one/two", "https://git.example/three"] {
            let mut new = world.new_watch(&app);
            new.url = url.into();
            watches.push(store.register_watch(&new).await.expect("a watch"));
        }
        let mut side = Self { world, app, watches, names: HashMap::new() };
        let cursors: Vec<String> = side.watches.iter().map(|watch| watch.cursors[0].id.to_string()).collect();
        for (number, cursor) in cursors.into_iter().enumerate() {
            side.names.insert(cursor, format!("cursor {number}"));
        }
        side
    }

    /// A verb that may make sense now. It names everything by numbers.
    async fn think(&self, dice: &SeededRandom, at: usize) -> Option<Verb> {
        let lane = self.world.lane(&self.watches[at].cursors[0].id).await;
        let letters = lane.letters.len();
        let small = |most: usize| u64::try_from(below(dice, most)).expect("small");
        let number = || u8::try_from(1 + below(dice, 4)).expect("small");
        let total = || 1 + u64::try_from(below(dice, PATHS.len())).expect("small");
        Some(match (below(dice, 40), &lane.open) {
            (0..=3, _) => Verb::MoveHead(number()),
            (4..=12, None) if lane.resync.is_some() => Verb::Resync { target: number(), total: total() },
            (4..=6, None) if lane.replay.is_some() => Verb::Replay { total: total() },
            (4..=7, None) if letters > 0 => Verb::Redrive(below(dice, 3)),
            (4..=12, None) => {
                let bound = some(dice, letters);
                Verb::Sync { target: number(), total: total(), bound }
            }
            (4, Some(round)) if round.position + 2 < round.summary.total() && lane.above.is_empty() => {
                Verb::SettleAbove { parks: below(dice, 2) == 0 }
            }
            (4..=17, Some(round)) if round.position < round.summary.total() => {
                let by = 1 + small(2);
                let positions = round.position..(round.position + by).min(round.summary.total());
                let positions: Vec<usize> =
                    positions.map(|position| usize::try_from(position).expect("small")).collect();
                let is_settled = |at: &usize| {
                    lane.above.iter().any(|range| range.contains(&u64::try_from(*at).expect("small")))
                };
                let mut parks: Vec<usize> = positions.into_iter().filter(|_| below(dice, 3) == 0).collect();
                parks.retain(|at| !is_settled(at));
                let standing = match below(dice, 8) {
                    0 => Standing::Blocked("too much in a row".to_owned()),
                    1 => Standing::Unblocked,
                    _ => Standing::Unchanged,
                };
                Verb::Settle { by, parks, standing }
            }
            (4..=19, Some(_)) => Verb::Finish,
            (13..=15, None) => Verb::Advance(number()),
            (20..=22, _) => Verb::AskRedrive(some(dice, letters)),
            // Of two that were begun in one millisecond either may be carried out first.
            (23..=24, _) if !self.is_marking().await => Verb::BeginRedrive,
            (23..=27, _) => Verb::MarkRedrive,
            (28..=29, _) => Verb::Cancel { of_watch: below(dice, 2) == 0 },
            (30, Some(round)) if round.spec.kind == RoundKind::Redrive => {
                Verb::EndRedrive(some(dice, round.spec.letters.len()))
            }
            (31, _) => Verb::AskResync { complete: below(dice, 3) == 0 },
            (32, _) => Verb::AskResyncOfCursor { complete: below(dice, 3) == 0 },
            (33, _) => Verb::Skip,
            (34, _) => Verb::AskReplay(number()),
            (35, _) => Verb::DropReplay(number()),
            (36, _) => Verb::Serve(below(dice, 3) > 0),
            (37, _) => Verb::Filter(below(dice, 2) == 0),
            (38, _) if below(dice, 4) == 0 => Verb::Guard,
            (38, _) => Verb::Block(below(dice, 2) == 0),
            (39, Some(_)) => {
                Verb::Attempt { number: 1 + u32::try_from(small(3)).ok()?, item: below(dice, 2) == 0 }
            }
            _ => return None,
        })
    }

    /// Whether a redrive has letters left to mark.
    async fn is_marking(&self) -> bool {
        let redrives = self.world.store.redrives(&self.app, None, 100).await.expect("redrives");
        redrives.iter().any(|redrive| redrive.is_marking)
    }

    /// Does it, and says what came of it.
    async fn act(&mut self, at: usize, verb: &Verb) -> String {
        let said = match verb {
            Verb::Sync { .. }
            | Verb::Redrive(_)
            | Verb::Resync { .. }
            | Verb::Replay { .. }
            | Verb::Settle { .. }
            | Verb::SettleAbove { .. }
            | Verb::Finish
            | Verb::Advance(_)
            | Verb::Attempt { .. } => self.deliver(at, verb).await,
            _ => self.ask(at, verb).await,
        };
        self.named(&said)
    }

    /// What a lane does.
    async fn deliver(&self, at: usize, verb: &Verb) -> String {
        let (world, store) = (&self.world, self.world.store);
        let cursor = &self.watches[at].cursors[0].id;
        let lane = world.lane(cursor).await;
        let letters: Vec<Letter> = lane.letters.iter().map(|(letter, _)| letter.clone()).collect();
        let picked =
            |which: &[usize]| -> Vec<Letter> { which.iter().map(|at| letters[*at].clone()).collect() };
        let open = || lane.open.clone().expect("thought of with an open round");
        match verb {
            Verb::Sync { target, total, bound } => {
                let mut new = world.plan(cursor, *target, *total).await;
                new.round.spec.letters = picked(bound);
                answer(store.begin_round(&new).await)
            }
            Verb::Redrive(skipped) => {
                let new = redrive(world.plan(cursor, 1, 1).await, &lane.letters, *skipped);
                answer(store.begin_round(&new).await)
            }
            Verb::Resync { target, total } => {
                let mut new = world.plan_resync(cursor, *target, *total).await;
                new.round.spec.letters = letters;
                answer(store.begin_round(&new).await)
            }
            Verb::Replay { total } => {
                let mut new = world.plan(cursor, 1, *total).await;
                new.round.spec.kind = RoundKind::Replay;
                new.round.spec.target = new.round.spec.held.take();
                new.round.spec.held.clone_from(&lane.replay);
                new.round.spec.letters = letters;
                answer(store.begin_round(&new).await)
            }
            Verb::Settle { by, parks, standing } => {
                let round = open();
                let position = round.position + by;
                let parked = parks.iter().map(|at| world.park(&round, *at as u64, PATHS[*at])).collect();
                let settlement = Settlement {
                    parked,
                    acknowledged: parks.is_empty(),
                    absorbs: !lane.above.is_empty(),
                    standing: standing.clone(),
                    ..world.settlement(&round, position)
                };
                answer(store.settle(settlement).await)
            }
            Verb::SettleAbove { parks } => {
                let round = open();
                let at = round.position + 1;
                let path = PATHS[usize::try_from(at).expect("small")];
                let parked = parks.then(|| world.park(&round, at, path)).into_iter().collect();
                let above = std::iter::once(at..at + 1).collect();
                let settlement = Settlement { above, parked, ..world.settlement(&round, round.position) };
                let first = answer(store.settle(settlement.clone()).await);
                format!("{first}, {}", answer(store.settle(settlement).await))
            }
            Verb::Finish => answer(store.finish_round(cursor, open().number, Timestamp(5000), true).await),
            Verb::Advance(target) => {
                let held = Some((commit(*target), View::default().id()));
                answer(store.advance(cursor, lane.last_round, held).await)
            }
            Verb::Attempt { number, item } => {
                let tried = attempt(&open(), *number, *item);
                answer(store.record_attempt(tried).await)
            }
            _ => unreachable!("asked for by people"),
        }
    }

    /// What people ask for, and what Git hosts say.
    async fn ask(&self, at: usize, verb: &Verb) -> String {
        let (world, store) = (&self.world, self.world.store);
        let watch = &self.watches[at];
        let cursor = &watch.cursors[0].id;
        let lane = world.lane(cursor).await;
        let ids = |which: &[usize]| -> Vec<DeadLetterId> {
            which.iter().map(|at| lane.letters[*at].0.id.clone()).collect()
        };
        let patch = async |patch: WatchPatch| {
            answer(store.patch_watch(&self.app, &watch.id, &patch).await.map(|_| ()))
        };
        match verb {
            Verb::MoveHead(number) => {
                let listing = listing(&[(MAIN, *number)]);
                answer(store.move_heads(&watch.source, &listing, Timestamp(6000)).await.map(|_| ()))
            }
            Verb::AskRedrive(which) => answer(store.request_redrive(&self.app, &ids(which)).await),
            Verb::BeginRedrive => answer(store.begin_redrive(&self.app, &LetterFilter::default()).await),
            Verb::MarkRedrive => {
                let marked = store.mark_redrive(None).await.map(|step| {
                    // In the order of what the store made up.
                    step.map(|step| (step.marked, step.more, step.cursors.len()))
                });
                answer(marked)
            }
            Verb::Cancel { of_watch } => {
                let watch = of_watch.then_some(&watch.id);
                let cancelled = store.cancel_redrive(&self.app, watch).await;
                answer(cancelled.map(|cancelled| (cancelled.reopened, cancelled.ending.len())))
            }
            Verb::EndRedrive(reached) => {
                let open = lane.open.as_ref().expect("thought of with an open round");
                let reached: Vec<DeadLetterId> =
                    reached.iter().map(|at| open.spec.letters[*at].id.clone()).collect();
                answer(store.end_redrive(cursor, open.number, &reached, Timestamp(6000)).await)
            }
            Verb::AskResync { complete } => {
                answer(store.request_resync(&self.app, &watch.id, *complete).await)
            }
            Verb::AskResyncOfCursor { complete } => {
                answer(store.request_cursor_resync(cursor, *complete, "why").await)
            }
            Verb::Skip => answer(store.request_skip(&self.app, &watch.id, None, None).await),
            Verb::AskReplay(number) => {
                match store.was_held(&self.app, &watch.id, None, commit(*number)).await {
                    Ok((cursor, from)) => answer(store.request_replay(&cursor, &from).await),
                    Err(error) => answer::<()>(Err(error)),
                }
            }
            Verb::DropReplay(number) => answer(store.drop_replay(cursor, commit(*number)).await),
            Verb::Serve(is_served) => {
                let state = if *is_served { WatchState::Active } else { WatchState::Paused };
                patch(WatchPatch { state: Some((state, Some("why".into()))), ..WatchPatch::default() }).await
            }
            Verb::Filter(is_narrow) => {
                let view = if *is_narrow { view("a*") } else { View::default() };
                patch(WatchPatch { view: Some(view), ..WatchPatch::default() }).await
            }
            Verb::Block(is_blocked) => answer(store.set_blocked(cursor, is_blocked.then_some("why")).await),
            Verb::Guard => answer(store.pause_by_guard(cursor, "too many deletes").await),
            _ => unreachable!("what a lane does"),
        }
    }

    /// Everything that can be seen, a text each.
    async fn shown(&mut self) -> Vec<String> {
        let (store, app) = (self.world.store, self.app.clone());
        let mut texts = Vec::new();
        for watch in self.watches.clone() {
            let cursor = &watch.cursors[0].id;
            texts.push(format!("{:#?}", self.world.lane(cursor).await));
            texts.push(format!("{:#?}", store.watch(&app, &watch.id).await.expect("a watch")));
            let filter = RoundFilter { cursor: Some(cursor.clone()), ..RoundFilter::default() };
            let rounds = store.rounds(&app, &filter, 100).await.expect("rounds");
            for round in rounds.iter().take(3) {
                let fates = store.fates(cursor, round.number, 0..round.total()).await;
                texts.push(answer(fates));
            }
            texts.push(format!("{rounds:#?}"));
            texts.push(format!("{}", store.pending(None, &Reach::All).await.expect("pending").len()));
        }
        let letters = store.dead_letters(&app, &LetterFilter::default(), None, 100).await.expect("letters");
        texts.push(format!("{letters:#?}"));
        let mut named: Vec<String> = texts.iter().map(|text| self.named(text)).collect();
        let redrives = store.redrives(&app, None, 100).await.expect("redrives");
        let mut redrives: Vec<String> =
            redrives.iter().map(|redrive| self.named(&format!("{redrive:#?}"))).collect();
        // Those of one millisecond have no order.
        redrives.sort();
        named.push(redrives.join("\n"));
        named
    }

    /// The text with a name in the place of each id that a store made up.
    fn named(&mut self, text: &str) -> String {
        let mut named = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = PREFIXES.iter().filter_map(|prefix| rest.find(prefix)).min() {
            named.push_str(&rest[..at]);
            rest = &rest[at..];
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            let (id, after) = rest.split_at(end.unwrap_or(rest.len()));
            let count = self.names.len();
            let name = self.names.entry(id.to_owned()).or_insert_with(|| format!("id {count}"));
            named.push_str(name);
            rest = after;
        }
        named + rest
    }
}

/// A redrive of the letters that were asked for, but for the first `skipped`.
fn redrive(plan: NewRound, letters: &[(Letter, LetterStatus)], skipped: usize) -> NewRound {
    let mut new = plan;
    let asked = letters.iter().filter(|(_, status)| *status == LetterStatus::RedriveRequested);
    new.round.spec.letters = asked.skip(skipped).map(|(letter, _)| letter.clone()).collect();
    new.round.spec.kind = RoundKind::Redrive;
    new.round.spec.target = new.round.spec.held.clone();
    new.round.summary.creates = new.round.spec.letters.len() as u64;
    new
}

/// A failed try of the head of a round.
fn attempt(round: &Round, number: u32, item: bool) -> AttemptRecord {
    AttemptRecord {
        cursor: round.cursor.clone(),
        round: round.number,
        position: round.position,
        number,
        delivery: DeliveryId::from_stored(format!("dlv_{}", round.position)),
        status: Some(500),
        item_failure: item,
        excerpt: String::new(),
        answer: None,
        took_ms: 5,
        at: Timestamp(4000 + i64::from(number)),
        next_at: None,
    }
}
