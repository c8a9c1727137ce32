//! A running lane: carries out the requests of the pure [`Lane`] as tasks of the deliverer. Their results
//! arrive in `answers` and `notices`.

use std::{sync::Arc, time::Duration};

use tidings_entity::{
    id::{CursorId, DeadLetterId, ObjectId},
    kind::{CursorState, OrderMode, RoundKind},
};
use tokio::time::Instant;

use super::{
    CurrentOutlet, DelivererMessage, DelivererState, Generation, PENDING_CHECK, Slot, Step,
    lane::{CHANGES_PER_READ, Lane, LaneStart, Moment},
    opening::OpenLane,
    outlets::{
        handed::{Handing, INLINE_MAX},
        pulling::{PendingAcknowledgement, PullClaim},
    },
    rendering,
    retry::REGISTRATION_GRACE,
    sending::{Halt, TRACED, Trace},
};
use crate::{
    model::{
        round::{Change, DeliveryId},
        sink::Outlet,
    },
    ports::{Action, App, DeliveryOrder, LaneFacts, Seek, Tracer},
    supervision::tasks::in_time,
};

/// A lane without anything to send for this long may make room for another lane.
const REST: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A notice is sent before anything else: `/resync` before the changes, `/synced` after them.
    Noticing {
        action: Action,
        tries: u32,
        since: Option<Instant>,
        until: Option<Instant>,
        flying: bool,
    },
    Flowing,
    Finishing,
}

impl Stage {
    pub(super) fn noticing(action: Action, tries: u32) -> Self {
        Self::Noticing { action, tries, since: None, until: None, flying: false }
    }
}

/// A lane with its rows, and with its notices and reads in flight.
pub(super) struct RunningLane {
    pub(super) open: Arc<OpenLane>,
    facts: Arc<LaneFacts>,
    pub(super) lane: Lane,
    pub(super) stage: Stage,
    /// Whether the app must still be told of the beginning of the round, a resync.
    pub(super) owes_resync: bool,
    /// Whether the app must still be told of the end of the round.
    pub(super) owes_synced: bool,
    /// The app took the notice that the round ended.
    pub(super) end_told: bool,
    pub(super) reload: Option<Duration>,
    /// A consequence for the cursor is being written, or waits after a failure to.
    pub(super) writing: bool,
    pub(super) write_after: Option<Instant>,
    /// Settlements in a row whose write failed, and when the last one is tried again.
    pub(super) unwritten: u32,
    pub(super) settle_after: Option<Instant>,
    pub(super) queued: bool,
    timer: Option<Instant>,
    pub(super) halt: Halt,
    /// The claim that a consumer holds on changes of this lane.
    pub(super) claim: Option<PullClaim>,
    /// Consumers that wait until the changes that they returned are settled on disk.
    pub(super) unacknowledged: Vec<PendingAcknowledgement>,
    /// When a consumer last asked for changes.
    pub(super) asked: Option<Instant>,
    /// Where it stands with handing changes over, for a sink of tasks.
    pub(super) handing: Handing,
    /// The last change that was handed over in this life of the lane, with its position.
    pub(super) last_handed: Option<(u64, Change)>,
}

impl RunningLane {
    /// Starts a lane. `letter` is the id for a change that is skipped by hand.
    pub(super) fn new(open: OpenLane, app: &App, letter: DeadLetterId) -> Self {
        let round = &open.round;
        // A consumer that pulls gets the announcement together with the first changes.
        let outlet = app.receives_at.outlet();
        let (pulled, handed) = (outlet == Outlet::Claim, outlet == Outlet::HandOver);
        let is_first = round.spec.kind == RoundKind::Resync && open.snapshot.untouched;
        let owes_resync = is_first && !handed && app.delivery.resync && !open.snapshot.announced;
        let stage = if owes_resync && !pulled { Stage::noticing(Action::Resync, 0) } else { Stage::Flowing };
        let lane = Lane::new(LaneStart {
            round: round.clone(),
            order: if pulled { OrderMode::Strict } else { app.delivery.order },
            max_in_flight: usize::try_from(app.delivery.max_in_flight).unwrap_or(1),
            batch: app.delivery.batch.filter(|_| !pulled),
            streak: open.snapshot.streak,
            grace_until: open.snapshot.is_new.then(|| open.snapshot.deliver_after.after(REGISTRATION_GRACE)),
            acknowledged: open.snapshot.acknowledged,
            blocked: open.snapshot.state == CursorState::Blocked,
            head_attempts: open.snapshot.head_attempts,
            above: open.snapshot.above.clone(),
            // The store skips a change that it would make a task of.
            skip: (open.snapshot.skip_head && !handed).then_some(letter),
        });
        let facts = LaneFacts {
            remote: open.snapshot.remote.clone(),
            repository: open.snapshot.facts.clone(),
            round: open.round.clone(),
            commit: open.commit.clone(),
            inline_max: handed.then_some(INLINE_MAX),
        };
        Self {
            open: Arc::new(open),
            facts: Arc::new(facts),
            lane,
            stage,
            owes_resync,
            owes_synced: app.delivery.synced && !handed,
            end_told: false,
            reload: None,
            writing: false,
            write_after: None,
            unwritten: 0,
            settle_after: None,
            queued: false,
            timer: None,
            halt: Halt::default(),
            claim: None,
            unacknowledged: Vec::new(),
            asked: Some(Instant::now()),
            handing: Handing::Idle,
            last_handed: None,
        }
    }

    /// Tries a blocked lane now, without the wait for the next probe: an app or operator says that the
    /// receiver works.
    pub(super) fn try_now(&mut self, now: Instant) {
        self.lane.try_now(now);
        if let Stage::Noticing { until: Some(until), .. } = &mut self.stage
            && self.lane.is_blocked()
        {
            *until = (*until).min(now);
        }
    }

    /// The facts that all deliveries of the lane share.
    pub(super) fn facts(&self) -> Arc<LaneFacts> {
        self.facts.clone()
    }

    /// The place of the lane's attempts in a trace.
    pub(super) fn trace(&self, tracer: &Arc<dyn Tracer>) -> Trace {
        let (place, from) = (self.open.place, self.open.round.position);
        Trace { tracer: tracer.clone(), place, to: from + TRACED }
    }

    /// Ends the pipelines of the lane after the attempt that is in flight.
    pub(super) fn halt(&mut self) {
        std::mem::take(&mut self.halt).call();
    }

    /// Stops sending for now, and drops rendered deliveries.
    pub(super) fn hold_back(&mut self) {
        self.halt();
        self.lane.release();
    }

    /// The rows of this lane changed: sending stops, and the rows are read again when nothing is in flight.
    pub(super) fn reload(&mut self) {
        self.reopen_after(Duration::ZERO);
    }

    pub(super) fn reopen_after(&mut self, wait: Duration) {
        self.hold_back();
        self.reload = Some(self.reload.unwrap_or_default().max(wait));
    }

    /// Whether nothing of the lane is in flight, so that it may be replaced.
    pub(super) fn is_still(&self) -> bool {
        let noticing = matches!(self.stage, Stage::Finishing | Stage::Noticing { flying: true, .. });
        let is_handing = matches!(self.handing, Handing::Busy(_));
        self.lane.is_still() && !noticing && !self.writing && !is_handing
    }

    /// The endpoint is well again: waits that were its fault end now.
    pub(super) fn on_endpoint_recovered(&mut self, now: Instant) {
        self.lane.on_endpoint_recovered(now);
        if let Stage::Noticing { until, .. } = &mut self.stage {
            *until = None;
        }
    }

    /// Whether the lane could send a probe of its endpoint, regardless of its own waits.
    pub(super) fn is_probeable(&self, now: Instant) -> bool {
        let ready = match self.stage {
            Stage::Noticing { flying, .. } => !flying,
            Stage::Flowing => self.lane.is_probeable(now),
            Stage::Finishing => false,
        };
        ready && self.reload.is_none()
    }

    /// Whether the attempt at this position repeats one that failed.
    pub(super) fn is_retry(&self, position: u64) -> bool {
        self.lane.tries(position) > 0
    }

    /// Whether the lane's notice may be sent now: `None` if not, otherwise whether it was sent before.
    pub(super) fn notice_due(&self, now: Instant) -> Option<bool> {
        match self.stage {
            Stage::Noticing { flying: false, until, tries, .. } if until.is_none_or(|until| until <= now) => {
                Some(tries > 0)
            }
            _ => None,
        }
    }

    /// If there is nothing of it in flight or to be written, and nothing to send for a while: until
    /// when.
    pub(super) fn rests_until(&mut self, now: Instant) -> Option<Instant> {
        let is_busy = !self.is_still() || self.lane.owes_effects() || self.reload.is_some() || self.queued;
        let until = match self.stage {
            _ if is_busy => None,
            Stage::Flowing if matches!(self.handing, Handing::Full) => Some(now + PENDING_CHECK),
            Stage::Flowing if self.lane.next_sendable(now).is_none() => self.lane.waits_until(now),
            Stage::Noticing { flying: false, until, .. } => until,
            _ => None,
        };
        until.filter(|until| *until >= now + REST)
    }

    fn order(&self, position: u64, change: Change, unobtainable: Vec<ObjectId>) -> DeliveryOrder {
        self.open.order(&self.facts, position, change, unobtainable)
    }
}

impl OpenLane {
    /// The delivery of a change of the lane.
    pub(super) fn order(
        &self,
        lane: &Arc<LaneFacts>,
        position: u64,
        change: Change,
        unobtainable: Vec<ObjectId>,
    ) -> DeliveryOrder {
        let renamed_from = change
            .new
            .filter(|_| change.old.is_none())
            .and_then(|entry| self.renames.get(&entry.blob).cloned());
        let id = DeliveryId::of(&lane.round.cursor, lane.round.number, &change);
        DeliveryOrder { id, lane: lane.clone(), change, renamed_from, position, unobtainable }
    }
}

impl DelivererState {
    pub(super) fn running(&mut self, cursor: &CursorId) -> Option<(&mut RunningLane, Generation)> {
        let lane = self.lanes.get_mut(cursor)?;
        let generation = lane.generation;
        match &mut lane.slot {
            Slot::Running(running) => Some((running, generation)),
            _ => None,
        }
    }

    /// Starts all work that a lane needs now.
    pub(super) fn drive(&mut self, cursor: &CursorId) {
        let (draining, moment) = (self.draining, self.moment());
        let Some((running, generation)) = self.running(cursor) else { return };
        running.end_claim_at(moment.instant);
        self.write(cursor, generation, moment);
        self.confirm(cursor);
        let Some((running, _)) = self.running(cursor) else { return };
        let owes = running.lane.owes_effects();
        let stands = running.open.hold.stands();
        if running.reload.is_none() && !stands {
            // Another replica works on this repository now, or is about to.
            running.revoke_claim();
            running.reload();
        }
        if let Some(wait) = running.reload {
            match running.is_still() && !owes {
                true if !draining => self.replace(cursor, wait),
                // The shard is given away as soon as no lane holds it.
                true if !stands => drop(self.lanes.remove(cursor)),
                _ => {}
            }
            return;
        }
        if draining {
            return;
        }
        if running.stage == Stage::Flowing && running.lane.is_finished() {
            // Changes of the cursor's state are written before the round ends.
            if !owes && !running.writing {
                self.finish(cursor, generation);
            }
            return;
        }
        match self.outlet {
            CurrentOutlet::Attempt(_) => self.drive_attempts(cursor, generation, moment.instant),
            CurrentOutlet::Claim => self.drive_claims(cursor, generation, moment.instant),
            CurrentOutlet::HandOver => self.drive_hand_over(cursor, generation),
            // The app is not served: its lanes are being replaced.
            CurrentOutlet::Closed => {}
        }
    }

    /// Writes the changes of the cursor's state one by one, and then the settled prefix of the lane.
    fn write(&mut self, cursor: &CursorId, generation: Generation, now: Moment) {
        let draining = self.draining;
        let Some((running, _)) = self.running(cursor) else { return };
        let may = !running.writing && running.write_after.is_none_or(|after| after <= now.instant);
        if let Some(effect) = running.lane.want_effect().filter(|_| may).cloned() {
            running.writing = true;
            self.write_effect(cursor, generation, effect);
        }
        let Some((running, _)) = self.running(cursor) else { return };
        if running.settle_after.is_some_and(|after| after > now.instant) {
            return;
        }
        let ends = draining || running.reload.is_some();
        if let Some(settlement) = running.lane.want_settle(now.wall, ends) {
            let above: u64 = settlement.above.iter().map(|range| range.end - range.start).sum();
            let changes = settlement.position.saturating_sub(running.lane.settled()) + above;
            let parked: Vec<_> = settlement.parked.iter().map(|park| park.reason).collect();
            let (store, meter) = (running.open.store.clone(), self.context.meter.clone());
            let app = self.id.clone();
            let settle = async move {
                let settled = in_time(store.settle(settlement)).await;
                if matches!(settled, Ok(true)) {
                    meter.settled(&app, changes.saturating_sub(parked.len() as u64), &parked);
                }
                Step::Settled(settled)
            };
            self.step(cursor, generation, settle);
        }
    }

    /// Reads the rows of a lane again after `wait`, or drops the lane if its sink is not served.
    fn replace(&mut self, cursor: &CursorId, wait: Duration) {
        self.leave_lines(cursor);
        if !self.outlet.is_open() {
            self.forget(cursor);
        } else if wait.is_zero() {
            self.open(cursor);
        } else {
            self.wait(cursor, wait);
        }
    }

    /// Reads the next changes and contents that the lane wants, as a task.
    pub(super) fn read(&mut self, cursor: &CursorId, generation: Generation) {
        let Some((running, _)) = self.running(cursor) else { return };
        if let Some((position, before)) = running.lane.want_read() {
            let open = running.open.clone();
            let seek = before.map_or(Seek::Position(position), Seek::After);
            let (context, app) = (self.context.clone(), self.id.clone());
            self.step(cursor, generation, async move {
                let (remote, spec) = (&open.snapshot.remote, &open.round.spec);
                let window = context.git.window(remote, spec, &seek, CHANGES_PER_READ);
                let changes = context.in_read_turn(&app, window).await;
                if let Ok(changes) = &changes {
                    context.transport.prefetch(remote, spec, changes).await;
                }
                Step::Read(changes)
            });
        }
    }

    /// Renders the next deliveries, at most `most`.
    pub(super) fn render(&mut self, cursor: &CursorId, generation: Generation, most: usize) {
        let Some((running, _)) = self.running(cursor) else { return };
        let wanted = running.lane.want_prepare(Instant::now(), most);
        let Some(head) = wanted.first().map(|(position, ..)| *position) else { return };
        let orders: Arc<[DeliveryOrder]> = wanted
            .into_iter()
            .map(|(position, change, unobtainable)| running.order(position, change, unobtainable))
            .collect();
        let (context, app) = (self.context.clone(), self.id.clone());
        self.step(cursor, generation, async move {
            Step::Prepared(head, rendering::render(&context, &app, orders).await)
        });
    }

    /// Arms a timer for a lane that may go on later.
    pub(super) fn arm_due(&mut self, cursor: &CursorId, now: Instant) {
        let Some((running, _)) = self.running(cursor) else { return };
        let due = running.lane.next_due(now);
        let arm = due.filter(|due| running.timer.is_none_or(|timer| timer <= now || *due < timer));
        running.timer = arm.or(running.timer);
        if let Some(due) = arm {
            let cursor = cursor.clone();
            self.mailbox
                .send_after(due.saturating_duration_since(now), move || DelivererMessage::Due(cursor));
        }
    }

    /// Spawns a task whose result is a step of this run of the lane.
    pub(super) fn step(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        work: impl Future<Output = Step> + Send + 'static,
    ) {
        let cursor = cursor.clone();
        self.tasks
            .spawn(&self.mailbox, work, move |result| DelivererMessage::Step(cursor, generation, result));
    }
}
