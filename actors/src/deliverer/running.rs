//! A lane at work: carries out what the pure [`Lane`] asks for, as tasks of the deliverer. What
//! they bring comes back through `answers` and `notices`.

use std::{sync::Arc, time::Duration};

use tidings_entity::{
    id::{CursorId, DeadLetterId, ObjectId},
    kind::{CursorState, LetterStatus, RoundKind},
};
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use super::{
    DelivererMessage, DelivererState, Generation, Slot, Step,
    lane::{CHANGES_PER_READ, Lane, LaneStart, Moment},
    opening::{self, OpenLane},
};
use crate::{
    context::{Context, in_time},
    ports::{App, DeliveryOrder, GitError, Parcel, PrepareError, Seek},
    round::Change,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// `/resync` must be acknowledged first.
    Announcing {
        tries: u32,
        since: Option<Instant>,
        until: Option<Instant>,
        flying: bool,
    },
    Flowing,
    Finishing,
}

/// A lane with its rows and what is on its way besides changes.
pub(super) struct RunningLane {
    pub(super) open: Arc<OpenLane>,
    pub(super) lane: Lane,
    pub(super) stage: Stage,
    reload: Option<Duration>,
    /// A consequence for the cursor is being written, or waits after a failure to.
    pub(super) writing: bool,
    pub(super) write_after: Option<Instant>,
    queued: bool,
    timer: Option<Instant>,
}

impl RunningLane {
    pub(super) fn new(open: OpenLane, app: &App) -> Self {
        let round = &open.round;
        let announce = round.spec.kind == RoundKind::Resync && round.position == 0 && app.delivery.resync;
        let stage = if announce {
            Stage::Announcing { tries: 0, since: None, until: None, flying: false }
        } else {
            Stage::Flowing
        };
        let lane = Lane::new(LaneStart {
            round: round.clone(),
            order: app.delivery.order,
            max_in_flight: usize::try_from(app.delivery.max_in_flight).unwrap_or(1),
            streak: open.snapshot.streak,
            streak_letters: streak_letters(&open),
            acknowledged: open.snapshot.acknowledged,
            blocked: open.snapshot.state == CursorState::Blocked,
            head_attempts: open.snapshot.head_attempts,
        });
        Self {
            open: Arc::new(open),
            lane,
            stage,
            reload: None,
            writing: false,
            write_after: None,
            queued: false,
            timer: None,
        }
    }

    /// The rows behind this lane changed: stop sending, read them again when nothing is on its way.
    pub(super) fn reload(&mut self) {
        self.reload.get_or_insert(Duration::ZERO);
    }

    pub(super) fn reopen_after(&mut self, wait: Duration) {
        self.reload = Some(self.reload.unwrap_or_default().max(wait));
    }

    /// Whether nothing of it is on its way, so that it may be replaced.
    pub(super) fn is_still(&self) -> bool {
        let noticing = matches!(self.stage, Stage::Finishing | Stage::Announcing { flying: true, .. });
        self.lane.is_still() && !noticing && !self.writing
    }

    /// The endpoint is well again: waits that were its fault end now.
    pub(super) fn on_endpoint_recovered(&mut self, now: Instant) {
        self.lane.on_endpoint_recovered(now);
        if let Stage::Announcing { until, .. } = &mut self.stage {
            *until = None;
        }
    }

    /// Whether it could go as a probe of its endpoint, whatever its own waits say.
    fn is_probeable(&self) -> bool {
        let ready = match self.stage {
            Stage::Announcing { flying, .. } => !flying,
            Stage::Flowing => self.lane.probe_head().is_some(),
            Stage::Finishing => false,
        };
        ready && self.reload.is_none()
    }

    fn order(&self, position: u64, change: Change, unobtainable: Vec<ObjectId>) -> DeliveryOrder {
        let round = &self.open.round;
        let renamed_from = change
            .new
            .filter(|_| change.old.is_none())
            .and_then(|entry| self.open.renames.get(&entry.blob).cloned());
        DeliveryOrder {
            id: crate::round::DeliveryId::of(&round.cursor, round.number, &change),
            remote: self.open.snapshot.remote.clone(),
            repository: self.open.snapshot.facts.clone(),
            round: round.clone(),
            commit: self.open.commit.clone(),
            change,
            renamed_from,
            position,
            unobtainable,
        }
    }
}

/// The letters of the current streak: the newest ones, because their ids rise.
fn streak_letters(open: &OpenLane) -> Vec<DeadLetterId> {
    let open_ones = open.snapshot.letters.iter().filter(|(_, status)| *status == LetterStatus::Open);
    let mut ids: Vec<DeadLetterId> = open_ones.map(|(letter, _)| letter.id.clone()).collect();
    ids.sort_unstable();
    let streak = usize::try_from(open.snapshot.streak).unwrap_or(usize::MAX);
    ids.split_off(ids.len().saturating_sub(streak))
}

/// Renders a delivery, fetching by id what the mirror lacks. [`GitError::Unobtainable`] comes only
/// after two definitive refusals.
async fn prepare(context: Context, order: DeliveryOrder) -> Result<Parcel, PrepareError> {
    // New content, old content: two blobs are the most that one delivery reads.
    for _ in 0..2 {
        match context.transport.prepare(&order).await {
            Err(PrepareError::Git(GitError::Missing(blob))) => {
                opening::fetch(&context, &order.remote, blob).await?;
            }
            other => return other,
        }
    }
    context.transport.prepare(&order).await
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

    /// Starts whatever a lane wants done now.
    pub(super) fn drive(&mut self, cursor: &CursorId) {
        let (draining, moment) = (self.draining, self.moment());
        let Some((_, generation)) = self.running(cursor) else { return };
        self.write(cursor, generation, moment);
        let Some((running, _)) = self.running(cursor) else { return };
        let owes = running.lane.owes_effects();
        if let Some(wait) = running.reload {
            if running.is_still() && !owes && !draining {
                self.replace(cursor, wait);
            }
            return;
        }
        if draining {
            return;
        }
        match running.stage {
            Stage::Announcing { until, flying, .. } => {
                if !flying && until.is_none_or(|until| until <= moment.instant) {
                    self.announce(cursor, generation);
                }
            }
            // What the round did to its cursor is written before it ends.
            Stage::Flowing if running.lane.is_finished() => {
                if !owes && !running.writing {
                    self.finish(cursor, generation);
                }
            }
            Stage::Flowing => {
                self.feed(cursor, generation, moment.instant);
                self.enqueue(cursor, moment.instant);
                if self.gate.is_open() { self.send_probe() } else { self.flow() }
            }
            Stage::Finishing => {}
        }
    }

    /// Writes, one after another, what the lane did to its cursor, and then its settled prefix.
    fn write(&mut self, cursor: &CursorId, generation: Generation, now: Moment) {
        let Some((running, _)) = self.running(cursor) else { return };
        let may = !running.writing && running.write_after.is_none_or(|after| after <= now.instant);
        if let Some(effect) = running.lane.want_effect().filter(|_| may).cloned() {
            running.writing = true;
            self.write_effect(cursor, generation, effect);
        }
        let Some((running, _)) = self.running(cursor) else { return };
        if let Some(settlement) = running.lane.want_settle(now.wall) {
            let store = self.context.store.clone();
            let settle = async move { Step::Settled(in_time(store.settle(settlement)).await) };
            self.step(cursor, generation, settle);
        }
    }

    /// Reads a lane's rows again after `wait`, or drops it where there is nobody to send to.
    fn replace(&mut self, cursor: &CursorId, wait: Duration) {
        self.turns.retain(|turn| turn != cursor);
        if self.endpoint.is_none() {
            self.forget(cursor);
        } else if wait.is_zero() {
            self.open(cursor);
        } else {
            self.wait(cursor, wait);
        }
    }

    /// Reads and renders ahead.
    fn feed(&mut self, cursor: &CursorId, generation: Generation, now: Instant) {
        let Some((running, _)) = self.running(cursor) else { return };
        if let Some((position, before)) = running.lane.want_read() {
            let open = running.open.clone();
            let seek = before.map_or(Seek::Position(position), Seek::After);
            let git = self.context.git.clone();
            self.step(cursor, generation, async move {
                let (remote, spec) = (&open.snapshot.remote, &open.round.spec);
                Step::Read(git.window(remote, spec, &seek, CHANGES_PER_READ).await)
            });
        }
        let Some((running, _)) = self.running(cursor) else { return };
        let wanted = running.lane.want_prepare(now);
        let orders: Vec<DeliveryOrder> = wanted
            .into_iter()
            .map(|(position, change, unobtainable)| running.order(position, change, unobtainable))
            .collect();
        for order in orders {
            let context = self.context.clone();
            self.step(cursor, generation, async move {
                let position = order.position;
                Step::Prepared(position, Box::new(prepare(context, order).await))
            });
        }
    }

    /// Puts a lane that may send into the line, and arms a timer for one that may later.
    fn enqueue(&mut self, cursor: &CursorId, now: Instant) {
        let Some((running, _)) = self.running(cursor) else { return };
        let sendable = running.lane.next_sendable(now).is_some();
        let due = running.lane.next_due().filter(|due| *due > now);
        let arm = due.filter(|due| running.timer.is_none_or(|timer| timer <= now || *due < timer));
        running.timer = arm.or(running.timer);
        if sendable && !std::mem::replace(&mut running.queued, true) {
            self.turns.push_back(cursor.clone());
        }
        if let Some(due) = arm {
            let cursor = cursor.clone();
            self.post.send_after(due.saturating_duration_since(now), move || DelivererMessage::Due(cursor));
        }
    }

    /// Sends, lane by lane in turn, as much as the endpoint takes now.
    pub(super) fn flow(&mut self) {
        let now = Instant::now();
        while self.gate.admits(now) && !self.draining && self.endpoint.is_some() {
            let Some(cursor) = self.turns.pop_front() else { return };
            let Some((running, _)) = self.running(&cursor) else { continue };
            running.queued = false;
            if running.reload.is_some() || running.stage != Stage::Flowing {
                continue;
            }
            let Some(position) = running.lane.next_sendable(now) else { continue };
            self.launch(&cursor, position, now);
            self.enqueue(&cursor, now);
            if let Some((running, generation)) = self.running(&cursor)
                && running.reload.is_none()
            {
                self.feed(&cursor, generation, now);
            }
        }
        let held = self.gate.held_until().filter(|until| *until > now);
        if let Some(until) =
            held.filter(|until| self.flow_armed.is_none_or(|armed| armed <= now || *until < armed))
        {
            self.flow_armed = Some(until);
            self.post.send_after(until.saturating_duration_since(now), || DelivererMessage::Flow);
        }
    }

    /// Sends the one permitted probe from the next lane whose head can go.
    pub(super) fn send_probe(&mut self) {
        if self.draining {
            return;
        }
        let last = self.last_probe.clone();
        let after = self.lanes.keys().filter(|cursor| last.as_ref().is_none_or(|last| *cursor > last));
        let wrapped = self.lanes.keys().filter(|cursor| last.as_ref().is_some_and(|last| *cursor <= last));
        let is_probeable = |cursor: &&CursorId| match self.lanes.get(*cursor).map(|lane| &lane.slot) {
            Some(Slot::Running(running)) => running.is_probeable(),
            _ => false,
        };
        let Some(cursor) = after.chain(wrapped).find(is_probeable).cloned() else { return };
        let Some((running, generation)) = self.running(&cursor) else { return };
        match running.lane.probe_head() {
            _ if matches!(running.stage, Stage::Announcing { .. }) => self.announce(&cursor, generation),
            Some(position) if self.gate.take_probe() => self.launch(&cursor, position, Instant::now()),
            _ => return,
        }
        self.last_probe = Some(cursor);
    }

    fn launch(&mut self, cursor: &CursorId, position: u64, now: Instant) {
        let Some(endpoint) = self.endpoint.clone() else { return };
        let Some((running, generation)) = self.running(cursor) else { return };
        let Some((parcel, _)) = running.lane.launch(position, now) else { return };
        self.gate.enter();
        let transport = self.context.transport.clone();
        let span = info_span!(
            "delivery.attempt",
            app.id = %endpoint.app,
            cursor.id = %cursor,
            delivery.id = %parcel.id,
            delivery.position = position
        );
        let attempt = async move { Step::Attempted(position, transport.send(&endpoint, &parcel).await) };
        self.step(cursor, generation, attempt.instrument(span));
    }

    /// Spawns a task whose result is a step of this run of the lane.
    pub(super) fn step(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        work: impl Future<Output = Step> + Send + 'static,
    ) {
        let cursor = cursor.clone();
        self.tasks.spawn(&self.post, work, move |result| DelivererMessage::Step(cursor, generation, result));
    }
}
