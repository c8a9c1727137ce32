//! Lanes coming and going: opened by a task, waiting for another try, forgotten when nothing is left
//! to do.

pub(super) mod waiting_cursors;

use std::time::Duration;

use tidings_entity::id::{CursorId, DeadLetterId};
use tokio::time::Instant;
use tracing::warn;

use super::{
    Changed, DelivererMessage, DelivererState, Generation, IDLE_END, Lane, Slot,
    opening::{self, Opening, OpeningError},
    outlets::handed::Handing,
    running::RunningLane,
};
use crate::{model::task::CANCEL_GRACE, ports::StoreError};

/// The wait after a lane could not be opened; doubled with each failure in a row.
const REOPEN_FIRST: Duration = Duration::from_millis(500);
/// The longest wait before a lane is opened again.
const REOPEN_LAST: Duration = Duration::from_secs(60);
/// The wait for claims of a round that ended early, in case the word of their end is lost: a claim has ended
/// by then.
const CLAIMS_END: Duration = CANCEL_GRACE;

impl DelivererState {
    pub(super) fn waiting_lanes(&self) -> Vec<CursorId> {
        let waiting = |lane: &Lane| matches!(lane.slot, Slot::Waiting { .. });
        self.lanes.iter().filter(|(_, lane)| waiting(lane)).map(|(cursor, _)| cursor.clone()).collect()
    }

    /// Opens lanes for cursors that have none; cursors beyond the app's limit of lanes wait.
    pub(super) fn admit(&mut self, cursors: impl IntoIterator<Item = CursorId>) {
        if self.draining || !self.outlet.is_open() {
            return;
        }
        cursors.into_iter().for_each(|cursor| self.waiting_cursors.put(cursor));
        if self.lanes.len() >= self.context.policy.app_lanes {
            self.make_room();
        }
        self.fill();
    }

    /// Opens lanes for cursors that wait for room.
    pub(super) fn fill(&mut self) {
        while self.lanes.len() < self.context.policy.app_lanes
            && !self.draining
            && let Some(cursor) = self.waiting_cursors.take()
        {
            if !self.lanes.contains_key(&cursor) {
                self.open(&cursor);
            }
        }
    }

    /// Whether there is nothing to do and nothing to wait for.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.waiting_cursors.is_empty()
    }

    /// Ends lanes that can do nothing for a while, so that waiting cursors get their room. Of an ended lane
    /// only its rows and the moment to open it again remain.
    fn make_room(&mut self) {
        let now = Instant::now();
        if self.waiting_cursors.nobody_waits() || self.gate.is_closed(now) || self.draining {
            return;
        }
        self.forget_unasked(Duration::ZERO);
        let rests = |lane: &mut Lane| match &mut lane.slot {
            Slot::Waiting { until, .. } => Some(*until).filter(|until| *until > now),
            Slot::Running(running) => running.rests_until(now),
            Slot::Opening { .. } => None,
        };
        let resting = self.lanes.iter_mut().filter_map(|(cursor, lane)| Some((cursor.clone(), rests(lane)?)));
        let resting: Vec<(CursorId, Instant)> = resting.collect();
        for (cursor, until) in resting {
            self.set_aside(&cursor, until);
        }
    }

    /// Sets this lane aside if it has nothing to send and another cursor waits for room.
    pub(super) fn make_room_of(&mut self, cursor: &CursorId, now: Instant) {
        if self.waiting_cursors.nobody_waits() || self.gate.is_closed(now) || self.draining {
            return;
        }
        if let Some(until) = self.running(cursor).and_then(|(running, _)| running.rests_until(now)) {
            self.set_aside(cursor, until);
        }
    }

    fn set_aside(&mut self, cursor: &CursorId, until: Instant) {
        let waits_for_tasks = self.lanes.remove(cursor).is_some_and(|lane| match lane.slot {
            Slot::Running(running) => matches!(running.handing, Handing::Full),
            Slot::Waiting { for_claims, .. } => for_claims,
            Slot::Opening { .. } => false,
        });
        self.leave_lines(cursor);
        self.waiting_cursors.rest(cursor.clone(), until, waits_for_tasks);
        let due = cursor.clone();
        let wait = until.saturating_duration_since(Instant::now());
        self.mailbox.send_after(wait, move || DelivererMessage::Due(due));
        self.fill();
    }

    /// Gives up the places of a lane in all queues for turns.
    pub(super) fn leave_lines(&mut self, cursor: &CursorId) {
        self.turns.retain(|turn| turn != cursor);
        self.unpaid.retain(|turn| turn != cursor);
    }

    /// Starts the task that opens a lane.
    pub(super) fn open(&mut self, cursor: &CursorId) {
        if self.draining || !self.outlet.is_open() {
            return;
        }
        self.generation += 1;
        let generation = self.generation;
        let before = self.lanes.get(cursor).map(|lane| (lane.failures, lane.misfits));
        let (failures, misfits) = before.unwrap_or_default();
        self.idle_since = None;
        self.lanes.insert(
            cursor.clone(),
            Lane { slot: Slot::Opening { changed: Changed::Nothing }, generation, failures, misfits },
        );
        let (context, sink, opened) = (self.context.clone(), self.sink.clone(), cursor.clone());
        let reported = cursor.clone();
        let opening = async move { opening::open(&context, &sink, &opened).await };
        self.tasks.spawn(&self.mailbox, opening, move |result| {
            DelivererMessage::Opened(reported, generation, result)
        });
    }

    pub(super) fn on_opened(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        result: Result<Opening, OpeningError>,
    ) {
        let Some(lane) = self.lanes.get_mut(cursor).filter(|lane| lane.generation == generation) else {
            return;
        };
        let changed = match lane.slot {
            Slot::Opening { changed } => changed,
            Slot::Waiting { .. } | Slot::Running(_) => Changed::Nothing,
        };
        if result.is_ok() {
            lane.failures = 0;
        }
        if matches!(result, Ok(Opening::Later(_) | Opening::Claimed | Opening::Idle)) {
            // There is nothing to hand over now: the misfits before were about a round that ended.
            lane.misfits = 0;
        }
        match result {
            Ok(Opening::Gone) => self.forget(cursor),
            Ok(Opening::Open(open)) if changed < Changed::Rows => {
                let Some(app) = self.app.clone() else { return };
                let letter = DeadLetterId::new(self.context.random.ulid(self.context.now()));
                lane.slot = Slot::Running(Box::new(RunningLane::new(*open, &app, letter)));
                self.drive(cursor);
            }
            Ok(Opening::Open(_) | Opening::Again) => self.open(cursor),
            // The rows may have been read before the last claim ended.
            Ok(Opening::Claimed) if changed > Changed::Nothing => self.open(cursor),
            Ok(_) if changed > Changed::Room => self.open(cursor),
            Ok(Opening::Later(wait)) => self.wait(cursor, wait),
            Ok(Opening::Claimed) => self.wait_until(cursor, CLAIMS_END, true),
            Ok(Opening::Idle) => self.forget(cursor),
            Err(OpeningError::Store(StoreError::Fenced)) => {
                self.context.give_up("another process took over this database");
            }
            Err(reason) => {
                lane.failures += 1;
                let wait = (REOPEN_FIRST * 2_u32.pow(lane.failures.min(16))).min(REOPEN_LAST);
                warn!(
                    cursor.id = %cursor,
                    "the lane of {cursor} could not be opened, next try in {wait:?}: {reason}"
                );
                self.wait(cursor, wait);
            }
        }
    }

    pub(super) fn wait(&mut self, cursor: &CursorId, wait: Duration) {
        self.wait_until(cursor, wait, false);
    }

    /// Opens the lane again after this wait, or (`for_claims`) once tasks of the app were claimed or ended.
    fn wait_until(&mut self, cursor: &CursorId, wait: Duration, for_claims: bool) {
        if let Some(lane) = self.lanes.get_mut(cursor) {
            lane.slot = Slot::Waiting { until: Instant::now() + wait, for_claims };
            let due = cursor.clone();
            self.mailbox.send_after(wait, move || DelivererMessage::Due(due));
        }
        self.make_room();
    }

    pub(super) fn forget(&mut self, cursor: &CursorId) {
        self.lanes.remove(cursor);
        self.leave_lines(cursor);
        self.fill();
        if self.is_idle() {
            self.become_idle();
        }
    }

    pub(super) fn become_idle(&mut self) {
        if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
            self.mailbox.send_after(IDLE_END, || DelivererMessage::EndIfIdle);
        }
    }

    pub(super) fn on_due(&mut self, cursor: &CursorId) {
        let now = Instant::now();
        match self.lanes.get(cursor).map(|lane| &lane.slot) {
            Some(Slot::Waiting { until, .. }) if *until <= now => self.open(cursor),
            Some(Slot::Running(_)) => self.drive(cursor),
            None if self.waiting_cursors.wake(cursor, now) => self.fill(),
            _ => {}
        }
    }
}
