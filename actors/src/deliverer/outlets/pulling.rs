//! The outlet `Claim` (the sink `pull`): a consumer asks for changes, claims the next ones of a lane for
//! some time, and acknowledges how far it got. Round, order, ids, dead letters and settlements are those
//! of every other sink; the only difference is that Tidings sends nothing by itself.
//!
//! A claim lives in memory. It is stale when its time is over, its lane was replaced, or the process ended:
//! the consumer gets [`Refusal::Stale`], asks again and claims the same changes under the same ids. A lane
//! that no consumer asks for leaves memory. On the wire a claim is `lease_id`.
//!
//! Bounds: one waiting request for each watch, the newest; a claim covers at most one window of one lane.

use std::{ops::Range, sync::Arc, time::Duration};

use ractor::RpcReplyPort;
use tidings_entity::id::{CursorId, DeadLetterId, WatchId};
use tokio::time::Instant;
use tracing::info;

use crate::{
    deliverer::{
        CurrentOutlet, DelivererMessage, DelivererState, Generation, Slot,
        lane::AHEAD,
        running::{RunningLane, Stage},
    },
    ownership::terms,
    ports::{LaneFacts, Parcel},
    time::Timestamp,
};

/// A lane of the sink `pull` leaves memory when no consumer asked for it for this long.
pub(in crate::deliverer) const LINGER: Duration = Duration::from_secs(60);

/// A consumer's request for changes.
#[derive(Debug)]
pub struct PullRequest {
    /// The watch whose changes are asked for.
    pub watch: WatchId,
    /// Cursors of the watch; the first one with pending changes is served.
    pub cursors: Vec<CursorId>,
    /// The most changes to claim, at least one.
    pub most: usize,
    /// How long the claim lasts.
    pub lease: Duration,
    /// How long to wait for changes while there are none.
    pub wait: Duration,
    /// Gets the claimed changes, or why there are none when the wait ends.
    pub reply: RpcReplyPort<Pulled>,
}

/// The answer to a request for changes.
#[derive(Debug)]
pub enum Pulled {
    /// The next changes of one lane, which the consumer has claimed now.
    Claimed(Box<ClaimedChanges>),
    /// No change can be claimed now.
    Nothing,
    /// Changes can be claimed soon: their contents are being read, or wait for memory. The lane goes on with
    /// that, so a later request gets the changes.
    NotReady,
}

impl Pulled {
    /// The changes, if there are any.
    #[must_use]
    pub fn claimed(self) -> Option<ClaimedChanges> {
        match self {
            Self::Claimed(changes) => Some(*changes),
            Self::Nothing | Self::NotReady => None,
        }
    }
}

/// Claimed changes: the next ones of a round, in order.
#[derive(Debug)]
pub struct ClaimedChanges {
    /// Id of the claim; an acknowledgement names it.
    pub id: String,
    /// The lane that the changes belong to.
    pub lane: Arc<LaneFacts>,
    /// Positions of the changes in their round.
    pub positions: Range<u64>,
    /// The changes, rendered as for an endpoint. Empty when only notices are claimed.
    pub parcels: Vec<Parcel>,
    /// Whether the app is told of the beginning of the round, a resync, before the changes.
    pub announces: bool,
    /// Whether the app is told of the end of the round after the changes.
    pub tells_end: bool,
    /// When the claim expires: from then on another consumer may claim the changes.
    pub expires_at: Timestamp,
}

/// The end of a claim by its consumer.
#[derive(Debug)]
pub struct Acknowledgement {
    /// The id of the claim.
    pub id: String,
    /// The watch that the claim belongs to.
    pub watch: WatchId,
    /// The last position that the consumer processed; `None` if it processed none. A claim without changes,
    /// for notices only, is acknowledged by any position other than the end of the round.
    pub accepted_through: Option<u64>,
    /// Positions up to `accepted_through` that the app refuses, each with the app's reason.
    pub refused: Vec<(u64, String)>,
    /// Gets the settlement, or why the acknowledgement changed nothing.
    pub reply: RpcReplyPort<Result<Settled, Refusal>>,
}

/// The settlement that an acknowledgement led to, on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The cursor of the lane.
    pub cursor: CursorId,
    /// The number of the round.
    pub round: i64,
    /// How many changes of the round are settled.
    pub position: u64,
}

/// Why an acknowledgement changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No claim has this id, or its time is over.
    #[error("the lease is over: ask again for what is pending")]
    Stale,
    /// The claim does not cover this position.
    #[error("position {0} is not part of the claim")]
    NotLent(u64),
    /// A refused position lies beyond `accepted_through`.
    #[error("position {0} is refused but lies beyond accepted_through")]
    Beyond(u64),
}

/// A claim that its consumer has not ended yet.
pub(in crate::deliverer) struct PullClaim {
    id: String,
    positions: Range<u64>,
    announces: bool,
    tells_end: bool,
    until: Instant,
}

/// An acknowledgement whose settlement is not on disk yet.
pub(in crate::deliverer) struct PendingAcknowledgement {
    position: u64,
    reply: RpcReplyPort<Result<Settled, Refusal>>,
}

/// A request that waits for changes.
pub(in crate::deliverer) struct Waiting {
    pull: PullRequest,
    until: Instant,
}

impl DelivererState {
    /// Whether the lane of this cursor belongs in memory.
    pub(in crate::deliverer) fn is_wanted(&self, cursor: &CursorId) -> bool {
        match self.outlet {
            CurrentOutlet::Attempt(_) | CurrentOutlet::HandOver => true,
            CurrentOutlet::Claim => {
                self.pull_requests.iter().any(|waiting| waiting.pull.cursors.contains(cursor))
            }
            CurrentOutlet::Closed => false,
        }
    }

    /// Hands out the ready changes of a lane; reads and renders more while a consumer asks for them. Behind a
    /// claim nothing is rendered: it would hold memory for as long as the claim lasts.
    pub(in crate::deliverer) fn drive_claims(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        now: Instant,
    ) {
        let Some((running, _)) = self.running(cursor) else { return };
        match running.stage {
            Stage::Noticing { .. } => self.hand_out(cursor),
            Stage::Flowing => {
                self.read(cursor, generation);
                self.hand_out(cursor);
                let is_claimed = self.running(cursor).is_some_and(|(running, _)| running.claim.is_some());
                if !is_claimed && self.is_wanted(cursor) {
                    self.render(cursor, generation, AHEAD);
                }
                self.arm_due(cursor, now);
            }
            Stage::Finishing => {}
        }
    }

    pub(in crate::deliverer) fn on_pull(&mut self, pull: PullRequest) {
        self.pull_requests.retain(|waiting| waiting.pull.watch != pull.watch);
        let (cursors, wait) = (pull.cursors.clone(), pull.wait);
        self.pull_requests.push(Waiting { pull, until: Instant::now() + wait });
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
        self.mailbox.send_after(wait, || DelivererMessage::PullTimedOut);
    }

    /// Pull requests whose wait is over get an answer without changes; a caller that left needs none.
    pub(in crate::deliverer) fn on_pull_timed_out(&mut self) {
        let now = Instant::now();
        let (over, waiting): (Vec<_>, Vec<_>) = self
            .pull_requests
            .drain(..)
            .partition(|waiting| waiting.until <= now || waiting.pull.reply.is_closed());
        self.pull_requests = waiting;
        for over in over {
            let is_rendering = self.is_rendering(&over.pull.cursors);
            answer(over.pull.reply, if is_rendering { Pulled::NotReady } else { Pulled::Nothing });
        }
        if self.is_idle() && self.pull_requests.is_empty() {
            self.become_idle();
        }
    }

    /// Whether changes of these cursors are being rendered that nobody has claimed.
    fn is_rendering(&self, cursors: &[CursorId]) -> bool {
        cursors.iter().any(|cursor| match self.lanes.get(cursor).map(|lane| &lane.slot) {
            Some(Slot::Running(running)) => running.claim.is_none() && running.lane.is_preparing(),
            _ => false,
        })
    }

    /// Hands out the ready changes of a lane to the waiting consumer.
    pub(in crate::deliverer) fn hand_out(&mut self, cursor: &CursorId) {
        let now = Instant::now();
        let wall = self.context.now();
        self.pull_requests.retain(|waiting| !waiting.pull.reply.is_closed());
        let Some(index) = self.pull_requests.iter().position(|waiting| waiting.pull.cursors.contains(cursor))
        else {
            return;
        };
        let id = format!("lease_{}", self.context.random.ulid(wall));
        let (most, lease) = (self.pull_requests[index].pull.most, self.pull_requests[index].pull.lease);
        let Some((running, _)) = self.running(cursor) else { return };
        running.asked = Some(now);
        if running.claim.is_some() {
            return;
        }
        if !running.open.hold.is_confirmed() {
            // The watch may be gone: the consumer waits until that is known.
            let cursor = cursor.clone();
            self.mailbox.send_after(terms::LOOK, move || DelivererMessage::Due(cursor));
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
        running.claim =
            Some(PullClaim { id: id.clone(), positions: positions.clone(), announces, tells_end, until });
        let lane = running.facts();
        let claimed = ClaimedChanges { id, lane, positions, parcels, announces, tells_end, expires_at };
        let waiting = self.pull_requests.remove(index);
        // A consumer that left a moment ago keeps the claim until its time is over.
        answer(waiting.pull.reply, Pulled::Claimed(Box::new(claimed)));
        let cursor = cursor.clone();
        self.mailbox.send_after(lease, move || DelivererMessage::Due(cursor));
    }

    pub(in crate::deliverer) fn on_acknowledgement(&mut self, returned: Acknowledgement) {
        let now = Instant::now();
        let found = self.lanes.iter().find_map(|(cursor, lane)| match &lane.slot {
            Slot::Running(running) if running.facts().repository.repository_id == returned.watch => {
                let claim = running.claim.as_ref().filter(|claim| claim.id == returned.id)?;
                Some((cursor.clone(), claim.fault(&returned, now)))
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
        let Some(claim) = running.claim.take() else { return };
        let is_taken = returned.accepted_through.is_some();
        let accepted = match returned.accepted_through {
            Some(last) if !claim.positions.is_empty() => last + 1,
            _ => claim.positions.start,
        };
        for position in claim.positions.clone() {
            let refused = returned.refused.iter().find(|(refused, _)| *refused == position);
            match refused {
                Some((_, why)) => {
                    running.lane.on_refused(position, why, DeadLetterId::new(random.ulid(wall)));
                }
                None if position < accepted => running.lane.on_acknowledged(position),
                None => running.lane.on_recalled(position),
            }
        }
        if claim.tells_end && is_taken && accepted == claim.positions.end {
            running.owes_synced = false;
            running.end_told = true;
        }
        if is_taken && claim.positions.is_empty() {
            running.stage = Stage::Flowing;
        }
        running.unacknowledged.push(PendingAcknowledgement { position: accepted, reply: returned.reply });
        if claim.announces && is_taken {
            self.note_announced(&cursor, generation);
        }
        self.drive(&cursor);
    }

    /// Answers the acknowledgements whose settlement is on disk.
    pub(in crate::deliverer) fn confirm(&mut self, cursor: &CursorId) {
        let Some((running, _)) = self.running(cursor) else { return };
        let settled = running.lane.settled();
        let round = running.lane.round().number;
        let (done, pending): (Vec<_>, Vec<_>) =
            running.unacknowledged.drain(..).partition(|pending| pending.position <= settled);
        running.unacknowledged = pending;
        for pending in done {
            answer(pending.reply, Ok(Settled { cursor: cursor.clone(), round, position: settled }));
        }
    }

    /// Drops lanes that no consumer asked for during `linger`; their rows stay.
    pub(in crate::deliverer) fn forget_unasked(&mut self, linger: Duration) {
        if matches!(self.outlet, CurrentOutlet::Attempt(_) | CurrentOutlet::HandOver) {
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
    /// Ends the claim if its time is over.
    pub(in crate::deliverer) fn end_claim_at(&mut self, now: Instant) {
        if self.claim.as_ref().is_some_and(|claim| claim.until <= now) {
            self.revoke_claim();
        }
    }

    /// Ends the claim; its changes can be claimed again.
    pub(in crate::deliverer) fn revoke_claim(&mut self) {
        if let Some(claim) = self.claim.take() {
            info!("claim {} of {} is over", claim.id, self.lane.round().cursor);
            claim.positions.for_each(|position| self.lane.on_recalled(position));
        }
    }

    fn is_unasked(&self, now: Instant, linger: Duration) -> bool {
        let waits = self.claim.is_some() || !self.unacknowledged.is_empty() || !self.is_still();
        !waits && self.asked.is_none_or(|asked| asked + linger <= now)
    }
}

impl PullClaim {
    /// Why this acknowledgement of the claim is refused, if it is.
    fn fault(&self, returned: &Acknowledgement, now: Instant) -> Option<Refusal> {
        if self.until <= now {
            return Some(Refusal::Stale);
        }
        let end = self.positions.end;
        let beside = end.saturating_sub(1)..=end;
        let is_notice = self.positions.is_empty();
        let covers = |position: &u64| {
            if is_notice { beside.contains(position) } else { self.positions.contains(position) }
        };
        if let Some(last) = returned.accepted_through.filter(|last| !covers(last)) {
            return Some(Refusal::NotLent(last));
        }
        returned.refused.iter().find_map(|(position, _)| {
            if !covers(position) {
                Some(Refusal::NotLent(*position))
            } else if returned.accepted_through.is_none_or(|last| *position > last) {
                Some(Refusal::Beyond(*position))
            } else {
                None
            }
        })
    }
}

/// Answers a caller; a caller that left needs no answer.
fn answer<T>(port: RpcReplyPort<T>, value: T) {
    drop(port.send(value));
}
