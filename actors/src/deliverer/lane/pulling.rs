//! A lane for an app that asks for its changes: consumers take the changes in order as they become ready, and
//! return them acknowledged, refused or unprocessed.

use std::ops::Range;

use tidings_entity::{id::DeadLetterId, kind::ParkReason};

use super::{AHEAD, Lane, WINDOW, slot::SlotState};
use crate::ports::{Parcel, Park};

impl Lane {
    /// A consumer waits for changes: rendering does not have to begin with a single delivery.
    pub fn expect_reader(&mut self) {
        self.ahead = AHEAD;
    }

    /// Hands out the next ready changes, in order from the first that is not settled, at most `most`.
    /// [`Lane::on_acknowledged`], [`Lane::on_refused`] or [`Lane::on_recalled`] must follow for each.
    pub fn take_ready(&mut self, most: usize) -> (Range<u64>, Vec<Parcel>) {
        let reach = usize::try_from((self.settled + WINDOW).saturating_sub(self.prefix)).unwrap_or(0);
        let most = if self.is_blocked() { most.min(1) } else { most };
        let mut parcels = Vec::new();
        if !self.stale && self.unwritten.is_none() && self.in_flight() == 0 {
            for slot in self.slots.iter_mut().take(most.min(reach)) {
                let SlotState::Ready(parcel) = &slot.state else { break };
                parcels.push(parcel.clone());
                slot.state = SlotState::Claimed;
            }
        }
        (self.prefix..self.prefix + parcels.len() as u64, parcels)
    }

    /// The app refused this change: it is parked at once.
    pub fn on_refused(&mut self, position: u64, why: &str, letter: DeadLetterId) {
        let delivery = self.delivery_id(position);
        let Some((slot, delivery)) = self.slot(position).zip(delivery) else { return };
        slot.state = SlotState::Parked(Box::new(Park {
            id: letter,
            position,
            delivery,
            reason: ParkReason::Rejected,
            counted: false,
            status: None,
            excerpt: why.to_owned(),
            change: slot.change.clone(),
        }));
        self.advance_prefix();
    }
}
