//! Which outcomes of a lane are on disk: its settled prefix, and, when the lane ends without a crash, the
//! settled changes above the prefix. So a stop, a reload and a call of the API repeat no answered change.
//!
//! A settlement whose write failed, or has an unknown outcome, is written again unchanged: positions are
//! absolute, so a second write of a settlement changes nothing. Nothing is sent meanwhile.

use super::{Lane, slot::SlotState};
use crate::{
    ports::{Settlement, Standing},
    time::Timestamp,
};

impl Lane {
    /// The settlement to write now, if any; `ends`: the lane is to be replaced as soon as nothing is in
    /// flight. [`Lane::on_settled`] or [`Lane::on_settle_failed`] must follow.
    pub fn want_settle(&mut self, at: Timestamp, ends: bool) -> Option<Settlement> {
        // A block that is not written yet is written first: the settlement may be what ends the block.
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

    /// The settled prefix, with the changes of the cursor's state that follow from it.
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

    /// The settled changes above the prefix. They do not change the streak, which follows the order of the
    /// list.
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

    /// Writing the settlement failed or its outcome is unknown: the same settlement must be written again.
    pub fn on_settle_failed(&mut self) {
        self.unwritten = self.settling.take();
    }

    /// The rows differ from the state of this lane: the lane settles nothing more.
    pub fn on_settle_refused(&mut self) {
        self.settling = None;
        self.stale = true;
    }
}
