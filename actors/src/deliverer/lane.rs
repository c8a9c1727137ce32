//! One open round on its way to its app, pure: which change may be sent now, what an answer leads
//! to, how far the settled prefix reaches. The deliverer feeds it answers and carries out what it
//! asks for; nothing here waits, reads or writes.
//!
//! Invariants: changes are acknowledged to the store only as a prefix; nothing at or beyond
//! `settled + WINDOW` is sent; `strict` has one change on its way; `phased` never overlaps two
//! operations; a blocked lane sends only its head.

mod failure;
mod slot;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tidings_entity::{
    id::{CursorId, DeadLetterId, ObjectId},
    kind::{OrderMode, ParkReason},
};
use tokio::time::Instant;

use slot::{Slot, SlotState};

use crate::{
    ports::{HeadAttempts, Parcel, Park, Settlement},
    round::{Change, DeliveryId, LetterState, Round},
    time::Timestamp,
};

/// Changes that may be sent beyond the settled prefix: what a crash can repeat at most.
pub const WINDOW: u64 = 64;
/// Parks in a row that block a cursor.
pub const STREAK_MAX: u32 = 10;
/// Changes read from the trees at once.
pub const CHANGES_PER_READ: usize = 256;
/// Deliveries rendered ahead of the one being sent.
const PREFETCH: usize = 8;
/// As long as nobody knows how large this round's deliveries are, so many are rendered ahead.
const PREFETCH_UNKNOWN: usize = 2;
/// While deliveries weigh more than this many bytes, none is rendered ahead: what a lane holds in
/// memory is bounded by one or two of the largest files, however long its receiver takes.
const LARGE: u64 = 1 << 20;

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For waits.
    pub instant: Instant,
    /// For rows.
    pub wall: Timestamp,
}

/// What the cursor's whole state changes to, as a consequence of the settled prefix growing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorEffect {
    /// Too many changes in a row were given up: the next one waits at the head under probe.
    Block(String),
    /// The head was acknowledged while blocked: go on, and redrive these letters next.
    Unblock(Vec<DeadLetterId>),
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
    /// About the largest delivery rendered lately, in bytes; `None` before the first.
    largest: Option<u64>,
    parks: Vec<Park>,
    streak: u32,
    streak_letters: Vec<DeadLetterId>,
    acknowledged: bool,
    blocked: bool,
    effects: VecDeque<CursorEffect>,
    /// A settlement was not written, and with it letters may be missing: nothing further is sent or
    /// settled, the rows say where to go on.
    stale: bool,
    head_attempts: HeadAttempts,
}

/// What a lane starts from.
#[derive(Debug)]
pub struct LaneStart {
    /// The open round.
    pub round: Arc<Round>,
    /// How sends may overlap.
    pub order: OrderMode,
    /// How many may overlap in `phased`.
    pub max_in_flight: usize,
    /// Parks in a row so far.
    pub streak: u32,
    /// Their letters.
    pub streak_letters: Vec<DeadLetterId>,
    /// Whether the app ever acknowledged something of this cursor.
    pub acknowledged: bool,
    /// Whether the cursor is blocked.
    pub blocked: bool,
    /// Failed tries of the change at the round's position.
    pub head_attempts: HeadAttempts,
}

impl Lane {
    /// A lane at the round's settled position.
    #[must_use]
    pub fn new(start: LaneStart) -> Self {
        let position = start.round.position;
        Self {
            order: start.order,
            max_in_flight: start.max_in_flight.clamp(1, usize::try_from(WINDOW).unwrap_or(1)),
            prefix: position,
            slots: VecDeque::new(),
            read: position,
            last_read: None,
            reading: false,
            settled: position,
            settling: None,
            largest: None,
            parks: Vec::new(),
            streak: start.streak,
            streak_letters: start.streak_letters,
            acknowledged: start.acknowledged,
            blocked: start.blocked,
            effects: VecDeque::new(),
            stale: false,
            head_attempts: start.head_attempts,
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

    /// The announcement of the round was taken: what blocked the cursor is over.
    pub fn on_announced(&mut self) {
        if std::mem::take(&mut self.blocked) {
            self.effects.push_back(CursorEffect::Unblock(Vec::new()));
        }
    }

    /// Changes on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.state, SlotState::Flying(_))).count()
    }

    /// If more changes must be read from the trees: the position to read from, and the change
    /// before it where it is known. [`Lane::on_read`] or [`Lane::on_read_failed`] must follow.
    pub fn want_read(&mut self) -> Option<(u64, Option<Change>)> {
        let low = self.slots.len() < CHANGES_PER_READ / 2;
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
        complete && self.read <= total
    }

    /// Reading failed; it may be wanted again.
    pub fn on_read_failed(&mut self) {
        self.reading = false;
    }

    /// Changes to be rendered now: position, change, and the blobs that are obtainable nowhere.
    /// [`Lane::on_prepared`], [`Lane::on_blob_unobtainable`] or [`Lane::retry_later`] must follow.
    pub fn want_prepare(&mut self, now: Instant) -> Vec<(u64, Change, Vec<ObjectId>)> {
        let ahead = match (self.largest, self.order) {
            (None, _) => PREFETCH_UNKNOWN,
            (Some(LARGE..), _) => 1,
            (Some(_), OrderMode::Strict) => PREFETCH,
            (Some(_), OrderMode::Phased) => PREFETCH.max(2 * self.max_in_flight),
        };
        let prefix = self.prefix;
        self.slots
            .iter_mut()
            .take(ahead)
            .enumerate()
            .filter(|(_, slot)| match slot.state {
                SlotState::New => true,
                // Rendering failed, and the wait after it is over.
                SlotState::Waiting { parcel: None, until, .. } => until <= now,
                _ => false,
            })
            .map(|(index, slot)| {
                slot.state = SlotState::Preparing;
                (prefix + index as u64, slot.change.clone(), slot.unobtainable.clone())
            })
            .collect()
    }

    /// A delivery is rendered.
    pub fn on_prepared(&mut self, position: u64, parcel: Parcel) {
        // Half of it with each delivery, so that one large file among many small ones is forgotten.
        self.largest = Some(parcel.size().max(self.largest.unwrap_or(0) / 2));
        if let Some(slot) = self.slot(position) {
            slot.state = SlotState::Ready(parcel);
        }
    }

    /// A blob that a delivery wants can be had nowhere. If it is the content itself, the change is
    /// parked without counting towards the streak; otherwise it is rendered without the hash.
    pub fn on_blob_unobtainable(&mut self, position: u64, blob: ObjectId, letter: DeadLetterId) {
        let delivery = self.delivery_id(position);
        let Some(slot) = self.slot(position) else { return };
        let is_content = slot.change.new.is_some_and(|entry| entry.blob == blob);
        if is_content {
            slot.state = SlotState::Parked(Box::new(Park {
                id: letter,
                position,
                delivery: delivery.unwrap_or_else(|| DeliveryId::from_stored(String::new())),
                reason: ParkReason::ContentUnavailable,
                state: before(&slot.change),
                status: None,
                excerpt: format!("blob {blob} is obtainable nowhere"),
                change: slot.change.clone(),
            }));
            self.advance_prefix();
        } else {
            slot.unobtainable.push(blob);
            slot.state = SlotState::New;
        }
    }

    /// Rendering failed for a reason that may pass.
    pub fn retry_later(&mut self, position: u64, until: Instant) {
        if let Some(slot) = self.slot(position) {
            slot.state = SlotState::Waiting { parcel: None, until, endpoint: false };
        }
    }

    /// The next change that may be sent now, if any.
    #[must_use]
    pub fn next_sendable(&self, now: Instant) -> Option<u64> {
        if self.stale {
            return None;
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
            let sendable = match slot.state {
                SlotState::Ready(_) => true,
                SlotState::Waiting { parcel: Some(_), until, .. } => until <= now,
                _ => false,
            };
            if sendable {
                return Some(self.prefix + index as u64);
            }
            if one_by_one {
                return None;
            }
        }
        None
    }

    /// The head, if it may be sent as a probe: waiting or ready, whatever its own wait says.
    #[must_use]
    pub fn probe_head(&self) -> Option<u64> {
        let head = self.slots.front().filter(|_| !self.stale)?;
        let sendable = matches!(head.state, SlotState::Ready(_) | SlotState::Waiting { parcel: Some(_), .. });
        sendable.then_some(self.prefix)
    }

    /// Puts a change on its way.
    pub fn launch(&mut self, position: u64, now: Instant) -> Option<(Parcel, Change)> {
        let slot = self.slot(position)?;
        let state = std::mem::replace(&mut slot.state, SlotState::New);
        match state {
            SlotState::Ready(parcel) | SlotState::Waiting { parcel: Some(parcel), .. } => {
                slot.state = SlotState::Flying(parcel.clone());
                slot.previous_try = slot.last_try.replace(now);
                Some((parcel, slot.change.clone()))
            }
            other => {
                slot.state = other;
                None
            }
        }
    }

    /// The change was acknowledged.
    pub fn on_acknowledged(&mut self, position: u64) {
        if let Some(slot) = self.slot(position) {
            slot.state = SlotState::Acknowledged;
        }
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
        if self.stale || self.settling.is_some() || self.prefix == self.settled {
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

    /// What changes next for the cursor as a whole, once everything before it is on disk.
    /// [`Lane::on_effect_written`] must follow before the next one is given.
    #[must_use]
    pub fn want_effect(&self) -> Option<&CursorEffect> {
        let written = self.settling.is_none() && self.parks.is_empty() && !self.stale;
        self.effects.front().filter(|_| written)
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

    /// When something may be sent that may not be sent now.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.slots
            .iter()
            .filter_map(|slot| match slot.state {
                SlotState::Waiting { until, .. } => Some(until),
                _ => None,
            })
            .min()
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
                        self.streak += 1;
                        self.streak_letters.push(park.id.clone());
                    }
                    self.parks.push(*park);
                    if self.streak >= STREAK_MAX {
                        self.block(format!(
                            "{STREAK_MAX} changes in a row were given up; the next one waits under probe"
                        ));
                    }
                }
                _ => {
                    self.acknowledged = true;
                    self.streak = 0;
                    let letters = std::mem::take(&mut self.streak_letters);
                    if std::mem::take(&mut self.blocked) {
                        self.effects.push_back(CursorEffect::Unblock(letters));
                    }
                }
            }
        }
    }
}

/// What the app has of a path whose change it never took.
fn before(change: &Change) -> LetterState {
    change.old.map_or(LetterState::Nothing, LetterState::Has)
}

#[cfg(test)]
mod tests;
