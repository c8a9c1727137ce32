//! One open round on its way to its app, pure: which change may be sent now, what an answer leads
//! to, how far the settled prefix reaches. The deliverer feeds it answers and carries out what it
//! asks for; nothing here waits, reads or writes.
//!
//! Invariants: changes are acknowledged to the store only as a prefix; nothing at or beyond
//! `settled + WINDOW` is sent; `strict` has one change on its way; `phased` never overlaps two
//! operations; a blocked lane sends only its head. With batches (`batch`) nothing at or beyond one
//! batch from `settled` is sent.

mod batch;
mod failure;
mod lending;
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
use slot::{Slot, SlotState, Wait};
pub use streak::STREAK_MAX;

use crate::{
    deliverer::retry::{Block, Verdict},
    ports::{BatchSettings, HeadAttempts, Parcel, Park, SelfRedrive, Settlement, Standing, Streak},
    round::{Change, DeliveryId, Round},
    time::Timestamp,
};

/// Changes that may be sent beyond the settled prefix: what a crash can repeat at most.
pub const WINDOW: u64 = 64;
/// Changes read from the trees at once.
pub const CHANGES_PER_READ: usize = 256;
/// Most deliveries rendered at once. A lane begins with one and doubles with each acknowledgement,
/// so that a receiver that never answers makes nobody render for nothing.
pub const AHEAD: usize = 32;
/// Bytes of content that are read at once for deliveries beyond the first. Nothing is rendered
/// while a lane holds more than half of it: what a lane holds in memory is this, or two of the
/// largest files, however long its receiver takes.
pub const AHEAD_BYTES: u64 = 1 << 20;
/// Deliveries of a `strict` lane that go out one after another without asking the lane in between.
const STRETCH: usize = 32;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For waits.
    pub instant: Instant,
    /// For rows.
    pub wall: Timestamp,
}

/// What the cursor's whole state changes to without its settled prefix growing. What the prefix
/// leads to goes with its [`Settlement`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorEffect {
    /// Only the head goes, under probe, for this reason.
    Block(String),
    /// What blocked it is over.
    Unblock,
}

/// An attempt that was not acknowledged.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whose fault it looks like.
    pub verdict: Verdict,
    /// When it was sent.
    pub sent_at: Instant,
    /// When the endpoint last acknowledged something else.
    pub answered_elsewhere: Option<Instant>,
    /// The wait that the endpoint asked for.
    pub retry_after: Option<Duration>,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// What the answer or the failure said.
    pub excerpt: String,
}

/// What a failed attempt led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which try it was, from 1.
    pub number: u32,
    /// Whether it counted as the item's own fault.
    pub item: bool,
    /// When it is tried again; `None`: it was parked.
    pub retry_in: Option<Duration>,
}

/// The machine.
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
    /// A settlement that was not written, or nobody knows; the same one is tried again, and nothing is
    /// sent before.
    unwritten: Option<Settlement>,
    /// Changes above the position that an earlier life of this lane settled.
    above: Vec<Range<u64>>,
    /// Some of them were passed by the prefix.
    absorbs: bool,
    /// Changes are being rendered.
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
    /// Until when the watch is new, and its client perhaps not ready.
    grace_until: Option<Timestamp>,
    effects: VecDeque<CursorEffect>,
    /// The rows say something else than this lane believes: nothing further is sent or settled, they say
    /// where to go on.
    stale: bool,
    head_attempts: HeadAttempts,
    skip: Option<DeadLetterId>,
    batching: Option<Batching>,
}

/// Changes put on their way.
#[derive(Debug)]
pub struct Launch {
    /// Where each stands in the round, and what is sent.
    pub parcels: Vec<(u64, Parcel)>,
    /// In one request; otherwise each goes only after the one before it was acknowledged.
    pub together: bool,
}

/// What a lane starts from.
#[derive(Debug)]
pub struct LaneStart {
    /// The open round.
    pub round: Arc<Round>,
    /// How sends may overlap.
    pub order: OrderMode,
    /// How many requests may overlap in `phased`.
    pub max_in_flight: usize,
    /// How much goes in one request, for those who take batches.
    pub batch: Option<BatchSettings>,
    /// What was given up in a row so far.
    pub streak: Streak,
    /// Until when the watch is new; `None`: it is not.
    pub grace_until: Option<Timestamp>,
    /// Whether the app ever acknowledged something of this cursor.
    pub acknowledged: bool,
    /// Whether the cursor is blocked.
    pub blocked: bool,
    /// Failed tries of the change at the round's position.
    pub head_attempts: HeadAttempts,
    /// Changes above the round's position that are settled.
    pub above: Vec<Range<u64>>,
    /// The change at the round's position is given up by hand, as this letter.
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

    /// The round.
    #[must_use]
    pub fn round(&self) -> &Arc<Round> {
        &self.round
    }

    /// Whether every change is durably settled.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.settled == self.round.summary.total() && self.settling.is_none() && self.unwritten.is_none()
    }

    /// Whether nothing of this lane is on its way or only in memory, so that it may be replaced.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.settling.is_none() && self.in_flight() == 0 && (self.stale || !self.owes_outcomes())
    }

    /// Whether it knows outcomes that are not on disk.
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

    /// Blocks the cursor because of its endpoint: from now on only its head goes, under probe.
    pub fn block(&mut self, reason: String) {
        if self.block.is_none() {
            self.block = Some(Block::Endpoint);
            self.effects.push_back(CursorEffect::Block(reason));
        }
    }

    /// The endpoint took a notice, or answered to a change: what blocked the cursor is over, unless it
    /// is what was given up.
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

    /// Requests on their way or about to be; a stretch counts each of its changes.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let alone = self.slots.iter().filter(|slot| matches!(slot.state, SlotState::Flying(_))).count();
        alone + self.batches_in_flight()
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

    /// Takes the changes that were read. `false`: the list ended early or went on too long, so it
    /// is not the list that was begun.
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

    /// Reading failed; it may be wanted again.
    pub fn on_read_failed(&mut self) {
        self.reading = false;
    }

    /// The next change that may be sent now, if any.
    #[must_use]
    pub fn next_sendable(&mut self, now: Instant) -> Option<u64> {
        if self.stale || self.unwritten.is_some() {
            return None;
        }
        if self.batching.is_some() {
            return self.next_batch(now);
        }
        let phase = self.slots.iter().find(|slot| !slot.is_done())?.change.operation;
        let limit = if self.is_blocked() || self.order == OrderMode::Strict { 1 } else { self.max_in_flight };
        if self.in_flight() >= limit {
            return None;
        }
        let reach = usize::try_from((self.settled + WINDOW).saturating_sub(self.prefix)).unwrap_or(0);
        let one_by_one = limit == 1;
        for (index, slot) in self.slots.iter().enumerate().take(reach) {
            if slot.is_done() {
                continue;
            }
            if slot.change.operation != phase {
                return None;
            }
            if matches!(slot.state, SlotState::Ready(_)) {
                return Some(self.prefix + index as u64);
            }
            if one_by_one {
                return None;
            }
        }
        None
    }

    /// Somebody says that the receiver is well: a blocked head is tried without the wait for its next probe.
    pub fn try_now(&mut self, now: Instant) {
        if self.is_blocked()
            && let Some(Slot { state: SlotState::Waiting { until, why }, .. }) = self.slots.front_mut()
            && *why != Wait::Rendering
        {
            *until = (*until).min(now);
        }
    }

    /// The head, if it may be sent as a probe.
    #[must_use]
    pub fn probe_head(&self) -> Option<u64> {
        let head = self.slots.front().filter(|_| self.may_probe())?;
        matches!(head.state, SlotState::Ready(_)).then_some(self.prefix)
    }

    /// Whether its head could go as a probe, now or once it is rendered, whatever its own wait
    /// after a failed attempt says.
    #[must_use]
    pub fn is_probeable(&self, now: Instant) -> bool {
        let head = self.slots.front().filter(|_| self.may_probe());
        head.is_some_and(|head| match head.state {
            SlotState::Ready(_) => true,
            // While others are rendered it cannot be; another lane goes meanwhile.
            SlotState::New => !self.preparing,
            SlotState::Waiting { why, until } => !self.preparing && (why != Wait::Rendering || until <= now),
            SlotState::Preparing
            | SlotState::Flying(_)
            | SlotState::Batched { .. }
            | SlotState::Acknowledged
            | SlotState::Settled
            | SlotState::Parked(_) => false,
        })
    }

    /// Whether one more may be sent beyond the settled prefix.
    fn may_probe(&self) -> bool {
        !self.stale && self.unwritten.is_none() && self.prefix < self.settled + self.window()
    }

    /// Ends the wait of the head, so that it may be rendered for a probe.
    pub fn hurry_head(&mut self) {
        if let Some(head) = self.slots.front_mut().filter(|head| head.is_waiting()) {
            head.state = SlotState::New;
        }
    }

    /// Puts a change on its way, and in a `strict` lane that flows the ones after it that are
    /// ready; each goes only after the one before it was acknowledged. [`Lane::on_acknowledged`],
    /// [`Lane::on_failed`] or [`Lane::on_recalled`] must follow for each, or for all that go
    /// together [`Lane::on_batch_answered`] or [`Lane::on_batch_failed`].
    pub fn launch(&mut self, position: u64, is_probe: bool) -> Launch {
        if let Some(parcels) = self.launch_batch(position, is_probe) {
            return Launch { parcels, together: true };
        }
        let reach = (self.settled + self.window()).saturating_sub(position);
        let alone =
            is_probe || self.is_blocked() || self.order == OrderMode::Phased || self.batching.is_some();
        let most = if alone { 1 } else { STRETCH.min(usize::try_from(reach).unwrap_or(STRETCH)) };
        let mut launched = Vec::new();
        let first = position.checked_sub(self.prefix).and_then(|first| usize::try_from(first).ok());
        for slot in self.slots.iter_mut().skip(first.unwrap_or(usize::MAX)).take(most) {
            let SlotState::Ready(parcel) = &slot.state else { break };
            let parcel = parcel.clone();
            slot.state = SlotState::Flying(parcel.clone());
            launched.push((position + launched.len() as u64, parcel));
        }
        Launch { parcels: launched, together: false }
    }

    /// The change was acknowledged.
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

    /// What changes next for the cursor as a whole, once no settlement is on its way.
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
