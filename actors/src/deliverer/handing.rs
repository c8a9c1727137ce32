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
use tracing::warn;

use super::{
    DelivererMessage, DelivererState, Generation, Step, Way,
    handed::{Batch, HandOverError, HandedOver, Handing},
    running::{RunningLane, Stage},
};
use crate::ports::StoreError;

/// How long the deliverer waits for further word of room before it looks.
const GATHER: Duration = Duration::from_millis(10);
/// The wait before a lane is opened again whose batch failed.
const REOPEN: Duration = Duration::from_secs(1);

impl DelivererState {
    /// Hands over the next changes of a lane, if there may be room and no batch is under way.
    pub(super) fn drive_hand_over(&mut self, cursor: &CursorId, generation: Generation) {
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

    pub(super) fn on_handed_over(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        result: Result<HandedOver, HandOverError>,
    ) {
        let Some((running, _)) = self.running(cursor) else { return };
        let has_word = matches!(running.handing, Handing::Busy(true));
        running.handing = Handing::Idle;
        match result {
            Ok(HandedOver::More(position, change)) => running.last_handed = Some((position, *change)),
            Ok(HandedOver::Again) => {}
            Ok(HandedOver::Full) if has_word => {}
            Ok(HandedOver::Full) => running.handing = Handing::Full,
            Ok(HandedOver::Settled) => self.finish(cursor, generation),
            Ok(HandedOver::Stale) => running.reload(),
            Err(HandOverError::Store(StoreError::Fenced)) => {
                self.context.give_up("another process took over this database");
            }
            Err(reason) => {
                warn!(cursor.id = %cursor, "changes of {cursor} were not handed over: {reason}");
                running.reopen_after(REOPEN);
            }
        }
    }

    /// Tasks of the app were claimed or ended: soon all lanes that wait look again.
    pub(super) fn on_room(&mut self) {
        if matches!(self.way, Way::HandOver) && !std::mem::replace(&mut self.looks_for_room, true) {
            self.mailbox.send_after(GATHER, || DelivererMessage::LookForRoom);
        }
    }

    /// Lanes that wait for room look again, and so do lanes whose next round waits for the ends of claims.
    pub(super) fn look_for_room(&mut self) {
        self.looks_for_room = false;
        if !matches!(self.way, Way::HandOver) {
            return;
        }
        self.running_lanes().for_each(RunningLane::has_room);
        for cursor in self.waiting_lanes() {
            self.open(&cursor);
        }
        self.drive_all();
    }

    /// Lanes that wait for room look again: this repairs lost words.
    pub(super) fn repair_room(&mut self) {
        self.running_lanes().for_each(RunningLane::has_room);
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
