//! What a lane does for an app that asks for its changes: they are taken in order as they get ready,
//! and come back acknowledged, refused or as they went.

use std::ops::Range;

use tidings_entity::{id::DeadLetterId, kind::ParkReason};

use super::{AHEAD, Lane, WINDOW, slot::SlotState};
use crate::ports::{Parcel, Park};

impl Lane {
    /// Somebody reads what is rendered: no need to begin with little.
    pub fn expect_reader(&mut self) {
        self.ahead = AHEAD;
    }

    /// Puts the next changes that are ready on their way, in order from the first that is not settled,
    /// at most `most`. [`Lane::on_acknowledged`], [`Lane::on_refused`] or [`Lane::on_recalled`] must
    /// follow for each.
    pub fn take_ready(&mut self, most: usize) -> (Range<u64>, Vec<Parcel>) {
        let reach = usize::try_from((self.settled + WINDOW).saturating_sub(self.prefix)).unwrap_or(0);
        let most = if self.is_blocked() { most.min(1) } else { most };
        let mut parcels = Vec::new();
        if !self.stale && self.unwritten.is_none() && self.in_flight() == 0 {
            for slot in self.slots.iter_mut().take(most.min(reach)) {
                let SlotState::Ready(parcel) = &slot.state else { break };
                let parcel = parcel.clone();
                slot.state = SlotState::Flying(parcel.clone());
                parcels.push(parcel);
            }
        }
        (self.prefix..self.prefix + parcels.len() as u64, parcels)
    }

    /// The app does not want this change: it is given up at once.
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
