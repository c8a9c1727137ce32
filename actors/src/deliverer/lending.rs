//! The outlet `Claim` (the sink `pull`): a consumer asks for changes, is lent the next ones of a lane
//! under a lease, and says how far it got. The lane is the one of every app: the same round, order,
//! ids, letters and settlements; only that nobody is sent anything.
//!
//! A lease lives in memory. Whoever holds one of a process that ended, of a lane that was replaced
//! or of a time that is over is told so ([`Refusal::Stale`]), asks again and gets the same changes
//! under the same ids. A lane that nobody asks for is not kept in memory.
//!
//! Bounds: one wish a watch, the newest; a lease covers at most a window of one lane.

use std::{ops::Range, sync::Arc, time::Duration};

use ractor::RpcReplyPort;
use tidings_entity::id::{CursorId, DeadLetterId, WatchId};
use tokio::time::Instant;
use tracing::info;

use super::{
    DelivererMessage, DelivererState, Generation, Slot, Way,
    lane::AHEAD,
    running::{RunningLane, Stage},
};
use crate::{
    ports::{LaneFacts, Parcel},
    terms,
    time::Timestamp,
};

/// A lane of an app that pulls is forgotten when nobody asked for so long.
pub(super) const LINGER: Duration = Duration::from_secs(60);

/// What somebody asks for.
#[derive(Debug)]
pub struct Wish {
    /// The watch.
    pub watch: WatchId,
    /// Cursors of it, the first of which that has something is lent.
    pub cursors: Vec<CursorId>,
    /// Most changes, at least one.
    pub most: usize,
    /// How long they are lent.
    pub lease: Duration,
    /// How long to wait until there is something.
    pub wait: Duration,
    /// `None`: there was nothing.
    pub reply: RpcReplyPort<Option<Lease>>,
}

/// Changes that are lent: the next ones of a round, in order.
#[derive(Debug)]
pub struct Lease {
    /// Names it when it is returned.
    pub id: String,
    /// Of which lane.
    pub lane: Arc<LaneFacts>,
    /// Their positions.
    pub positions: Range<u64>,
    /// The changes as they would have been sent. None of them: only what is told is lent.
    pub parcels: Vec<Parcel>,
    /// With them the app is told that the round, a resync, begins.
    pub announces: bool,
    /// After them the app is told that the round ends.
    pub tells_end: bool,
    /// When they may be lent to somebody else.
    pub expires_at: Timestamp,
}

/// A lease that comes back.
#[derive(Debug)]
pub struct Return {
    /// The id of the lease.
    pub id: String,
    /// Of which watch.
    pub watch: WatchId,
    /// The last position that is dealt with; `None`: none of them. Where nothing but notices was lent, any
    /// position beside the end of the round says that they are dealt with.
    pub accepted_through: Option<u64>,
    /// Positions up to it that the app does not want, with what it says of them.
    pub refused: Vec<(u64, String)>,
    /// What came of it.
    pub reply: RpcReplyPort<Result<Settled, Refusal>>,
}

/// What a returned lease led to, on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The cursor.
    pub cursor: CursorId,
    /// The round.
    pub round: i64,
    /// How many changes of it are settled.
    pub position: u64,
}

/// Why a lease was not taken back. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows it, or not any more.
    #[error("the lease is over: ask again for what is pending")]
    Stale,
    /// A position that was not lent.
    #[error("position {0} was not lent")]
    NotLent(u64),
    /// A position that is refused and not dealt with.
    #[error("position {0} is refused but lies beyond accepted_through")]
    Beyond(u64),
}

/// A lease that is out, or back and not yet on disk.
pub(super) struct Loan {
    id: String,
    positions: Range<u64>,
    announces: bool,
    tells_end: bool,
    until: Instant,
}

/// Somebody who waits for what was returned to be on disk.
pub(super) struct Owed {
    position: u64,
    reply: RpcReplyPort<Result<Settled, Refusal>>,
}

/// A wish that waits.
pub(super) struct Waiting {
    wish: Wish,
    until: Instant,
}

impl DelivererState {
    /// Whether a lane of this cursor has a reason to be in memory.
    pub(super) fn is_wanted(&self, cursor: &CursorId) -> bool {
        match self.way {
            Way::Attempt(_) => true,
            Way::Claim => self.wishes.iter().any(|waiting| waiting.wish.cursors.contains(cursor)),
            Way::Closed => false,
        }
    }

    /// Lends what a lane has ready, and has more of it read and rendered while somebody asks for it.
    pub(super) fn drive_claims(&mut self, cursor: &CursorId, generation: Generation, now: Instant) {
        let Some((running, _)) = self.running(cursor) else { return };
        match running.stage {
            Stage::Noticing { .. } => self.lend(cursor),
            Stage::Flowing => {
                self.read(cursor, generation);
                self.lend(cursor);
                if self.is_wanted(cursor) {
                    self.render(cursor, generation, AHEAD);
                }
                self.arm_due(cursor, now);
            }
            Stage::Finishing => {}
        }
    }

    pub(super) fn on_wish(&mut self, wish: Wish) {
        self.wishes.retain(|waiting| waiting.wish.watch != wish.watch);
        let (cursors, wait) = (wish.cursors.clone(), wish.wait);
        self.wishes.push(Waiting { wish, until: Instant::now() + wait });
        self.idle_since = None;
        if self.app.is_none() {
            self.read_pending();
        }
        for cursor in cursors {
            match self.lanes.get(&cursor).map(|lane| &lane.slot) {
                Some(Slot::Running(_)) => self.drive(&cursor),
                Some(_) => {}
                None => self.admit([cursor]),
            }
        }
        self.post.send_after(wait, || DelivererMessage::WishEnds);
    }

    /// Wishes whose time is over get nothing; whoever went away needs no answer.
    pub(super) fn on_wish_ends(&mut self) {
        let now = Instant::now();
        let (over, waiting): (Vec<_>, Vec<_>) =
            self.wishes.drain(..).partition(|waiting| waiting.until <= now || waiting.wish.reply.is_closed());
        self.wishes = waiting;
        for over in over {
            answer(over.wish.reply, None);
        }
        if self.is_idle() && self.wishes.is_empty() {
            self.become_idle();
        }
    }

    /// Lends what is ready of a lane to whoever waits for it, or has it rendered.
    pub(super) fn lend(&mut self, cursor: &CursorId) {
        let now = Instant::now();
        let wall = self.context.now();
        self.wishes.retain(|waiting| !waiting.wish.reply.is_closed());
        let Some(index) = self.wishes.iter().position(|waiting| waiting.wish.cursors.contains(cursor)) else {
            return;
        };
        let id = format!("lease_{}", self.context.random.ulid(wall));
        let (most, lease) = (self.wishes[index].wish.most, self.wishes[index].wish.lease);
        let Some((running, _)) = self.running(cursor) else { return };
        running.asked = Some(now);
        if running.loan.is_some() {
            return;
        }
        if !running.open.hold.is_confirmed() {
            // Its watch may be gone: whoever waits goes on waiting until that is known.
            let cursor = cursor.clone();
            self.post.send_after(terms::LOOK, move || DelivererMessage::Due(cursor));
            return;
        }
        running.lane.expect_reader();
        let total = running.lane.round().summary.total();
        // At the end only notices may be left.
        let is_over = matches!(running.stage, Stage::Noticing { .. });
        let (positions, parcels) =
            if is_over { (total..total, Vec::new()) } else { running.lane.take_ready(most) };
        if parcels.is_empty() && !is_over {
            return;
        }
        let (announces, tells_end) = (running.owes_resync, running.owes_synced && positions.end == total);
        let (until, expires_at) = (now + lease, wall.after(lease));
        running.loan =
            Some(Loan { id: id.clone(), positions: positions.clone(), announces, tells_end, until });
        let lane = running.facts();
        let lent = Lease { id, lane, positions, parcels, announces, tells_end, expires_at };
        let waiting = self.wishes.remove(index);
        // Who left a moment ago holds it until its time is over; the next one asks again.
        answer(waiting.wish.reply, Some(lent));
        let cursor = cursor.clone();
        self.post.send_after(lease, move || DelivererMessage::Due(cursor));
    }

    pub(super) fn on_return(&mut self, returned: Return) {
        let now = Instant::now();
        let found = self.lanes.iter().find_map(|(cursor, lane)| match &lane.slot {
            Slot::Running(running) if running.facts().repository.repository_id == returned.watch => {
                let loan = running.loan.as_ref().filter(|loan| loan.id == returned.id)?;
                Some((cursor.clone(), loan.fault(&returned, now)))
            }
            _ => None,
        });
        let (cursor, fault) = match found {
            Some((cursor, fault)) => (cursor, fault),
            None => return answer(returned.reply, Err(Refusal::Stale)),
        };
        if let Some(fault) = fault {
            return answer(returned.reply, Err(fault));
        }
        let (random, wall) = (self.context.random.clone(), self.context.now());
        let Some((running, generation)) = self.running(&cursor) else { return };
        let Some(loan) = running.loan.take() else { return };
        let is_taken = returned.accepted_through.is_some();
        let accepted = match returned.accepted_through {
            Some(last) if !loan.positions.is_empty() => last + 1,
            _ => loan.positions.start,
        };
        for position in loan.positions.clone() {
            let refused = returned.refused.iter().find(|(refused, _)| *refused == position);
            match refused {
                Some((_, why)) => {
                    running.lane.on_refused(position, why, DeadLetterId::new(random.ulid(wall)));
                }
                None if position < accepted => running.lane.on_acknowledged(position),
                None => running.lane.on_recalled(position),
            }
        }
        if loan.tells_end && is_taken && accepted == loan.positions.end {
            running.owes_synced = false;
            running.end_told = true;
        }
        if is_taken && loan.positions.is_empty() {
            running.stage = Stage::Flowing;
        }
        running.owed.push(Owed { position: accepted, reply: returned.reply });
        if loan.announces && is_taken {
            self.note_announced(&cursor, generation);
        }
        self.drive(&cursor);
    }

    /// Tells those who returned a lease that it is on disk.
    pub(super) fn confirm(&mut self, cursor: &CursorId) {
        let Some((running, _)) = self.running(cursor) else { return };
        let settled = running.lane.settled();
        let round = running.lane.round().number;
        let (done, owed): (Vec<_>, Vec<_>) =
            running.owed.drain(..).partition(|owed| owed.position <= settled);
        running.owed = owed;
        for owed in done {
            answer(owed.reply, Ok(Settled { cursor: cursor.clone(), round, position: settled }));
        }
    }

    /// Lanes that nobody asked for in a while are forgotten; their rows stay.
    pub(super) fn forget_unasked(&mut self, linger: Duration) {
        if matches!(self.way, Way::Attempt(_)) {
            return;
        }
        let now = Instant::now();
        let unasked: Vec<CursorId> = self
            .lanes
            .iter()
            .filter(|(cursor, lane)| match &lane.slot {
                Slot::Running(running) => running.is_unasked(now, linger),
                Slot::Waiting { .. } => !self.is_wanted(cursor),
                Slot::Opening { .. } => false,
            })
            .map(|(cursor, _)| cursor.clone())
            .collect();
        for cursor in unasked {
            self.forget(&cursor);
        }
    }
}

impl RunningLane {
    /// A lease whose time is over is nobody's any more.
    pub(super) fn end_lease_at(&mut self, now: Instant) {
        if self.loan.as_ref().is_some_and(|loan| loan.until <= now) {
            self.revoke_lease();
        }
    }

    /// Takes a lease back; its changes are lent again.
    pub(super) fn revoke_lease(&mut self) {
        if let Some(loan) = self.loan.take() {
            info!("lease {} of {} is over", loan.id, self.lane.round().cursor);
            loan.positions.for_each(|position| self.lane.on_recalled(position));
        }
    }

    fn is_unasked(&self, now: Instant, linger: Duration) -> bool {
        let waits = self.loan.is_some() || !self.owed.is_empty() || !self.is_still();
        !waits && self.asked.is_none_or(|asked| asked + linger <= now)
    }
}

impl Loan {
    /// What is wrong with how it comes back.
    fn fault(&self, returned: &Return, now: Instant) -> Option<Refusal> {
        if self.until <= now {
            return Some(Refusal::Stale);
        }
        let end = self.positions.end;
        let beside = end.saturating_sub(1)..=end;
        let is_notice = self.positions.is_empty();
        let lent = |position: &u64| {
            if is_notice { beside.contains(position) } else { self.positions.contains(position) }
        };
        if let Some(last) = returned.accepted_through.filter(|last| !lent(last)) {
            return Some(Refusal::NotLent(last));
        }
        returned.refused.iter().find_map(|(position, _)| {
            if !lent(position) {
                Some(Refusal::NotLent(*position))
            } else if returned.accepted_through.is_none_or(|last| *position > last) {
                Some(Refusal::Beyond(*position))
            } else {
                None
            }
        })
    }
}

/// Answers; whoever does not wait any more needs none.
fn answer<T>(port: RpcReplyPort<T>, value: T) {
    drop(port.send(value));
}
