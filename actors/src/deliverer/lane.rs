//! The state machine of one open round, pure: which change may be sent now, what follows from an answer, how
//! far the settled prefix reaches. The deliverer passes answers in and carries out what the lane asks for;
//! nothing here waits, reads or writes.
//!
//! Invariants: changes are acknowledged to the store only as a prefix; nothing at or beyond `settled +
//! WINDOW` is sent; `strict` has one change in flight; `phased` never overlaps two operations; a blocked lane
//! sends only its head. With batches (`batch`) nothing at or beyond one batch from `settled` is sent.

mod batch;
mod failure;
mod launching;
mod pulling;
mod rendering;
mod settling;
mod slot;
mod streak;

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Duration};

use tidings_entity::{
    id::{CursorId, DeadLetterId},
    kind::{OrderMode, ParkReason},
};
use tokio::time::Instant;

pub use batch::BatchFailed;
use batch::Batching;
pub use launching::Launch;
use slot::{Slot, SlotState};

use crate::{
    deliverer::retry::{Block, Verdict},
    model::round::{Change, DeliveryId, Round},
    ports::{BatchSettings, HeadAttempts, Park, SelfRedrive, Settlement, Standing, Streak},
    time::Timestamp,
};

/// Changes that may be sent beyond the settled prefix: a crash repeats at most this many.
pub const WINDOW: u64 = 64;
/// Changes read from the trees at once.
pub const CHANGES_PER_READ: usize = 256;
/// The most deliveries rendered at once. A lane begins with one and doubles with each acknowledgement, so
/// that little is rendered in vain for a receiver that never answers.
pub const AHEAD: usize = 32;
/// Bytes of content that are read at once for deliveries beyond the first. Nothing is rendered while a lane
/// holds more than half of it: so a lane holds at most this in memory, or two of the largest files, however
/// slow its receiver is.
pub const AHEAD_BYTES: u64 = 1 << 20;
/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The moment on the monotonic clock, for waits.
    pub instant: Instant,
    /// The moment on the wall clock, for rows.
    pub wall: Timestamp,
}

/// A change of the cursor's state that is written by itself. A change that follows from the settled prefix is
/// written with its [`Settlement`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorEffect {
    /// Only the head is sent, as a probe, for this reason.
    Block(String),
    /// The reason for the block has ended.
    Unblock,
}

/// An attempt that was not acknowledged.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The verdict about the answer: the endpoint or this change failed, or it was refused.
    pub verdict: Verdict,
    /// When the request was sent.
    pub sent_at: Instant,
    /// When the endpoint last acknowledged something else.
    pub answered_elsewhere: Option<Instant>,
    /// The wait that the endpoint asked for.
    pub retry_after: Option<Duration>,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// An excerpt of the answer, or the text of the failure.
    pub excerpt: String,
}

/// The consequence of a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// Whether the failure counts against the change and not against the endpoint.
    pub item: bool,
    /// The wait before the next attempt; `None`: the change was parked.
    pub retry_in: Option<Duration>,
}

/// The state machine of one open round.
#[derive(Debug)]
pub struct Lane {
    round: Arc<Round>,
    order: OrderMode,
    max_in_flight: usize,
    /// Position of `slots[0]`: the length of the done prefix.
    prefix: u64,
    slots: VecDeque<Slot>,
    /// Position after the last change read so far, and the change there.
    read: u64,
    last_read: Option<Change>,
    reading: bool,
    settled: u64,
    settling: Option<Settlement>,
    /// A settlement whose write failed or has an unknown outcome. The same settlement is written again, and
    /// nothing is sent before.
    unwritten: Option<Settlement>,
    /// Changes above the position that an earlier life of this lane settled.
    above: Vec<Range<u64>>,
    /// The prefix has passed positions in `above`, so `above` shrinks with the next settlement.
    absorbs: bool,
    /// A rendering of changes is under way.
    preparing: bool,
    /// How many may be rendered at once now.
    ahead: usize,
    parks: Vec<Park>,
    standing: Standing,
    redrive: Vec<SelfRedrive>,
    streak: Streak,
    /// The answer to a batch that counted last in the streak.
    counted: Option<u64>,
    acknowledged: bool,
    block: Option<Block>,
    /// The end of the grace for a new watch, whose app may not be ready yet.
    grace_until: Option<Timestamp>,
    effects: VecDeque<CursorEffect>,
    /// The rows differ from the state of this lane: the lane sends and settles nothing more, and is opened
    /// again from the rows.
    stale: bool,
    head_attempts: HeadAttempts,
    skip: Option<DeadLetterId>,
    batching: Option<Batching>,
}

/// The values that a lane starts from.
#[derive(Debug)]
pub struct LaneStart {
    /// The open round, as its row says.
    pub round: Arc<Round>,
    /// How sends may overlap.
    pub order: OrderMode,
    /// How many requests may overlap in `phased`.
    pub max_in_flight: usize,
    /// How many changes one request carries, for sinks that take batches; `None`: one.
    pub batch: Option<BatchSettings>,
    /// The parks in a row so far.
    pub streak: Streak,
    /// The end of the grace for a new watch; `None`: the watch is not new.
    pub grace_until: Option<Timestamp>,
    /// Whether the app ever acknowledged something of this cursor.
    pub acknowledged: bool,
    /// Whether the cursor is blocked.
    pub blocked: bool,
    /// Failed tries of the change at the round's position.
    pub head_attempts: HeadAttempts,
    /// Changes above the round's position that are settled.
    pub above: Vec<Range<u64>>,
    /// The id of the dead letter, if the change at the round's position is skipped by hand.
    pub skip: Option<DeadLetterId>,
}

impl Lane {
    /// A lane at the round's settled position.
    #[must_use]
    pub fn new(start: LaneStart) -> Self {
        let position = start.round.position;
        let proven = start.acknowledged && start.head_attempts.tries == 0;
        let block = streak::block_of(start.streak, start.acknowledged, start.blocked);
        let unsaid =
            block.filter(|_| !start.blocked).map(|block| CursorEffect::Block(streak::reason(block, None)));
        Self {
            batching: start.batch.map(|settings| Batching::new(settings, proven)),
            order: start.order,
            max_in_flight: start.max_in_flight.clamp(1, usize::try_from(WINDOW).unwrap_or(1)),
            prefix: position,
            slots: VecDeque::new(),
            read: position,
            last_read: None,
            reading: false,
            settled: position,
            settling: None,
            unwritten: None,
            above: start.above,
            absorbs: false,
            preparing: false,
            ahead: 1,
            parks: Vec::new(),
            standing: Standing::Unchanged,
            redrive: Vec::new(),
            streak: start.streak,
            counted: None,
            acknowledged: start.acknowledged,
            block,
            grace_until: start.grace_until,
            effects: unsaid.into_iter().collect(),
            stale: false,
            head_attempts: start.head_attempts,
            skip: start.skip,
            round: start.round,
        }
    }

    /// The open round of the lane.
    #[must_use]
    pub fn round(&self) -> &Arc<Round> {
        &self.round
    }

    /// Whether every change is durably settled.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.settled == self.round.summary.total() && self.settling.is_none() && self.unwritten.is_none()
    }

    /// Whether no attempt of this lane is in flight and nothing of it is only in memory, so that it may be
    /// replaced.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.settling.is_none() && self.in_flight() == 0 && (self.stale || !self.owes_outcomes())
    }

    /// Whether the lane has outcomes that are not on disk yet.
    fn owes_outcomes(&self) -> bool {
        self.unwritten.is_some()
            || self.prefix != self.settled
            || self.slots.iter().any(|slot| slot.is_done() && !matches!(slot.state, SlotState::Settled))
    }

    /// Whether the cursor is blocked.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.block.is_some()
    }

    /// Blocks the cursor because of its endpoint: from now on only the head is sent, as a probe.
    pub fn block(&mut self, reason: String) {
        if self.block.is_none() {
            self.block = Some(Block::Endpoint);
            self.effects.push_back(CursorEffect::Block(reason));
        }
    }

    /// The endpoint acknowledged a notice, or answered for a change: the block of the cursor ends, unless
    /// parked changes caused it.
    pub fn on_noticed(&mut self) {
        if self.block == Some(Block::Endpoint) {
            self.block = None;
            self.effects.push_back(CursorEffect::Unblock);
        }
    }

    /// The length of the prefix that is on disk.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// The number of requests in flight or about to be sent; a pipeline counts each of its changes.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let is_alone = |slot: &&Slot| matches!(slot.state, SlotState::Flying(_) | SlotState::Claimed);
        self.slots.iter().filter(is_alone).count() + self.batches_in_flight()
    }

    /// If more changes must be read from the trees: the position to read from, and the change
    /// before it where it is known. [`Lane::on_read`] or [`Lane::on_read_failed`] must follow.
    pub fn want_read(&mut self) -> Option<(u64, Option<Change>)> {
        let low = self.slots.len() < self.slots_low();
        if self.reading || !low || self.read >= self.round.summary.total() {
            return None;
        }
        self.reading = true;
        Some((self.read, self.last_read.clone()))
    }

    /// Takes the changes that were read. `false`: the list is shorter or longer than the list that the round
    /// began with, so it is another list.
    pub fn on_read(&mut self, changes: Vec<Change>) -> bool {
        self.reading = false;
        let total = self.round.summary.total();
        let from = self.read;
        self.read += changes.len() as u64;
        let complete = changes.len() == CHANGES_PER_READ || self.read == total;
        self.last_read = changes.last().cloned().or(self.last_read.take());
        for (change, position) in changes.into_iter().zip(from..) {
            let mut slot = Slot::new(change);
            if self.above.iter().any(|range| range.contains(&position)) {
                slot.state = SlotState::Settled;
            }
            self.slots.push_back(slot);
        }
        if let Some(head) = self.slots.front_mut().filter(|_| self.prefix == self.round.position) {
            let attempts = std::mem::take(&mut self.head_attempts);
            head.earlier += attempts.earlier;
            if attempts.tries > 0 {
                head.tries = attempts.tries;
                head.item_tries = attempts.item_tries;
                head.first_failure = attempts.first_failure;
            }
        }
        self.skip_head();
        self.advance_prefix();
        complete && self.read <= total
    }

    /// Gives the head up if that was asked for.
    fn skip_head(&mut self) {
        let position = self.prefix;
        let delivery = self.delivery_id(position);
        let Some((head, delivery)) = self.slots.front_mut().zip(delivery) else { return };
        let Some(id) = self.skip.take() else { return };
        head.state = SlotState::Parked(Box::new(Park {
            id,
            position,
            delivery,
            reason: ParkReason::Skipped,
            counted: false,
            status: None,
            excerpt: "skipped by hand".to_owned(),
            change: head.change.clone(),
        }));
        self.advance_prefix();
    }

    /// Reading failed; the changes may be asked for again.
    pub fn on_read_failed(&mut self) {
        self.reading = false;
    }

    /// The receiver acknowledged the change at this position.
    pub fn on_acknowledged(&mut self, position: u64) {
        if let Some(slot) = self.slot(position) {
            slot.state = SlotState::Acknowledged;
        }
        self.ahead = self.ahead.max((self.ahead * 2).min(AHEAD));
        self.widen_batches(1);
        self.advance_prefix();
    }

    /// Failed tries of a change that is in memory, by which its attempts are numbered.
    #[must_use]
    pub fn tries(&self, position: u64) -> u32 {
        let index = position.checked_sub(self.prefix).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.slots.get(index)).map_or(0, Slot::attempts)
    }

    /// The next change of the cursor's state, once no settlement is being written.
    /// [`Lane::on_effect_written`] must follow before the next one is given.
    #[must_use]
    pub fn want_effect(&self) -> Option<&CursorEffect> {
        let alone = self.settling.is_none() && !self.stale;
        self.effects.front().filter(|_| alone)
    }

    /// Whether a change of the cursor as a whole is still to be written.
    #[must_use]
    pub fn owes_effects(&self) -> bool {
        !self.effects.is_empty() && !self.stale
    }

    /// The change of the cursor as a whole is on disk.
    pub fn on_effect_written(&mut self) {
        self.effects.pop_front();
    }

    /// When something may be sent that may not be sent now. A wait that is over hides no other.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let waits = self.slots.iter().filter_map(|slot| match slot.state {
            SlotState::Waiting { until, .. } => Some(until),
            _ => None,
        });
        waits.chain(self.linger_until()).filter(|until| *until > now).min()
    }

    /// If nothing can be sent before its head, which waits, and nothing is in memory that rows do not
    /// say: until when.
    #[must_use]
    pub fn waits_until(&self, now: Instant) -> Option<Instant> {
        let is_busy = self.preparing || self.reading || self.stale || self.owes_outcomes();
        if is_busy || !self.head_waits_alone() {
            return None;
        }
        self.next_due(now)
    }

    /// The id of the delivery at a position that is in memory.
    #[must_use]
    pub fn delivery_id(&self, position: u64) -> Option<DeliveryId> {
        let index = usize::try_from(position.checked_sub(self.prefix)?).ok()?;
        let slot = self.slots.get(index)?;
        Some(DeliveryId::of(&self.round.cursor, self.round.number, &slot.change))
    }

    fn cursor(&self) -> &CursorId {
        &self.round.cursor
    }

    fn slot(&mut self, position: u64) -> Option<&mut Slot> {
        let index = usize::try_from(position.checked_sub(self.prefix)?).ok()?;
        self.slots.get_mut(index)
    }
}

#[cfg(test)]
mod tests;
