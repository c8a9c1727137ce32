//! Changes that are sent together in one request, for apps that take batches: which changes, when, and what
//! follows from an answer.
//!
//! A batch holds the next changes in their order: in `phased` of one phase, in `strict` also across the end
//! of a phase, because the order inside a batch is the order of the round. Two changes of one place (a file
//! that becomes a link, or a directory) never share a batch: the delete might be tried again after the create
//! was taken. Changes that failed before go together first, and nothing new goes beside or before them. A
//! change that cannot share a request (a file in chunks, a body that is larger than a batch) is sent by
//! itself, and so is a single change. Nothing at or beyond one batch from the settled prefix is sent.
//!
//! The size of a batch is learned: one change at the beginning, twice as many as the receiver took, half as
//! many as were refused together, and one change again after the endpoint failed. So a change that makes a
//! receiver refuse whole batches is found in a few requests, and only that change is parked.

use std::{collections::BTreeSet, time::Duration};

use tidings_entity::{
    id::DeadLetterId,
    kind::{Operation, OrderMode, ParkReason},
};
use tokio::time::Instant;

use super::{
    AHEAD_BYTES, CHANGES_PER_READ, Failed, Failure, Lane, Moment, WINDOW,
    slot::{Slot, SlotState, Wait},
    streak,
};
use crate::{
    deliverer::retry::{
        Block, Circumstances, Decision, FAILING_WAIT_LAST, RetryRules, Tries, Verdict, decide,
    },
    ports::{BatchSettings, ItemOutcome, Parcel, Park, Random},
};

/// Most deliveries that are rendered at once for batches.
const AHEAD: usize = 256;

/// The state of a lane that sends batches.
#[derive(Debug)]
pub(super) struct Batching {
    count: usize,
    bytes: u64,
    linger: Duration,
    /// Most changes of the next batch.
    limit: usize,
    /// A batch that could still grow: its first change, and how long it waits.
    lingering: Option<(u64, Instant)>,
    /// Number of the last batch of this lane.
    last: u64,
}

impl Batching {
    /// `proven`: the receiver took changes of this cursor, and nothing says that it would not take
    /// the next.
    pub(super) fn new(settings: BatchSettings, proven: bool) -> Self {
        let count = usize::try_from(settings.count).unwrap_or(usize::MAX).max(2);
        Self {
            count,
            bytes: settings.bytes,
            linger: Duration::from_millis(settings.linger_ms),
            limit: if proven { count } else { 1 },
            lingering: None,
            last: 0,
        }
    }

    /// How many deliveries are worth rendering: enough for the next batch, even if this batch succeeds and
    /// the size doubles.
    pub(super) fn width(&self) -> usize {
        self.count.min(2 * self.limit)
    }
}

/// Changes that may go now: places in `slots`, and why there are no more.
struct Run {
    indices: Vec<usize>,
    end: End,
}

/// The reason why a run of changes ended.
#[derive(Clone, Copy)]
enum End {
    /// A size limit was reached, or the next change may not share a request with these.
    Bound,
    /// The window of changes beyond the settled prefix is used up; the next settlement moves it.
    Window,
    /// The change at this index is not ready.
    Unready(usize),
    /// The list of changes in memory ends here.
    List,
}

/// The effect of a failed request on its changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchFailed {
    /// Each change, and which try of it this was.
    pub numbers: Vec<(u64, u32)>,
    /// Whether the failure counts against the changes and not against the endpoint.
    pub item: bool,
    /// The wait before the changes are sent again.
    pub retry_in: Duration,
}

impl Lane {
    /// Changes that may be sent beyond the settled prefix: a crash repeats at most this many.
    pub(super) fn window(&self) -> u64 {
        self.batching.as_ref().map_or(WINDOW, |batching| batching.count as u64)
    }

    /// Changes in memory below which more are read.
    pub(super) fn slots_low(&self) -> usize {
        let batches = self.batching.as_ref().map_or(0, |batching| 2 * batching.count);
        batches.max(CHANGES_PER_READ / 2)
    }

    /// The number of changes after the prefix that may be rendered; with batches this includes the next batch
    /// while one is in flight.
    pub(super) fn rendered_within(&self) -> usize {
        let window = usize::try_from(self.window()).unwrap_or(usize::MAX);
        if self.batching.is_some() { 2 * window } else { window }
    }

    /// With batches: whether the ready changes do not fill a batch yet; `None` without batches.
    pub(super) fn batch_has_room(&self) -> Option<bool> {
        let batching = self.batching.as_ref()?;
        let ready = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Ready(parcel) => Some(parcel.size()),
            _ => None,
        });
        // Large files that are sent by themselves are held in memory one at a time.
        let alone: u64 = self.slots.iter().map(Slot::flying_bytes).sum();
        Some(ready.sum::<u64>() < batching.bytes && alone <= batching.bytes.max(AHEAD_BYTES))
    }

    pub(super) fn batches_in_flight(&self) -> usize {
        let mut last = None;
        let batches = self.slots.iter().filter_map(|slot| match slot.state {
            SlotState::Batched { batch, .. } => Some(batch),
            _ => None,
        });
        batches.filter(|batch| last.replace(*batch) != Some(*batch)).count()
    }

    /// Lets batches grow after the receiver accepted `taken` changes together, or answered for each of them.
    pub(super) fn widen_batches(&mut self, taken: usize) {
        if let Some(batching) = &mut self.batching {
            batching.limit = batching.limit.max(2 * taken).min(batching.count);
        }
    }

    /// The endpoint failed: batches begin with one change again when the endpoint works.
    pub(super) fn begin_batches_anew(&mut self) {
        if let Some(batching) = &mut self.batching {
            batching.limit = 1;
        }
    }

    /// When the batch that waits for more has waited long enough.
    pub(super) fn linger_until(&self) -> Option<Instant> {
        self.batching.as_ref()?.lingering.map(|(_, until)| until)
    }

    /// The position of the first change that may be sent now, in a batch or alone.
    pub(super) fn next_batch(&mut self, now: Instant) -> Option<u64> {
        let overlap = self.order == OrderMode::Phased && !self.is_blocked();
        if self.in_flight() >= if overlap { self.max_in_flight } else { 1 } {
            return None;
        }
        let run = self.run();
        let first = run.as_ref().and_then(|run| run.indices.first()).map(|index| self.prefix + *index as u64);
        // A batch that ends at the window waits: otherwise each settlement would admit another batch of a few
        // changes.
        let is_cut = run.as_ref().is_some_and(|run| matches!(run.end, End::Window));
        if is_cut && (self.in_flight() > 0 || self.settled < self.prefix) {
            return None;
        }
        let may_grow = run.as_ref().is_some_and(|run| self.may_grow(run, now));
        let batching = self.batching.as_mut()?;
        let Some(first) = first else {
            batching.lingering = None;
            return None;
        };
        if may_grow && !batching.linger.is_zero() {
            let since = batching.lingering.filter(|(of, _)| *of == first);
            let (_, until) = *batching.lingering.insert(since.unwrap_or((first, now + batching.linger)));
            if until > now {
                return None;
            }
        }
        Some(first)
    }

    /// Whether something that is still being read or rendered could join.
    fn may_grow(&self, run: &Run, now: Instant) -> bool {
        let first = run.indices.first().and_then(|first| self.slots.get(*first));
        let retried = first.is_some_and(|first| first.tries > 0);
        match run.end {
            End::Bound | End::Window => false,
            End::Unready(index) => {
                self.slots.get(index).is_some_and(|slot| slot.is_coming(now) && (slot.tries > 0) == retried)
            }
            End::List => self.read < self.round.summary.total() && !retried,
        }
    }

    /// The next changes that may share a request. A change that must be sent by itself is a run of one.
    fn run(&self) -> Option<Run> {
        let batching = self.batching.as_ref()?;
        let limit = if self.is_blocked() { 1 } else { batching.limit };
        let reach = usize::try_from((self.settled + self.window()).saturating_sub(self.prefix)).unwrap_or(0);
        let phase = self.slots.iter().find(|slot| !slot.is_done())?.change.operation;
        let mut run = Run { indices: Vec::new(), end: End::List };
        let (mut bytes, mut retried) = (0, false);
        let mut deleted: BTreeSet<&[u8]> = BTreeSet::new();
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_done()) {
            let crosses = self.order == OrderMode::Phased && slot.change.operation != phase;
            if index >= reach || crosses {
                run.end = if crosses { End::Bound } else { End::Window };
                break;
            }
            match &slot.state {
                SlotState::Ready(parcel) => {
                    let alone = !parcel.is_whole() || parcel.size() > batching.bytes;
                    let fits = !alone && bytes + parcel.size() <= batching.bytes;
                    if run.indices.is_empty() {
                        retried = slot.tries > 0;
                    } else if !fits || retried != (slot.tries > 0) || replaces(&deleted, &slot.change.path) {
                        run.end = End::Bound;
                        break;
                    }
                    run.indices.push(index);
                    if slot.change.operation == Operation::Delete {
                        deleted.insert(&slot.change.path);
                    }
                    bytes += parcel.size();
                    if alone || run.indices.len() >= limit {
                        run.end = End::Bound;
                        break;
                    }
                }
                SlotState::Flying(_) | SlotState::Batched { .. } if run.indices.is_empty() => {}
                _ => {
                    run.end = End::Unready(index);
                    break;
                }
            }
        }
        Some(run)
    }

    /// Sends the batch that begins at this position, if it has more than one change.
    pub(super) fn launch_batch(&mut self, position: u64, is_probe: bool) -> Option<Vec<(u64, Parcel)>> {
        let run = self.run().filter(|_| !is_probe)?;
        let first = run.indices.first().map(|index| self.prefix + *index as u64);
        let batching = self.batching.as_mut().filter(|_| run.indices.len() > 1 && first == Some(position))?;
        batching.last += 1;
        batching.lingering = None;
        let (batch, prefix) = (batching.last, self.prefix);
        let mut launched = Vec::with_capacity(run.indices.len());
        for index in run.indices {
            let slot = &mut self.slots[index];
            match std::mem::replace(&mut slot.state, SlotState::New) {
                SlotState::Ready(parcel) => {
                    slot.state = SlotState::Batched { batch, size: parcel.size() };
                    launched.push((prefix + index as u64, parcel));
                }
                other => slot.state = other,
            }
        }
        Some(launched)
    }

    /// The request of a batch failed as a whole, which blames none of its changes. The next batches are
    /// smaller, down to one change each.
    pub fn on_batch_failed(
        &mut self,
        positions: &[u64],
        failure: &Failure,
        now: Moment,
        rules: &RetryRules,
        random: &dyn Random,
    ) -> Option<BatchFailed> {
        let block = self.block;
        let head = self.slot(*positions.first()?)?;
        let elsewhere = failure.answered_elsewhere.zip(head.last_try);
        let poisoned = elsewhere.is_some_and(|(elsewhere, tried)| elsewhere > tried);
        let item = failure.verdict.is_of_the_item() || poisoned;
        let since_first = head.failing_for(now.wall);
        let tries = Tries { all: head.tries + 1, item: head.item_tries, since_first };
        let asked = failure.retry_after;
        let (wait, block) = match failure.verdict {
            Verdict::Refused | Verdict::Contested | Verdict::Doubtful => {
                (asked.unwrap_or_default().min(rules.cap), false)
            }
            _ if item => (rules.wait_within(Duration::ZERO..=FAILING_WAIT_LAST, 1, asked, random), false),
            verdict => {
                let status = failure.status;
                let now =
                    Circumstances { verdict, tries, status, in_grace: false, block, retry_after: asked };
                match decide(now, rules, random) {
                    Decision::Block(wait) => (wait, true),
                    Decision::Retry(wait) => (wait, false),
                    Decision::Park { .. } => (rules.base, false),
                }
            }
        };
        let why = if item { Wait::Item } else { Wait::Endpoint };
        let mut numbers = Vec::with_capacity(positions.len());
        for position in positions {
            let Some(slot) = self.slot(*position) else { continue };
            slot.last_try = Some(failure.sent_at);
            slot.tries += 1;
            slot.failing_for(now.wall);
            slot.state = SlotState::Waiting { until: now.instant + wait, why };
            numbers.push((*position, slot.attempts()));
        }
        if let Some(batching) = &mut self.batching {
            batching.limit = if item { (positions.len() / 2).max(1) } else { 1 };
        }
        if failure.verdict.is_of_the_item() {
            self.on_noticed();
        }
        if block {
            self.block(streak::reason(Block::Endpoint, None));
        }
        if self.head_waits_alone() {
            self.release();
        }
        Some(BatchFailed { numbers, item, retry_in: wait })
    }

    /// The request of a batch was acknowledged, with an answer for each change. Refused changes are parked at
    /// once; the others are tried again together.
    pub fn on_batch_answered(
        &mut self,
        items: &[(u64, ItemOutcome)],
        failure: &Failure,
        now: Moment,
        rules: &RetryRules,
        random: &dyn Random,
        letter: &mut dyn FnMut() -> DeadLetterId,
    ) -> Vec<(u64, Failed)> {
        self.on_noticed();
        let block = self.block;
        let (mut failed, mut wait, mut parks) = (Vec::new(), None, Vec::new());
        for (position, item) in items {
            let Some(slot) = self.slot(*position) else { continue };
            let (verdict, excerpt) = match item {
                ItemOutcome::Accepted => {
                    slot.state = SlotState::Acknowledged;
                    continue;
                }
                ItemOutcome::Refused(reason) => (Verdict::Refused, reason),
                ItemOutcome::Retry(reason) => (Verdict::Failing, reason),
                ItemOutcome::Untaken => {
                    // The receiver did not try this change: no failure is counted, it goes with the others.
                    if let Some(one) = wait_untried(failure, block, rules, random) {
                        let until = now.instant + *wait.get_or_insert(one);
                        slot.state = SlotState::Waiting { until, why: Wait::Endpoint };
                    }
                    continue;
                }
            };
            slot.last_try = Some(failure.sent_at);
            slot.tries += 1;
            slot.item_tries += 1;
            let since_first = slot.failing_for(now.wall);
            let tries = Tries { all: slot.tries, item: slot.item_tries, since_first };
            let circumstances = Circumstances {
                verdict,
                tries,
                status: failure.status,
                in_grace: false,
                block,
                retry_after: failure.retry_after,
            };
            let decision = decide(circumstances, rules, random);
            let number = slot.attempts();
            let retry_in = match decision {
                Decision::Park { reason, counted } => {
                    parks.push((*position, reason, counted, excerpt.clone()));
                    None
                }
                // One wait for all failed changes, so that they are sent together again.
                Decision::Retry(one) | Decision::Block(one) => {
                    let wait = *wait.get_or_insert(one);
                    slot.state = SlotState::Waiting { until: now.instant + wait, why: Wait::Item };
                    Some(wait)
                }
            };
            failed.push((*position, Failed { number, item: true, retry_in }));
        }
        for (position, reason, counted, excerpt) in parks {
            self.park_of_batch(position, (reason, counted), excerpt, failure.status, letter());
        }
        self.ahead = (self.ahead * 2).max(2 * items.len()).min(AHEAD);
        self.widen_batches(items.len());
        self.advance_prefix();
        if self.head_waits_alone() {
            self.release();
        }
        failed
    }

    fn park_of_batch(
        &mut self,
        position: u64,
        (reason, counted): (ParkReason, bool),
        excerpt: String,
        status: Option<u16>,
        id: DeadLetterId,
    ) {
        let Some(delivery) = self.delivery_id(position) else { return };
        let Some(slot) = self.slot(position) else { return };
        slot.answer = match slot.state {
            SlotState::Batched { batch, .. } => Some(batch),
            _ => None,
        };
        let change = slot.change.clone();
        let park = Park { id, position, delivery, reason, counted, status, excerpt, change };
        slot.state = SlotState::Parked(Box::new(park));
    }
}

/// Whether a file at this path takes the place of a deleted file: the same path, one above, or one below.
fn replaces(deleted: &BTreeSet<&[u8]>, path: &[u8]) -> bool {
    if deleted.is_empty() {
        return false;
    }
    let mut above = (0..path.len()).filter(|at| path[*at] == b'/').map(|at| &path[..at]);
    let directory = [path, b"/"].concat();
    let below = deleted.range::<&[u8], _>(directory.as_slice()..).next();
    deleted.contains(path)
        || above.any(|file| deleted.contains(file))
        || below.is_some_and(|file| file.starts_with(&directory))
}

/// The wait of a change that the receiver of its batch did not try.
fn wait_untried(
    failure: &Failure,
    block: Option<Block>,
    rules: &RetryRules,
    random: &dyn Random,
) -> Option<Duration> {
    let untried = Circumstances {
        verdict: Verdict::Endpoint,
        tries: Tries { all: 1, item: 0, since_first: Duration::ZERO },
        status: failure.status,
        in_grace: false,
        block,
        retry_after: failure.retry_after,
    };
    match decide(untried, rules, random) {
        Decision::Retry(wait) | Decision::Block(wait) => Some(wait),
        Decision::Park { .. } => None,
    }
}
