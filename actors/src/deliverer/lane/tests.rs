//! The lane against scripts and against chance: a simulated receiver that refuses, fails and
//! vanishes, and crashes in between.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use tidings_entity::{
    id::{ObjectId, Sha256Hash, WatchId},
    kind::{Operation, PayloadFormat, RetryPolicy, RoundKind},
};
use ulid::Ulid;

mod batches;
mod failures;
mod memory;

use super::{launching::PIPELINE, *};
use crate::{
    deliverer::retry::{PROBE_WAIT_LAST, RetryRules},
    model::round::{Entry, RoundSpec, Summary},
    ports::{Action, Parcel, ParcelBody, REFUSALS_MAX, Random, STREAK_MAX},
};

const RULES: RetryRules = RetryRules {
    policy: RetryPolicy::Fixed,
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
    window: Duration::from_secs(3_600),
};

struct NoDice;
impl Random for NoDice {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

fn changes(deletes: u64, creates: u64, updates: u64) -> Vec<Change> {
    let entry = |number: u64| {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Some(Entry { mode: 0o100_644, blob: ObjectId::new(id) })
    };
    let make = |operation, number: u64| Change {
        operation,
        path: format!("{operation:?}{number:06}").into_bytes(),
        old: (operation != Operation::Create).then(|| entry(number)).flatten(),
        new: (operation != Operation::Delete).then(|| entry(number + 1_000_000)).flatten(),
        replay_of: None,
    };
    let deletes = (0..deletes).map(|number| make(Operation::Delete, number));
    let creates = (0..creates).map(|number| make(Operation::Create, number));
    let updates = (0..updates).map(|number| make(Operation::Update, number));
    deletes.chain(creates).chain(updates).collect()
}

fn round(list: &[Change], position: u64) -> Arc<Round> {
    let count = |operation| list.iter().filter(|change| change.operation == operation).count() as u64;
    Arc::new(Round {
        cursor: CursorId::new(Ulid::from_parts(1, 1)),
        number: 5,
        spec: RoundSpec { kind: RoundKind::Sync, held: None, target: None, bases: vec![], letters: vec![] },
        summary: Summary {
            deletes: count(Operation::Delete),
            creates: count(Operation::Create),
            updates: count(Operation::Update),
            digest: Sha256Hash::of(b""),
        },
        rules: crate::model::round::RULES,
        began_at: Timestamp(0),
        branch: "refs/heads/main".into(),
        url: String::new(),
        format: PayloadFormat::Docora,
        history_rewritten: false,
        skipped_commits: false,
        complete: false,
        position,
    })
}

fn parcel(change: &Change, size: usize) -> Parcel {
    let id = DeliveryId::of(&CursorId::new(Ulid::from_parts(1, 1)), 5, change);
    let body = ParcelBody::Whole(Bytes::from(vec![0; size]));
    let (action, watch) = (Action::from(change.operation), WatchId::new(Ulid::from_parts(1, 2)));
    Parcel { id, action, watch, format: PayloadFormat::Docora, body, held: None }
}

struct World {
    list: Vec<Change>,
    lane: Lane,
    now: Instant,
    wall: i64,
    letters: u64,
    effects: Vec<CursorEffect>,
    standings: Vec<Standing>,
    redriven: Vec<SelfRedrive>,
    settled: u64,
    /// What is on disk above it.
    above: Vec<Range<u64>>,
    parked: Vec<u64>,
    /// The status of every answer that is no acknowledgement.
    status: u16,
    /// What a restart reads back from rows.
    streak: Streak,
    acknowledged: bool,
    order: OrderMode,
    /// Of a `strict` lane: what is on its way, and what goes out after it.
    flying: Option<u64>,
    pipeline: VecDeque<u64>,
}

impl World {
    fn new(list: Vec<Change>, order: OrderMode) -> Self {
        let lane = Self::lane(&list, 0, order, Streak::default(), false);
        Self {
            list,
            lane,
            now: Instant::now(),
            wall: 0,
            letters: 0,
            effects: Vec::new(),
            standings: Vec::new(),
            redriven: Vec::new(),
            settled: 0,
            above: Vec::new(),
            parked: Vec::new(),
            status: 418,
            streak: Streak::default(),
            acknowledged: false,
            order,
            flying: None,
            pipeline: VecDeque::new(),
        }
    }

    fn lane(list: &[Change], position: u64, order: OrderMode, streak: Streak, acknowledged: bool) -> Lane {
        Lane::new(LaneStart {
            round: round(list, position),
            order,
            max_in_flight: 4,
            batch: None,
            streak,
            grace_until: None,
            acknowledged,
            blocked: streak.count >= STREAK_MAX,
            head_attempts: HeadAttempts::default(),
            above: Vec::new(),
            skip: None,
        })
    }

    /// A kill: everything in memory is gone, rows stay.
    fn crash(&mut self) {
        self.flying = None;
        self.pipeline.clear();
        self.lane = Self::lane(&self.list, self.settled, self.order, self.streak, self.acknowledged);
        self.lane.above = self.above.clone();
    }

    /// A stop, or a reload: everything that was answered is written, and the next life starts from it.
    fn end(&mut self) {
        self.halt();
        while !self.lane.is_still() || self.lane.owes_effects() {
            self.settle_for(true);
        }
        self.crash();
    }

    fn feed(&mut self) {
        if let Some((position, _)) = self.lane.want_read() {
            let start = usize::try_from(position).unwrap();
            let window = self.list[start..].iter().take(CHANGES_PER_READ).cloned().collect();
            assert!(self.lane.on_read(window));
        }
        let wanted = self.lane.want_prepare(self.now, AHEAD);
        self.lane.on_prepared(wanted.iter().map(|(_, change, _)| parcel(change, 0)).collect());
    }

    /// What goes out next, if anything does.
    fn launch(&mut self) -> Option<u64> {
        if self.flying.is_some() {
            return None;
        }
        if self.pipeline.is_empty() {
            self.feed();
            let position = self.lane.next_sendable(self.now)?;
            let launched = self.lane.launch(position, false).parcels;
            assert!(!launched.is_empty(), "what is sendable can be launched");
            self.pipeline.extend(launched.into_iter().map(|(position, _)| position));
        }
        let position = self.pipeline.pop_front()?;
        assert!(
            position < self.settled + WINDOW,
            "{position} is sent while only {} is settled",
            self.settled
        );
        self.flying = Some(position).filter(|_| self.order == OrderMode::Strict);
        Some(position)
    }

    /// What a pipeline did not send goes back.
    fn halt(&mut self) {
        for position in std::mem::take(&mut self.pipeline) {
            self.lane.on_recalled(position);
        }
    }

    fn answer(&mut self, position: u64, verdict: Verdict) -> Option<Failed> {
        self.answer_with(position, verdict, None)
    }

    fn answer_with(&mut self, position: u64, verdict: Verdict, elsewhere: Option<Instant>) -> Option<Failed> {
        self.flying = None;
        if verdict == Verdict::Acknowledged {
            self.lane.on_acknowledged(position);
            return None;
        }
        self.letters += 1;
        let letter = DeadLetterId::new(Ulid::from_parts(self.letters, 0));
        let moment = Moment { instant: self.now, wall: Timestamp(self.wall) };
        let failure = Failure {
            verdict,
            sent_at: self.now,
            answered_elsewhere: elsewhere,
            retry_after: None,
            status: Some(self.status),
            excerpt: String::new(),
        };
        let failed = self.lane.on_failed(position, failure, moment, &RULES, &NoDice, letter);
        self.halt();
        failed
    }

    fn settle(&mut self) {
        self.settle_for(false);
    }

    fn settle_for(&mut self, ends: bool) {
        while let Some(effect) = self.lane.want_effect().cloned() {
            self.effects.push(effect);
            self.lane.on_effect_written();
        }
        if let Some(settlement) = self.lane.want_settle(Timestamp(self.wall), ends) {
            let least = self.settled + u64::from(settlement.above.is_empty());
            assert!(settlement.position >= least, "positions only rise");
            if settlement.absorbs {
                self.above.retain(|range| range.end > settlement.position);
            }
            self.above.extend(settlement.above.iter().cloned());
            self.settled = settlement.position;
            self.parked.extend(settlement.parked.iter().map(|park| park.position));
            self.streak = settlement.streak;
            self.acknowledged = settlement.acknowledged;
            self.standings.extend(Some(settlement.standing).filter(|it| *it != Standing::Unchanged));
            self.redriven.extend(settlement.redrive);
            self.lane.on_settled();
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.wall += i64::try_from(seconds * 1_000).unwrap();
    }

    fn try_now(&mut self) {
        self.lane.try_now(self.now);
    }

    /// Plays one change to its end with one verdict for each try.
    fn finish_one(&mut self, verdict: Verdict) -> u64 {
        loop {
            let Some(position) = self.launch() else {
                self.wait(61);
                continue;
            };
            let failed = self.answer(position, verdict);
            self.settle();
            if failed.is_none_or(|failed| failed.retry_in.is_none()) {
                return position;
            }
        }
    }
}

#[test]
fn a_strict_lane_has_one_change_on_its_way() {
    let mut world = World::new(changes(1, 2, 0), OrderMode::Strict);
    for expected in 0..3 {
        assert_eq!(world.launch(), Some(expected));
        assert_eq!(world.launch(), None, "one at a time");
        world.answer(expected, Verdict::Acknowledged);
        world.settle();
    }
    assert!(world.lane.is_finished());
}

#[test]
fn a_blocked_head_is_tried_at_once_when_somebody_says_so() {
    let mut world = World::new(changes(0, 12, 0), OrderMode::Strict);
    world.try_now();
    for _ in 0..STREAK_MAX {
        world.finish_one(Verdict::Doubtful);
    }
    let head = world.launch().expect("a probe");
    world.answer(head, Verdict::Doubtful);
    world.settle();
    assert_eq!(world.launch(), None, "it waits for the next probe");
    world.try_now();
    assert_eq!(world.launch(), Some(head));
    assert!(
        matches!(&world.standings[0], Standing::Blocked(reason) if reason.contains("418")),
        "the last answer"
    );
}

#[test]
fn a_head_that_is_not_blocked_keeps_its_wait_whoever_says_so() {
    let mut world = World::new(changes(0, 2, 0), OrderMode::Strict);
    let head = world.launch().expect("the first");
    world.answer(head, Verdict::Failing);
    world.try_now();
    assert_eq!(world.launch(), None, "its tries are few");
}

#[test]
fn a_phased_lane_overlaps_within_a_phase_and_never_across() {
    let mut world = World::new(changes(2, 6, 0), OrderMode::Phased);
    assert_eq!((world.launch(), world.launch(), world.launch()), (Some(0), Some(1), None));
    world.answer(1, Verdict::Acknowledged);
    assert_eq!(world.launch(), None, "a delete is still on its way");
    world.answer(0, Verdict::Acknowledged);
    let sent: Vec<_> = std::iter::from_fn(|| world.launch()).collect();
    assert_eq!(sent, [2, 3, 4, 5], "as many as it may");
}

#[test]
fn outcomes_above_the_prefix_are_written_only_when_the_prefix_passes_them() {
    let mut world = World::new(changes(0, 3, 0), OrderMode::Phased);
    while world.launch().is_some() {}
    world.answer(2, Verdict::Acknowledged);
    world.answer(1, Verdict::Acknowledged);
    world.settle();
    assert_eq!(world.settled, 0);
    world.answer(0, Verdict::Acknowledged);
    world.settle();
    assert_eq!(world.settled, 3);
}

#[test]
fn a_lane_that_ends_writes_outcomes_above_the_prefix_and_the_next_life_repeats_none() {
    let mut world = World::new(changes(0, 6, 0), OrderMode::Phased);
    while world.launch().is_some() {}
    world.answer(0, Verdict::Failing);
    world.answer(1, Verdict::Acknowledged);
    world.answer(2, Verdict::Refused);
    world.answer(3, Verdict::Failing);
    world.end();
    assert_eq!((world.settled, world.parked.as_slice()), (0, &[2][..]));
    assert_eq!(world.above.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>(), [(1, 3)]);
    let sent: Vec<_> = std::iter::from_fn(|| world.launch()).collect();
    assert_eq!(sent, [0, 3, 4, 5], "what was answered does not come again");
    world.answer(0, Verdict::Acknowledged);
    world.settle();
    assert_eq!((world.settled, world.above.len()), (3, 0), "the prefix passes what was above it");
    for position in 3..6 {
        world.answer(position, Verdict::Acknowledged);
    }
    world.settle();
    assert!(world.lane.is_finished());
}

#[test]
fn a_settlement_that_was_not_written_is_written_again_and_nothing_is_sent_meanwhile() {
    let mut world = World::new(changes(0, 100, 0), OrderMode::Strict);
    let head = world.launch().expect("ready");
    world.answer(head, Verdict::Refused);
    let first = world.lane.want_settle(Timestamp(0), false).expect("a park");
    world.lane.on_settle_failed();
    world.halt();
    assert_eq!(world.launch(), None);
    assert!(!world.lane.is_still(), "a lane that knows what is not on disk is not replaced");
    let again = world.lane.want_settle(Timestamp(9), false).expect("the same");
    assert_eq!((again.position, again.parked[0].id.clone()), (first.position, first.parked[0].id.clone()));
    world.lane.on_settled();
    assert_eq!(world.launch(), Some(1));
}

#[test]
fn nothing_is_sent_beyond_the_window_of_unsettled_changes() {
    let mut world = World::new(changes(0, 200, 0), OrderMode::Strict);
    let mut sent = 0;
    while let Some(position) = world.launch() {
        world.answer(position, Verdict::Acknowledged);
        sent += 1;
    }
    assert_eq!(sent, WINDOW, "the writer never came");
    world.settle();
    assert_eq!(world.launch(), Some(WINDOW));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_lanes_settle_every_change_once_in_order_and_repeats_stay_in_the_window(
        shape in (0_u64..40, 0_u64..120, 0_u64..40),
        phased in any::<bool>(),
        script in proptest::collection::vec((0_u8..100, 0_usize..8), 1..600),
    ) {
        let order = if phased { OrderMode::Phased } else { OrderMode::Strict };
        let list = changes(shape.0, shape.1, shape.2);
        let total = list.len() as u64;
        let mut world = World::new(list, order);
        let mut acknowledged: HashMap<u64, u32> = HashMap::new();
        let mut flying: Vec<u64> = Vec::new();
        let mut script = script.into_iter().chain(std::iter::repeat((0, 0)));
        let mut crashes = 0_u32;
        for _ in 0..20_000 {
            if world.lane.is_finished() {
                break;
            }
            let (roll, pick) = script.next().expect("endless");
            while let Some(position) = world.launch() {
                flying.push(position);
            }
            match roll {
                95.. => {
                    crashes += 1;
                    flying.clear();
                    world.crash();
                }
                94 => world.settle(),
                92..=93 if flying.is_empty() => world.end(),
                90..=93 => world.halt(),
                _ if flying.is_empty() => {
                    world.settle();
                    world.wait(61);
                }
                _ => {
                    let position = flying.remove(pick % flying.len());
                    let verdict = match roll {
                        0..=69 => Verdict::Acknowledged,
                        70..=79 => Verdict::Endpoint,
                        80..=81 => Verdict::Refused,
                        82 => Verdict::Contested,
                        83..=84 => Verdict::Doubtful,
                        _ => Verdict::Failing,
                    };
                    if verdict == Verdict::Acknowledged {
                        *acknowledged.entry(position).or_default() += 1;
                    }
                    world.answer(position, verdict);
                    if roll % 3 == 0 {
                        world.settle();
                    }
                }
            }
        }
        prop_assert!(world.lane.is_finished(), "it ends");
        prop_assert_eq!(world.settled, total);
        for position in 0..total {
            let taken = acknowledged.contains_key(&position) || world.parked.contains(&position);
            prop_assert!(taken, "{} was passed without a word", position);
        }
        let repeats: u32 = acknowledged.values().map(|times| times - 1).sum();
        prop_assert!(repeats <= crashes * u32::try_from(WINDOW).unwrap(), "{} repeats after {} crashes", repeats, crashes);
    }
}
