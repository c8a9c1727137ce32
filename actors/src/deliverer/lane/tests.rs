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

use super::{launching::PIPELINE, *};
use crate::{
    deliverer::retry::{PROBE_WAIT_LAST, RetryRules},
    model::round::{Entry, RoundSpec, Summary},
    ports::{Action, Parcel, ParcelBody, REFUSALS_MAX, Random},
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

#[test]
fn a_poisoned_change_does_not_block_the_next() {
    let mut world = World::new(changes(0, 2, 0), OrderMode::Strict);
    world.acknowledged = true;
    world.crash();
    world.finish_one(Verdict::Refused);
    assert_eq!(world.finish_one(Verdict::Acknowledged), 1);
    assert_eq!(world.parked, [0]);
    assert!(world.lane.is_finished());
}

#[test]
fn ten_parks_in_a_row_block_the_cursor_until_its_head_is_taken() {
    let mut world = World::new(changes(0, 12, 0), OrderMode::Strict);
    world.acknowledged = true;
    world.crash();
    for _ in 0..10 {
        world.finish_one(Verdict::Failing);
    }
    assert!(matches!(world.standings.as_slice(), [Standing::Blocked(_)]), "{:?}", world.standings);
    for _ in 0..50 {
        world.wait(61);
        let head = world.launch().expect("the head is tried under probe");
        assert_eq!(head, 10);
        assert!(
            world.answer(head, Verdict::Doubtful).expect("failed").retry_in <= Some(PROBE_WAIT_LAST),
            "nothing more is parked"
        );
        world.settle();
    }
    world.wait(61);
    let head = world.launch().expect("due");
    world.answer(head, Verdict::Acknowledged);
    world.settle();
    assert_eq!(world.standings[1..], [Standing::Unblocked]);
    let streak = SelfRedrive { from: (5, 0), before: (5, 10), counted: true };
    assert_eq!(world.redriven, [streak], "the streak is sent again");
    assert_eq!(world.launch(), Some(11), "the round goes on");
}

#[test]
fn an_acknowledgement_and_a_refusal_end_the_streak() {
    for ending in [Verdict::Acknowledged, Verdict::Refused, Verdict::Contested] {
        the_streak_ends_with(ending);
    }
}

fn the_streak_ends_with(ending: Verdict) {
    let mut world = World::new(changes(0, 30, 0), OrderMode::Strict);
    world.acknowledged = true;
    world.crash();
    for _ in 0..3 {
        for _ in 0..9 {
            world.finish_one(Verdict::Doubtful);
        }
        world.finish_one(ending);
    }
    assert!(world.standings.is_empty() && world.lane.is_finished());
}

#[test]
fn a_refused_change_is_parked_at_once_and_a_contested_one_at_the_third_try() {
    let mut world = World::new(changes(0, 2_000, 0), OrderMode::Strict);
    world.acknowledged = true;
    world.crash();
    for position in 0..1_500 {
        assert_eq!(world.launch(), Some(position));
        let failed = world.answer(position, Verdict::Refused).expect("failed");
        assert_eq!((failed.number, failed.retry_in), (1, None));
        world.settle();
    }
    assert!(world.standings.is_empty(), "a receiver that refused may refuse for ever: {:?}", world.standings);
    let tries = std::iter::from_fn(|| {
        world.wait(3);
        let position = world.launch()?;
        world.answer(position, Verdict::Contested)?.retry_in
    });
    assert_eq!(tries.count(), 2, "the third parks");
}

#[test]
fn what_ends_a_block_by_a_streak_sends_the_streak_again() {
    for ending in [Verdict::Acknowledged, Verdict::Refused, Verdict::Contested] {
        let mut world = World::new(changes(0, 12, 0), OrderMode::Strict);
        world.acknowledged = true;
        world.crash();
        for _ in 0..10 {
            world.finish_one(Verdict::Doubtful);
        }
        // What the rows say is enough: a restart in between changes nothing.
        world.crash();
        assert!(world.lane.is_blocked());
        assert_eq!(world.finish_one(ending), 10);
        assert_eq!(world.standings[1..], [Standing::Unblocked], "{ending:?}");
        assert_eq!(world.redriven, [SelfRedrive { from: (5, 0), before: (5, 10), counted: true }]);
        assert_eq!(world.streak, Streak::default());
        assert!(!world.lane.is_blocked());
    }
}

#[test]
fn a_receiver_that_only_refuses_is_probed_after_a_thousand_until_it_takes_something() {
    let mut world = World::new(changes(0, 1_100, 0), OrderMode::Strict);
    for position in 0..u64::from(REFUSALS_MAX) {
        assert_eq!(world.finish_one(Verdict::Refused), position);
    }
    assert!(
        matches!(world.standings.as_slice(), [Standing::Blocked(why)] if why.starts_with("refuses_everything")),
        "{:?}",
        world.standings
    );
    world.crash();
    for _ in 0..20 {
        world.wait(300);
        let head = world.launch().expect("the head is tried under probe");
        assert_eq!(head, u64::from(REFUSALS_MAX));
        let failed = world.answer(head, Verdict::Refused).expect("failed");
        assert!(failed.retry_in.is_some_and(|wait| wait <= PROBE_WAIT_LAST), "nothing more is parked");
    }
    world.wait(300);
    assert_eq!(world.finish_one(Verdict::Acknowledged), u64::from(REFUSALS_MAX));
    assert_eq!(world.standings[1..], [Standing::Unblocked]);
    let all = SelfRedrive { from: (0, 0), before: (5, u64::from(REFUSALS_MAX)), counted: false };
    assert_eq!(world.redriven, [all], "what it refused meanwhile is sent again");
}

#[test]
fn the_streak_of_a_round_that_ended_blocks_the_next_one_from_its_first_change() {
    let list = changes(0, 3, 0);
    let streak = Streak { count: STREAK_MAX, from: Some((4, 0)), refused: 0 };
    let mut world = World::new(list.clone(), OrderMode::Phased);
    world.lane = Lane::new(LaneStart {
        round: round(&list, 0),
        order: OrderMode::Phased,
        max_in_flight: 3,
        batch: None,
        streak,
        grace_until: None,
        acknowledged: true,
        blocked: false,
        head_attempts: HeadAttempts::default(),
        above: Vec::new(),
        skip: None,
    });
    assert_eq!((world.launch(), world.launch()), (Some(0), None), "only the head goes");
    world.settle();
    assert!(matches!(world.effects.as_slice(), [CursorEffect::Block(_)]), "and that is said");
}

#[test]
fn a_clock_that_is_set_back_puts_a_block_off_by_one_window_at_most() {
    let mut world = World::new(changes(0, 1, 0), OrderMode::Strict);
    let head = world.launch().expect("due");
    world.answer(head, Verdict::Endpoint);
    world.wait(61);
    world.wall -= 86_400_000;
    let set_back_at = world.wall;
    while !world.lane.is_blocked() {
        assert!(world.wall - set_back_at < 3_700_000, "not blocked after more than a window");
        let head = world.launch().expect("due");
        world.answer(head, Verdict::Endpoint);
        world.wait(61);
    }
}

#[test]
fn an_answer_ends_a_block_of_the_window() {
    for verdict in [Verdict::Refused, Verdict::Contested, Verdict::Doubtful, Verdict::Failing] {
        let mut world = World::new(changes(0, 2, 0), OrderMode::Strict);
        while !world.lane.is_blocked() {
            let head = world.launch().expect("due");
            world.answer(head, Verdict::Endpoint);
            world.wait(61);
        }
        let head = world.launch().expect("due");
        world.answer(head, verdict);
        assert!(!world.lane.is_blocked(), "{verdict:?}");
        world.settle();
        assert!(matches!(world.effects.as_slice(), [CursorEffect::Block(_), CursorEffect::Unblock]));
    }
}

#[test]
fn a_new_watch_waits_two_minutes_on_what_a_client_that_is_not_ready_answers() {
    let waits = |status: u16, verdict| {
        let list = changes(0, 2, 0);
        let mut world = World::new(list.clone(), OrderMode::Strict);
        world.lane = Lane::new(LaneStart {
            round: round(&list, 0),
            order: OrderMode::Strict,
            max_in_flight: 1,
            batch: None,
            streak: Streak::default(),
            grace_until: Some(Timestamp(120_000)),
            acknowledged: false,
            blocked: false,
            head_attempts: HeadAttempts::default(),
            above: Vec::new(),
            skip: None,
        });
        world.status = status;
        loop {
            let head = world.launch().expect("due");
            let Some(wait) = world.answer(head, verdict).expect("failed").retry_in else {
                return world.wall;
            };
            assert!(wait <= Duration::from_secs(10));
            world.wait(wait.as_secs().max(1) + 1);
        }
    };
    for (status, verdict) in [
        (400, Verdict::Refused),
        (401, Verdict::Doubtful),
        (403, Verdict::Doubtful),
        (404, Verdict::Doubtful),
        (409, Verdict::Contested),
    ] {
        assert!((120_000..130_000).contains(&waits(status, verdict)), "{status}: {}", waits(status, verdict));
    }
    for (status, verdict) in [(422, Verdict::Refused), (413, Verdict::Refused), (405, Verdict::Doubtful)] {
        assert!(waits(status, verdict) < 10_000, "{status}: {}", waits(status, verdict));
    }
}

#[test]
fn the_grace_of_a_new_watch_ends_with_its_first_acknowledgement() {
    let mut world = World::new(changes(0, 2, 0), OrderMode::Strict);
    world.lane.grace_until = Some(Timestamp(120_000));
    world.status = 404;
    assert_eq!(world.finish_one(Verdict::Acknowledged), 0);
    let head = world.launch().expect("ready");
    world.answer(head, Verdict::Doubtful);
    world.wait(3);
    let parked = std::iter::from_fn(|| {
        let head = world.launch()?;
        let wait = world.answer(head, Verdict::Doubtful)?.retry_in;
        world.wait(3);
        wait
    });
    assert_eq!(parked.count(), 1, "the third try parks");
}

#[test]
fn an_endpoint_that_answers_others_makes_the_failure_the_changes_own() {
    let mut world = World::new(changes(0, 1, 0), OrderMode::Strict);
    let mut parked = false;
    for _ in 0..9 {
        let position = world.launch().expect("due");
        let elsewhere = Some(world.now + Duration::from_millis(1));
        let failed = world.answer_with(position, Verdict::Endpoint, elsewhere).expect("failed");
        parked = failed.retry_in.is_none();
        world.wait(61);
    }
    assert!(parked, "eight tries after the first are the item's own");

    let mut alone = World::new(changes(0, 1, 0), OrderMode::Strict);
    for _ in 0..30 {
        let position = alone.launch().expect("due");
        let failed = alone.answer_with(position, Verdict::Endpoint, None).expect("failed");
        assert!(failed.retry_in.is_some() && !failed.item, "an endpoint failure alone never parks");
        alone.wait(61);
    }
}

#[test]
fn an_unobtainable_content_is_parked_and_does_not_count() {
    let list = changes(0, 11, 0);
    let mut world = World::new(list.clone(), OrderMode::Strict);
    assert!(world.lane.want_read().is_some());
    assert!(world.lane.on_read(list.clone()));
    loop {
        let wanted = world.lane.want_prepare(world.now, AHEAD);
        let Some((position, change, _)) = wanted.into_iter().next() else { break };
        let letter = DeadLetterId::new(Ulid::from_parts(position, 0));
        world.lane.on_prepared(Vec::new());
        world.lane.on_blob_unobtainable(position, change.new.expect("a create").blob, letter);
    }
    world.settle();
    assert_eq!((world.settled, world.parked.len()), (11, 11));
    assert!(world.standings.is_empty() && world.streak == Streak::default());
}

#[test]
fn a_head_that_is_skipped_by_hand_is_parked_once_and_does_not_count() {
    let list = changes(0, 3, 0);
    let mut world = World::new(list.clone(), OrderMode::Strict);
    let letter = DeadLetterId::new(Ulid::from_parts(7, 7));
    world.lane = Lane::new(LaneStart {
        round: round(&list, 1),
        order: OrderMode::Strict,
        max_in_flight: 1,
        batch: None,
        streak: Streak { count: 3, from: Some((4, 2)), refused: 0 },
        grace_until: None,
        acknowledged: true,
        blocked: false,
        head_attempts: HeadAttempts::default(),
        above: Vec::new(),
        skip: Some(letter.clone()),
    });
    world.feed();
    let settlement = world.lane.want_settle(Timestamp(0), false).expect("it is given up");
    assert_eq!((settlement.position, settlement.streak.count), (2, 3));
    let park = &settlement.parked[0];
    assert_eq!((&park.id, park.position, park.reason), (&letter, 1, ParkReason::Skipped));
    world.lane.on_settled();
    assert_eq!(world.launch(), Some(2), "the next one goes on");
}

#[test]
fn a_block_of_the_window_is_written_before_the_settlement_that_ends_it() {
    let mut world = World::new(changes(0, 2, 0), OrderMode::Strict);
    while !world.lane.is_blocked() {
        let head = world.launch().expect("due");
        world.answer(head, Verdict::Endpoint);
        world.wait(61);
    }
    let head = world.launch().expect("due");
    world.answer(head, Verdict::Acknowledged);
    assert!(world.lane.want_settle(Timestamp(0), false).is_none(), "the block is not written yet");
    assert!(matches!(world.lane.want_effect(), Some(CursorEffect::Block(_))));
    world.lane.on_effect_written();
    world.settle();
    assert_eq!(world.standings, [Standing::Unblocked]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_every_change_is_settled_once_in_order_and_repeats_stay_in_the_window(
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

/// Plays a round in which every delivery has so many bytes; the most that was held at a time.
fn held_most(count: u64, size: usize) -> u64 {
    let list = changes(0, count, 0);
    let mut world = World::new(list.clone(), OrderMode::Strict);
    assert!(world.lane.want_read().is_some() && world.lane.on_read(list));
    let mut most = 0;
    while !world.lane.is_finished() {
        loop {
            let wanted = world.lane.want_prepare(world.now, AHEAD);
            if wanted.is_empty() {
                break;
            }
            // As a transport does: the first, and what fits beside it.
            let fits = usize::try_from(AHEAD_BYTES).unwrap() / size;
            let rendered = wanted.iter().take(fits.max(1)).map(|(_, change, _)| parcel(change, size));
            world.lane.on_prepared(rendered.collect());
        }
        let position = world.lane.next_sendable(world.now).expect("the head is ready");
        let launched = world.lane.launch(position, false).parcels;
        most = most.max(world.lane.held());
        launched.iter().for_each(|(position, _)| world.lane.on_acknowledged(*position));
        world.settle();
    }
    most
}

#[test]
fn what_a_lane_holds_is_bounded_by_bytes_and_large_deliveries_go_one_by_one() {
    assert_eq!(held_most(40, 2 << 20), 2 << 20);
    let medium = held_most(200, 100 << 10);
    assert!(medium > 3 * (100 << 10) && medium <= 2 * AHEAD_BYTES, "{medium}");
    let small = held_most(500, 1 << 10);
    assert!(small >= PIPELINE as u64 * (1 << 10), "small ones are rendered ahead: {small}");
}

#[test]
fn a_stretch_stays_in_the_window_and_what_it_did_not_send_goes_out_later() {
    let mut world = World::new(changes(2, 100, 0), OrderMode::Strict);
    let mut longest = 0;
    for round in 0..102 {
        let position = world.launch().expect("ready");
        assert_eq!(position, round, "in order");
        longest = longest.max(world.pipeline.len());
        assert!(world.lane.round.position + world.settled + WINDOW > position + world.pipeline.len() as u64);
        world.answer(position, Verdict::Acknowledged);
        if round % 7 == 0 {
            world.halt();
        }
        if round % 40 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert!(world.lane.is_finished());
    assert!(longest >= PIPELINE / 2, "pipelines grow with acknowledgements: {longest}");
}

#[test]
fn a_receiver_that_never_answers_holds_one_rendered_delivery() {
    let mut world = World::new(changes(0, 100, 0), OrderMode::Strict);
    assert_eq!(world.launch(), Some(0));
    world.feed();
    assert!(world.lane.slots.iter().filter(|slot| matches!(slot.state, SlotState::Ready(_))).count() <= 1);
    world.answer(0, Verdict::Endpoint);
    world.feed();
    assert_eq!(world.lane.held(), 0, "while the head waits nothing is held");
    assert_eq!(world.launch(), None);
    world.wait(61);
    assert_eq!(world.launch(), Some(0));
}

#[test]
fn a_probe_goes_alone_and_is_rendered_before_its_wait_is_over() {
    let mut world = World::new(changes(0, 10, 0), OrderMode::Strict);
    assert_eq!(world.launch(), Some(0));
    world.answer(0, Verdict::Endpoint);
    assert!(world.lane.is_probeable(world.now) && world.lane.probe_head().is_none());
    world.lane.hurry_head();
    world.feed();
    assert_eq!(world.lane.probe_head(), Some(0));
    assert_eq!(world.lane.launch(0, true).parcels.len(), 1);
    world.lane.on_acknowledged(0);
    world.lane.retry_later(1, world.now + Duration::from_secs(2));
    assert!(!world.lane.is_probeable(world.now), "what cannot be rendered is no probe");
    world.wait(2);
    assert!(world.lane.is_probeable(world.now));
}

#[test]
fn what_is_recalled_behind_a_head_that_waits_holds_nothing() {
    let mut world = World::new(changes(0, 100, 0), OrderMode::Strict);
    for position in 0..20 {
        assert_eq!(world.launch(), Some(position));
        world.answer(position, Verdict::Acknowledged);
    }
    let head = world.launch().expect("ready");
    assert!(!world.pipeline.is_empty());
    world.answer(head, Verdict::Failing);
    assert!(!world.lane.slots.iter().any(|slot| matches!(slot.state, SlotState::Ready(_))));
}

#[test]
fn a_wait_that_is_over_hides_no_other() {
    let mut world = World::new(changes(0, 3, 0), OrderMode::Strict);
    assert_eq!(world.launch(), Some(0));
    world.lane.retry_later(2, world.now + Duration::from_millis(10));
    world.answer(0, Verdict::Endpoint);
    world.now += Duration::from_millis(20);
    let due = world.lane.next_due(world.now).expect("the head waits");
    assert!(due > world.now && world.lane.waits_at_head(world.now));
    assert_eq!(world.lane.next_due(due), None);
}

#[test]
fn nothing_of_a_later_phase_is_rendered_before_its_time() {
    let mut world = World::new(changes(2, 6, 0), OrderMode::Phased);
    assert_eq!((world.launch(), world.launch(), world.launch()), (Some(0), Some(1), None));
    world.answer(0, Verdict::Acknowledged);
    world.answer(1, Verdict::Endpoint);
    world.feed();
    assert_eq!(world.lane.ready(), 0, "the last delete waits for another try");
}

#[test]
fn a_probe_stays_in_the_window_too() {
    let mut world = World::new(changes(0, 200, 0), OrderMode::Strict);
    while let Some(position) = world.launch() {
        world.answer(position, Verdict::Acknowledged);
    }
    world.feed();
    assert!(!world.lane.is_probeable(world.now) && world.lane.probe_head().is_none());
    world.settle();
    world.feed();
    assert!(world.lane.is_probeable(world.now));
}

#[test]
fn a_lane_whose_head_is_being_rendered_leaves_the_probe_to_others() {
    let mut world = World::new(changes(0, 10, 0), OrderMode::Strict);
    assert!(world.lane.want_read().is_some() && world.lane.on_read(world.list.clone()));
    assert!(world.lane.is_probeable(world.now));
    assert_eq!(world.lane.want_prepare(world.now, 1).len(), 1);
    assert!(!world.lane.is_probeable(world.now));
}
