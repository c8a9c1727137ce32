//! What a lane has written: its settled prefix, and, when it ends for another reason than a crash, what is
//! settled above the prefix. So a stop, a reload and a call of the API repeat nothing that was answered.
//!
//! A settlement that was not written, or of which nobody knows, is written again as it is: positions are
//! absolute, so that one that was written after all changes nothing the second time. Nothing is sent
//! meanwhile.

use super::{Lane, slot::SlotState};
use crate::{
    ports::{Settlement, Standing},
    time::Timestamp,
};

impl Lane {
    /// What must be written now, if anything; `ends`: the lane is to be replaced as soon as it is still.
    /// [`Lane::on_settled`] or [`Lane::on_settle_failed`] must follow.
    pub fn want_settle(&mut self, at: Timestamp, ends: bool) -> Option<Settlement> {
        // A block that is not written yet goes first: the settlement may be what ends it.
        if self.stale || self.settling.is_some() || !self.effects.is_empty() {
            return None;
        }
        let next = match self.unwritten.take() {
            Some(again) => again,
            None if self.prefix != self.settled => self.settlement(at),
            None if ends && self.in_flight() == 0 && self.owes_outcomes() => self.settlement_above(at),
            None => return None,
        };
        self.settling = Some(next.clone());
        Some(next)
    }

    /// The prefix, with what it led to.
    fn settlement(&mut self, at: Timestamp) -> Settlement {
        Settlement {
            cursor: self.cursor().clone(),
            round: self.round.number,
            position: self.prefix,
            above: Vec::new(),
            absorbs: std::mem::take(&mut self.absorbs),
            parked: std::mem::take(&mut self.parks),
            streak: self.streak,
            acknowledged: self.acknowledged,
            standing: std::mem::take(&mut self.standing),
            redrive: std::mem::take(&mut self.redrive),
            at,
        }
    }

    /// What is settled above the prefix. What it says of the receiver is not drawn from it: that follows
    /// the order of the list.
    fn settlement_above(&mut self, at: Timestamp) -> Settlement {
        let (mut above, mut parked) = (Vec::new(), Vec::new());
        for (slot, position) in self.slots.iter_mut().zip(self.prefix..) {
            match std::mem::replace(&mut slot.state, SlotState::Settled) {
                SlotState::Acknowledged => {}
                SlotState::Parked(park) => parked.push(*park),
                other => {
                    slot.state = other;
                    continue;
                }
            }
            match above.last_mut() {
                Some(std::ops::Range { end, .. }) if *end == position => *end += 1,
                _ => above.push(position..position + 1),
            }
        }
        Settlement {
            cursor: self.cursor().clone(),
            round: self.round.number,
            position: self.prefix,
            above,
            absorbs: false,
            parked,
            streak: self.streak,
            acknowledged: self.acknowledged,
            standing: Standing::Unchanged,
            redrive: Vec::new(),
            at,
        }
    }

    /// The settlement is on disk.
    pub fn on_settled(&mut self) {
        if let Some(settled) = self.settling.take() {
            self.settled = settled.position;
        }
    }

    /// The settlement is not on disk, or nobody knows: the same one is to be written again.
    pub fn on_settle_failed(&mut self) {
        self.unwritten = self.settling.take();
    }

    /// The rows say something else than this lane believes: it settles nothing further.
    pub fn on_settle_refused(&mut self) {
        self.settling = None;
        self.stale = true;
    }
}
