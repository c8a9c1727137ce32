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
mod slot;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tidings_entity::{
    id::{CursorId, DeadLetterId},
    kind::{OrderMode, ParkReason},
};
use tokio::time::Instant;

pub use batch::BatchFailed;
use batch::Batching;
use failure::given_up;
use slot::{Slot, SlotState, Wait};

use crate::{
    deliverer::retry::Verdict,
    ports::{BatchSettings, HeadAttempts, Parcel, Park, Settlement, Standing},
    round::{Change, DeliveryId, Round},
    time::Timestamp,
};

/// Changes that may be sent beyond the settled prefix: what a crash can repeat at most.
pub const WINDOW: u64 = 64;
/// Parks in a row that block a cursor.
pub const STREAK_MAX: u32 = 10;
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
    /// The endpoint failed for too long, or refuses an announcement: only the head goes, under probe.
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
    settling: Option<u64>,
    /// Changes are being rendered.
    preparing: bool,
    /// How many may be rendered at once now.
    ahead: usize,
    parks: Vec<Park>,
    standing: Standing,
    redrive: Vec<DeadLetterId>,
    streak: u32,
    /// The answer to a batch that counted last in the streak.
    counted: Option<u64>,
    streak_letters: Vec<DeadLetterId>,
    acknowledged: bool,
    blocked: bool,
    effects: VecDeque<CursorEffect>,
    /// A settlement was not written, and with it letters may be missing: nothing further is sent or
    /// settled, the rows say where to go on.
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
    /// Parks in a row so far.
    pub streak: u32,
    /// Their letters that are still open.
    pub streak_letters: Vec<DeadLetterId>,
    /// Whether the app ever acknowledged something of this cursor.
    pub acknowledged: bool,
    /// Whether the cursor is blocked.
    pub blocked: bool,
    /// Failed tries of the change at the round's position.
    pub head_attempts: HeadAttempts,
    /// The change at the round's position is given up by hand, as this letter.
    pub skip: Option<DeadLetterId>,
}

impl Lane {
    /// A lane at the round's settled position.
    #[must_use]
    pub fn new(start: LaneStart) -> Self {
        let position = start.round.position;
        let proven = start.acknowledged && start.head_attempts.tries == 0;
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
            preparing: false,
            ahead: 1,
            parks: Vec::new(),
            standing: Standing::Unchanged,
            redrive: Vec::new(),
            streak: start.streak,
            counted: None,
            streak_letters: start.streak_letters,
            acknowledged: start.acknowledged,
            blocked: start.blocked,
            effects: VecDeque::new(),
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
        self.settled == self.round.summary.total() && self.settling.is_none()
    }

    /// Whether nothing of this lane is on its way, so that it may be replaced.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.settling.is_none() && self.in_flight() == 0
    }

    /// Whether the cursor is blocked.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Blocks the cursor: from now on only its head goes, under probe.
    pub fn block(&mut self, reason: String) {
        if !std::mem::replace(&mut self.blocked, true) {
            self.effects.push_back(CursorEffect::Block(reason));
        }
    }

    /// A notice of the round was taken: what blocked the cursor is over, unless it is a streak of
    /// changes.
    pub fn on_noticed(&mut self) {
        if self.streak < STREAK_MAX && std::mem::take(&mut self.blocked) {
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
        self.read += changes.len() as u64;
        let complete = changes.len() == CHANGES_PER_READ || self.read == total;
        self.last_read = changes.last().cloned().or(self.last_read.take());
        self.slots.extend(changes.into_iter().map(Slot::new));
        if let Some(head) = self.slots.front_mut().filter(|_| self.prefix == self.round.position) {
            let attempts = std::mem::take(&mut self.head_attempts);
            if attempts.tries > 0 {
                head.tries = attempts.tries;
                head.item_tries = attempts.item_tries;
                head.first_failure = attempts.first_failure;
            }
        }
        self.skip_head();
        complete && self.read <= total
    }

    /// Gives the head up if that was asked for. What the app has of it nobody knows: it may have
    /// done what it never acknowledged.
    fn skip_head(&mut self) {
        let (position, round) = (self.prefix, self.round.clone());
        let delivery = self.delivery_id(position);
        let Some((head, delivery)) = self.slots.front_mut().zip(delivery) else { return };
        let Some(id) = self.skip.take() else { return };
        head.state = SlotState::Parked(Box::new(Park {
            id,
            position,
            delivery,
            reason: ParkReason::Skipped,
            state: given_up(&round, ParkReason::Skipped, &head.change),
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
        if self.stale {
            return None;
        }
        if self.batching.is_some() {
            return self.next_batch(now);
        }
        let phase = self.slots.iter().find(|slot| !slot.is_done())?.change.operation;
        let limit = if self.blocked || self.order == OrderMode::Strict { 1 } else { self.max_in_flight };
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
            | SlotState::Parked(_) => false,
        })
    }

    /// Whether one more may be sent beyond the settled prefix.
    fn may_probe(&self) -> bool {
        !self.stale && self.prefix < self.settled + self.window()
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
        let alone = is_probe || self.blocked || self.order == OrderMode::Phased || self.batching.is_some();
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

    /// Failed tries of a change that is in memory.
    #[must_use]
    pub fn tries(&self, position: u64) -> u32 {
        let index = position.checked_sub(self.prefix).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.slots.get(index)).map_or(0, |slot| slot.tries)
    }

    /// What must be written now, if anything. [`Lane::on_settled`] or [`Lane::on_settle_failed`]
    /// must follow.
    pub fn want_settle(&mut self, at: Timestamp) -> Option<Settlement> {
        // A block that is not written yet goes first: the settlement may be what ends it.
        let waits = self.settling.is_some() || !self.effects.is_empty();
        if self.stale || waits || self.prefix == self.settled {
            return None;
        }
        self.settling = Some(self.prefix);
        Some(Settlement {
            cursor: self.cursor().clone(),
            round: self.round.number,
            position: self.prefix,
            parked: std::mem::take(&mut self.parks),
            streak: self.streak,
            acknowledged: self.acknowledged,
            standing: std::mem::take(&mut self.standing),
            redrive: std::mem::take(&mut self.redrive),
            at,
        })
    }

    /// The settlement is on disk.
    pub fn on_settled(&mut self) {
        if let Some(position) = self.settling.take() {
            self.settled = position;
        }
    }

    /// The settlement is not on disk, or nobody knows. The parks in it are lost to this lane, so it
    /// settles nothing further: a later prefix would pass them without a record.
    pub fn on_settle_failed(&mut self) {
        self.settling = None;
        self.stale = true;
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
        let is_busy = self.preparing || self.reading || self.stale || self.settled != self.prefix;
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

    /// Moves the done prefix over finished slots, in order, and draws the consequences.
    fn advance_prefix(&mut self) {
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.is_done()) {
            self.prefix += 1;
            match slot.state {
                SlotState::Parked(park) => {
                    if matches!(park.reason, ParkReason::Rejected | ParkReason::Failing) {
                        // What one answer refused is one word of the receiver.
                        let repeated = slot.answer.is_some() && slot.answer == self.counted;
                        self.streak += u32::from(!repeated);
                        self.counted = slot.answer;
                        self.streak_letters.push(park.id.clone());
                    }
                    self.parks.push(*park);
                    if self.streak >= STREAK_MAX && !std::mem::replace(&mut self.blocked, true) {
                        self.standing = Standing::Blocked(format!(
                            "{STREAK_MAX} changes in a row were given up; the next one waits under probe"
                        ));
                        self.release();
                    }
                }
                _ => {
                    self.acknowledged = true;
                    (self.streak, self.counted) = (0, None);
                    let letters = std::mem::take(&mut self.streak_letters);
                    if std::mem::take(&mut self.blocked) {
                        self.standing = Standing::Unblocked;
                        self.redrive.extend(letters);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
