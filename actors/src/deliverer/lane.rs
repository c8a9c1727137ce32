//! One open round on its way to its app, pure: which change may be sent now, what an answer leads
//! to, how far the settled prefix reaches. The deliverer feeds it answers and carries out what it
//! asks for; nothing here waits, reads or writes.
//!
//! Invariants: changes are acknowledged to the store only as a prefix; nothing at or beyond
//! `settled + WINDOW` is sent; `strict` has one change on its way; `phased` never overlaps two
//! operations; a blocked lane sends only its head.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tidings_entity::{
    id::{CursorId, DeadLetterId, ObjectId},
    kind::{OrderMode, ParkReason},
};
use tokio::time::Instant;

use super::retry::{Circumstances, Decision, RetryRules, Tries, Verdict, decide};
use crate::{
    ports::{HeadAttempts, Parcel, Park, Random, Settlement},
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

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For waits.
    pub instant: Instant,
    /// For rows.
    pub wall: Timestamp,
}

#[derive(Debug)]
enum SlotState {
    New,
    Preparing,
    Ready(Parcel),
    Flying(Parcel),
    Waiting { parcel: Option<Parcel>, until: Instant, endpoint: bool },
    Acknowledged,
    Parked(Box<Park>),
}

#[derive(Debug)]
struct Slot {
    change: Change,
    state: SlotState,
    tries: u32,
    item_tries: u32,
    first_failure: Option<Timestamp>,
    previous_try: Option<Instant>,
    last_try: Option<Instant>,
    unobtainable: Vec<ObjectId>,
}

impl Slot {
    fn new(change: Change) -> Self {
        Self {
            change,
            state: SlotState::New,
            tries: 0,
            item_tries: 0,
            first_failure: None,
            previous_try: None,
            last_try: None,
            unobtainable: Vec::new(),
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.state, SlotState::Acknowledged | SlotState::Parked(_))
    }
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
    /// The cursor is to be blocked.
    pub block: bool,
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
    parks: Vec<Park>,
    streak: u32,
    streak_letters: Vec<DeadLetterId>,
    acknowledged: bool,
    blocked: bool,
    effects: Vec<CursorEffect>,
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
            parks: Vec::new(),
            streak: start.streak,
            streak_letters: start.streak_letters,
            acknowledged: start.acknowledged,
            blocked: start.blocked,
            effects: Vec::new(),
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
    pub fn want_prepare(&mut self) -> Vec<(u64, Change, Vec<ObjectId>)> {
        let ahead = match self.order {
            OrderMode::Strict => PREFETCH,
            OrderMode::Phased => PREFETCH.max(2 * self.max_in_flight),
        };
        let prefix = self.prefix;
        self.slots
            .iter_mut()
            .take(ahead)
            .enumerate()
            .filter(|(_, slot)| matches!(slot.state, SlotState::New))
            .map(|(index, slot)| {
                slot.state = SlotState::Preparing;
                (prefix + index as u64, slot.change.clone(), slot.unobtainable.clone())
            })
            .collect()
    }

    /// A delivery is rendered.
    pub fn on_prepared(&mut self, position: u64, parcel: Parcel) {
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

    /// The next change that may be sent now, if any. A wait that ended for a change whose rendering
    /// failed makes it renderable again.
    pub fn next_sendable(&mut self, now: Instant) -> Option<u64> {
        for slot in &mut self.slots {
            if let SlotState::Waiting { parcel: None, until, .. } = slot.state
                && until <= now
            {
                slot.state = SlotState::New;
            }
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
        let head = self.slots.front()?;
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

    /// The attempt failed. `answered_elsewhere`: when the endpoint last acknowledged something
    /// else; an endpoint failure of a change that was tried before that counts as its own.
    #[expect(clippy::too_many_arguments, reason = "all that a decision depends on, each by its name")]
    pub fn on_failed(
        &mut self,
        position: u64,
        verdict: Verdict,
        retry_after: Option<Duration>,
        answer: (Option<u16>, String),
        answered_elsewhere: Option<Instant>,
        now: Moment,
        rules: &RetryRules,
        random: &dyn Random,
        letter: DeadLetterId,
    ) -> Option<Failed> {
        let (acknowledged, blocked) = (self.acknowledged, self.blocked);
        let delivery = self.delivery_id(position)?;
        let slot = self.slot(position)?;
        let poisoned = verdict == Verdict::Endpoint
            && answered_elsewhere.zip(slot.previous_try).is_some_and(|(elsewhere, tried)| elsewhere > tried);
        let verdict = if poisoned { Verdict::Failing } else { verdict };
        let item = matches!(verdict, Verdict::Refused | Verdict::Failing);
        slot.tries += 1;
        slot.item_tries += u32::from(item);
        let first = *slot.first_failure.get_or_insert(now.wall);
        let tries = Tries { all: slot.tries, item: slot.item_tries, since_first: now.wall.since(first) };
        let decision =
            decide(Circumstances { verdict, tries, acknowledged, blocked, retry_after }, rules, random);
        let number = slot.tries;
        let (wait, block) = match decision {
            Decision::Retry(wait) => (wait, false),
            Decision::Block(wait) => (wait, true),
            Decision::Park(reason) => {
                let state = match reason {
                    ParkReason::Failing => LetterState::Unknown { before: slot.change.old },
                    _ => before(&slot.change),
                };
                slot.state = SlotState::Parked(Box::new(Park {
                    id: letter,
                    position,
                    delivery,
                    reason,
                    state,
                    status: answer.0,
                    excerpt: answer.1,
                    change: slot.change.clone(),
                }));
                self.advance_prefix();
                return Some(Failed { number, item, retry_in: None, block: false });
            }
        };
        let parcel = match std::mem::replace(&mut slot.state, SlotState::New) {
            SlotState::Flying(parcel) => Some(parcel),
            _ => None,
        };
        slot.state = SlotState::Waiting { parcel, until: now.instant + wait, endpoint: !item };
        self.blocked |= block;
        Some(Failed { number, item, retry_in: Some(wait), block })
    }

    /// The endpoint is well again: waits that were the endpoint's fault end now.
    pub fn on_endpoint_recovered(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if let SlotState::Waiting { until, endpoint: true, .. } = &mut slot.state {
                *until = now;
            }
        }
    }

    /// What must be written now, if anything. [`Lane::on_settled`] must follow.
    pub fn want_settle(&mut self, at: Timestamp) -> Option<Settlement> {
        if self.settling.is_some() || self.prefix == self.settled {
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

    /// What changed for the cursor as a whole since the last call.
    pub fn take_effects(&mut self) -> Vec<CursorEffect> {
        std::mem::take(&mut self.effects)
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
                    if self.streak >= STREAK_MAX && !self.blocked {
                        self.blocked = true;
                        self.effects.push(CursorEffect::Block(format!(
                            "{STREAK_MAX} changes in a row were given up; the next one waits under probe"
                        )));
                    }
                }
                _ => {
                    self.acknowledged = true;
                    self.streak = 0;
                    let letters = std::mem::take(&mut self.streak_letters);
                    if std::mem::take(&mut self.blocked) {
                        self.effects.push(CursorEffect::Unblock(letters));
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
