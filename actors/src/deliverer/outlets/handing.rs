//! The outlet `HandOver` (the sink `tasks`): the changes of a round become tasks of a queue, and the end of a
//! task settles its change. Round, order, ids and dead letters are those of every other sink; the only
//! difference is that settlements are written by the ends of tasks and not by the lane.
//!
//! A lane hands over as many changes as its window has room for, a batch at a time: it asks the store for the
//! room, reads and renders those changes, and gives them to the store, which makes tasks of them in one
//! transaction. Where there is no room the lane waits for word that tasks of the app were claimed or ended,
//! and looks again with each look at the rows. It keeps no bodies meanwhile.
//!
//! A crash loses nothing: what is handed over is rows, and what is not is handed over by the next life of the
//! lane.

use std::time::Duration;

use tidings_entity::id::CursorId;
use tokio::time::Instant;
use tracing::warn;

use super::handed::{Batch, HandOverError, HandedOver, Handing};
use crate::{
    deliverer::{
        Changed, CurrentOutlet, DelivererMessage, DelivererState, Generation, Slot, Step,
        running::{RunningLane, Stage},
    },
    ports::StoreError,
};

/// How long the deliverer waits for further word of room before it looks.
const GATHER: Duration = Duration::from_millis(10);
/// The wait before a lane is opened again whose batch failed.
const REOPEN: Duration = Duration::from_secs(1);
/// The longest wait before a lane is opened again whose rows do not fit what it wants to hand over.
const REOPEN_LAST: Duration = Duration::from_secs(60);
/// The shortest wait of a cursor without a lane that waits for tasks.
const REST_FIRST: Duration = Duration::from_secs(1);
/// What that wait grows by with each cursor that rests: opening a lane reads its rows and its trees.
const REST_EACH: Duration = Duration::from_millis(10);

impl DelivererState {
    /// Hands over the next changes of a lane, if there may be room and no batch is under way.
    pub(in crate::deliverer) fn drive_hand_over(&mut self, cursor: &CursorId, generation: Generation) {
        let (context, app) = (self.context.clone(), self.id.clone());
        let Some((running, _)) = self.running(cursor) else { return };
        if running.stage != Stage::Flowing || !matches!(running.handing, Handing::Idle) {
            return;
        }
        running.handing = Handing::Busy(false);
        let batch =
            Batch { open: running.open.clone(), facts: running.facts(), last: running.last_handed.clone() };
        self.step(cursor, generation, async move { Step::HandedOver(batch.hand_over(&context, &app).await) });
    }

    pub(in crate::deliverer) fn on_handed_over(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        result: Result<HandedOver, HandOverError>,
    ) {
        let misfits = self.misfits(cursor, &result);
        let Some((running, _)) = self.running(cursor) else { return };
        let has_word = matches!(running.handing, Handing::Busy(true));
        running.handing = Handing::Idle;
        match result {
            Ok(HandedOver::More(position, change)) => running.last_handed = Some((position, *change)),
            Ok(HandedOver::Again) => {}
            Ok(HandedOver::Full) if has_word => {}
            Ok(HandedOver::Full) => running.handing = Handing::Full,
            Ok(HandedOver::Settled) => self.finish(cursor, generation),
            Ok(HandedOver::Stale) => {
                let wait = misfit_wait(misfits);
                if !wait.is_zero() {
                    warn!(
                        cursor.id = %cursor,
                        "the open round of {cursor} does not fit its rows or its list, next look in {wait:?}"
                    );
                }
                running.reopen_after(wait);
            }
            Err(HandOverError::Store(StoreError::Fenced)) => {
                self.context.give_up("another process took over this database");
            }
            Err(reason) => {
                warn!(cursor.id = %cursor, "changes of {cursor} were not handed over: {reason}");
                running.reopen_after(REOPEN);
            }
        }
    }

    /// Counts the results in a row by which the rows of a lane do not fit what it wants to hand over.
    fn misfits(&mut self, cursor: &CursorId, result: &Result<HandedOver, HandOverError>) -> u32 {
        let Some(lane) = self.lanes.get_mut(cursor) else { return 0 };
        match result {
            Ok(HandedOver::Stale) => lane.misfits = lane.misfits.saturating_add(1),
            Ok(_) => lane.misfits = 0,
            Err(_) => {}
        }
        lane.misfits
    }

    /// Tasks of the app were claimed or ended: soon all lanes that wait look again.
    pub(in crate::deliverer) fn on_room(&mut self) {
        if matches!(self.outlet, CurrentOutlet::HandOver)
            && !std::mem::replace(&mut self.looks_for_room, true)
        {
            self.mailbox.send_after(GATHER, || DelivererMessage::LookForRoom);
        }
    }

    /// Lanes that wait for room look again, and so do lanes whose next round waits for the ends of claims.
    /// Lanes that wait for anything else (a Git host, rows that do not fit) keep their wait: tasks come and
    /// go all the time.
    pub(in crate::deliverer) fn look_for_room(&mut self) {
        self.looks_for_room = false;
        if !matches!(self.outlet, CurrentOutlet::HandOver) {
            return;
        }
        let mut behind_claims = Vec::new();
        for (cursor, lane) in &mut self.lanes {
            match &mut lane.slot {
                Slot::Opening { changed } => *changed = Changed::Room.max(*changed),
                Slot::Waiting { for_claims: true, .. } => behind_claims.push(cursor.clone()),
                Slot::Waiting { .. } => {}
                Slot::Running(running) => running.has_room(),
            }
        }
        for cursor in behind_claims {
            self.open(&cursor);
        }
        self.drive_all();
        self.shorten_rests();
    }

    /// Lets cursors without a lane that wait for tasks look soon, each at most once in [`REST_FIRST`], and
    /// all of them at most once in [`REST_EACH`].
    fn shorten_rests(&mut self) {
        let now = Instant::now();
        let resting = u32::try_from(self.waiting_cursors.resting()).unwrap_or(u32::MAX);
        let wait = REST_EACH.saturating_mul(resting).max(REST_FIRST);
        for cursor in self.waiting_cursors.shorten(now + wait) {
            self.mailbox.send_after(wait, move || DelivererMessage::Due(cursor));
        }
    }

    /// Lanes that wait for room look again: this repairs lost words.
    pub(in crate::deliverer) fn repair_room(&mut self) {
        self.running_lanes().for_each(RunningLane::has_room);
    }
}

/// The wait before the rows of a lane are read again. The first misfit is a race with who changed the rows; a
/// lasting one (a list that is shorter than its round says) must not read them all the time.
fn misfit_wait(misfits: u32) -> Duration {
    match misfits {
        0 | 1 => Duration::ZERO,
        more => (REOPEN * 2_u32.pow((more - 2).min(16))).min(REOPEN_LAST),
    }
}

impl RunningLane {
    /// There may be room again.
    fn has_room(&mut self) {
        self.handing = match self.handing {
            Handing::Busy(_) => Handing::Busy(true),
            Handing::Idle | Handing::Full => Handing::Idle,
        };
    }
}
