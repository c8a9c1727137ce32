//! Lanes coming and going: opened by a task, waiting for another try, forgotten when nothing is left
//! to do.

use std::time::Duration;

use tidings_entity::id::{CursorId, DeadLetterId};
use tokio::time::Instant;
use tracing::warn;

use super::{
    DelivererMessage, DelivererState, Generation, IDLE_END, Lane, Slot,
    opening::{self, Opening, OpeningError},
    running::RunningLane,
};
use crate::ports::StoreError;

/// The wait after a lane could not be opened; doubled with each failure in a row.
const REOPEN_FIRST: Duration = Duration::from_millis(500);
/// The longest of those waits.
const REOPEN_LAST: Duration = Duration::from_secs(60);

impl DelivererState {
    pub(super) fn waiting_lanes(&self) -> Vec<CursorId> {
        let waiting = |lane: &Lane| matches!(lane.slot, Slot::Waiting { .. });
        self.lanes.iter().filter(|(_, lane)| waiting(lane)).map(|(cursor, _)| cursor.clone()).collect()
    }

    /// Starts the task that opens a lane.
    pub(super) fn open(&mut self, cursor: &CursorId) {
        if self.draining || !self.is_served() {
            return;
        }
        self.generation += 1;
        let generation = self.generation;
        let failures = self.lanes.get(cursor).map_or(0, |lane| lane.failures);
        self.idle_since = None;
        self.lanes
            .insert(cursor.clone(), Lane { slot: Slot::Opening { again: false }, generation, failures });
        let (context, opened) = (self.context.clone(), cursor.clone());
        let reported = cursor.clone();
        self.tasks.spawn(&self.post, async move { opening::open(&context, &opened).await }, move |result| {
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
        let again = matches!(lane.slot, Slot::Opening { again: true });
        if result.is_ok() {
            lane.failures = 0;
        }
        match result {
            Ok(Opening::Gone) => self.forget(cursor),
            Ok(_) if again => self.open(cursor),
            Ok(Opening::Open(open)) => {
                let Some(app) = self.app.clone() else { return };
                let letter = DeadLetterId::new(self.context.random.ulid(self.context.now()));
                lane.slot = Slot::Running(Box::new(RunningLane::new(*open, &app, letter)));
                self.drive(cursor);
            }
            Ok(Opening::Again) => self.open(cursor),
            Ok(Opening::Later(wait)) => self.wait(cursor, wait),
            Ok(Opening::Idle) => self.forget(cursor),
            Err(OpeningError::Store(StoreError::Fenced)) => {
                self.context.give_up("another process took over this database");
            }
            Err(reason) => {
                lane.failures += 1;
                let wait = (REOPEN_FIRST * 2_u32.pow(lane.failures.min(16))).min(REOPEN_LAST);
                warn!(cursor.id = %cursor, "the lane of {cursor} could not be opened, next try in {wait:?}: {reason}");
                self.wait(cursor, wait);
            }
        }
    }

    pub(super) fn wait(&mut self, cursor: &CursorId, wait: Duration) {
        if let Some(lane) = self.lanes.get_mut(cursor) {
            lane.slot = Slot::Waiting { until: Instant::now() + wait };
            let due = cursor.clone();
            self.post.send_after(wait, move || DelivererMessage::Due(due));
        }
    }

    pub(super) fn forget(&mut self, cursor: &CursorId) {
        self.lanes.remove(cursor);
        self.turns.retain(|turn| turn != cursor);
        if self.lanes.is_empty() {
            self.become_idle();
        }
    }

    pub(super) fn become_idle(&mut self) {
        if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
            self.post.send_after(IDLE_END, || DelivererMessage::EndIfIdle);
        }
    }

    pub(super) fn on_due(&mut self, cursor: &CursorId) {
        let now = Instant::now();
        match self.lanes.get(cursor).map(|lane| &lane.slot) {
            Some(Slot::Waiting { until }) if *until <= now => self.open(cursor),
            Some(Slot::Running(_)) => self.drive(cursor),
            _ => {}
        }
    }
}
