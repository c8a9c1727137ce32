//! Which deliveries a lane renders ahead, and when it drops them again: enough to keep the network busy,
//! within the lane's bytes, and nothing that cannot be sent soon.

use tidings_entity::{
    id::{DeadLetterId, ObjectId},
    kind::{OrderMode, ParkReason},
};
use tokio::time::Instant;

use super::{
    AHEAD_BYTES, Lane,
    launching::PIPELINE,
    slot::{Slot, SlotState, Wait},
};
use crate::{
    model::round::{Change, DeliveryId},
    ports::{Parcel, Park},
};

impl Lane {
    /// Changes to be rendered now, at most `most`, in order: position, change, and the blobs that
    /// neither the mirror nor the Git host has. [`Lane::on_prepared`] must follow.
    pub fn want_prepare(&mut self, now: Instant, most: usize) -> Vec<(u64, Change, Vec<ObjectId>)> {
        let low = self.has_room() && self.ready() < self.width();
        // The head is rendered even if the lane's bytes are used up: all other changes wait for the head.
        let head = self.slots.iter().find(|slot| !slot.is_done()).is_some_and(|slot| slot.is_unrendered(now));
        if self.preparing || self.stale || !(low || head) || self.waits_at_head(now) {
            return Vec::new();
        }
        let most = match (low, &self.batching) {
            (false, _) => 1,
            (true, None) => most,
            (true, Some(_)) => usize::MAX,
        };
        let reach = if self.is_blocked() { 1 } else { self.rendered_within() };
        let prefix = self.prefix;
        // Changes of a later phase cannot be sent before the last change of this phase was answered.
        let phase = self.slots.iter().find(|slot| !slot.is_done()).map(|slot| slot.change.operation);
        let any_phase = self.order == OrderMode::Strict;
        let wanted: Vec<_> = self
            .slots
            .iter_mut()
            .take(reach)
            .take_while(|slot| any_phase || Some(slot.change.operation) == phase)
            .enumerate()
            .filter(|(_, slot)| slot.is_unrendered(now))
            .take(self.ahead.min(most).max(1))
            .map(|(index, slot)| {
                slot.state = SlotState::Preparing;
                (prefix + index as u64, slot.change.clone(), slot.unobtainable.clone())
            })
            .collect();
        self.preparing = !wanted.is_empty();
        wanted
    }

    /// Takes the rendered deliveries: the first of those that were wanted, in order, or none. The rest of the
    /// wanted deliveries may be asked for again.
    pub fn on_prepared(&mut self, parcels: Vec<Parcel>) {
        self.preparing = false;
        let mut parcels = parcels.into_iter();
        if self.head_waits_alone() {
            // The head failed meanwhile: deliveries behind it would stay in memory for as long as the head
            // waits.
            parcels = Vec::new().into_iter();
        }
        for slot in self.slots.iter_mut().filter(|slot| matches!(slot.state, SlotState::Preparing)) {
            slot.state = parcels.next().map_or(SlotState::New, SlotState::Ready);
        }
    }

    /// Whether changes are being rendered now, or wait for memory to be rendered.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        self.preparing
    }

    /// Whether the head waits, and nothing can go before it.
    pub(super) fn head_waits_alone(&self) -> bool {
        let in_line = self.order == OrderMode::Strict || self.batching.is_some();
        (self.is_blocked() || in_line) && self.slots.front().is_some_and(Slot::is_waiting)
    }

    /// Whether nothing can go before a wait of the head is over.
    pub(super) fn waits_at_head(&self, now: Instant) -> bool {
        self.head_waits_alone() && self.slots.front().is_some_and(|head| !head.is_unrendered(now))
    }

    /// Bytes that this lane holds rendered.
    pub(super) fn held(&self) -> u64 {
        let parcels = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Ready(parcel) | SlotState::Flying(parcel) => Some(parcel.size()),
            SlotState::Batched { size, .. } => Some(*size),
            _ => None,
        });
        parcels.sum()
    }

    /// The number of deliveries that are rendered and not in flight.
    pub(super) fn ready(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.state, SlotState::Ready(_))).count()
    }

    /// Whether more may be rendered in addition to the deliveries in memory.
    fn has_room(&self) -> bool {
        self.batch_has_room().unwrap_or_else(|| self.held() <= AHEAD_BYTES / 2)
    }

    /// How many changes are sent at once, as one pipeline or as one batch.
    fn width(&self) -> usize {
        if let Some(batching) = &self.batching {
            return batching.width();
        }
        match self.order {
            OrderMode::Strict => PIPELINE,
            OrderMode::Phased => self.max_in_flight,
        }
    }

    /// Drops rendered deliveries that will not be sent soon. They are rendered again when needed, with the
    /// same bytes.
    pub fn release(&mut self) {
        self.ahead = 1;
        for slot in self.slots.iter_mut().filter(|slot| matches!(slot.state, SlotState::Ready(_))) {
            slot.state = SlotState::New;
        }
    }

    /// A blob of a delivery cannot be fetched. If it is the content itself, the change is parked without
    /// counting for the streak; otherwise the delivery is rendered without the hash of the blob.
    pub fn on_blob_unobtainable(&mut self, position: u64, blob: ObjectId, letter: DeadLetterId) {
        let Some(slot) = self.slot(position) else { return };
        if slot.change.new.is_some_and(|entry| entry.blob == blob) {
            self.on_content_unfit(
                position,
                format!("blob {blob} is neither in the mirror nor at the Git host"),
                letter,
            );
        } else {
            slot.unobtainable.push(blob);
        }
    }

    /// The content of a change cannot be fetched, or is not valid: the change is parked.
    pub fn on_content_unfit(&mut self, position: u64, why: String, letter: DeadLetterId) {
        let delivery = self.delivery_id(position);
        let Some(slot) = self.slot(position) else { return };
        slot.state = SlotState::Parked(Box::new(Park {
            id: letter,
            position,
            delivery: delivery.unwrap_or_else(|| DeliveryId::from_stored(String::new())),
            reason: ParkReason::ContentUnavailable,
            counted: false,
            status: None,
            excerpt: why,
            change: slot.change.clone(),
        }));
        self.advance_prefix();
    }

    /// Rendering failed for a reason that may pass.
    pub fn retry_later(&mut self, position: u64, until: Instant) {
        if let Some(slot) = self.slot(position) {
            slot.state = SlotState::Waiting { until, why: Wait::Rendering };
        }
    }
}
