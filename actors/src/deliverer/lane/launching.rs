//! Which change of a lane may be sent now, as a delivery or as a probe, and putting it on its way.

use tidings_entity::kind::OrderMode;
use tokio::time::Instant;

use super::{
    Lane, WINDOW,
    slot::{Slot, SlotState, Wait},
};
use crate::ports::Parcel;

/// Deliveries of a `strict` lane that go out one after another without asking the lane in between.
pub(super) const PIPELINE: usize = 32;

/// The changes that are sent next.
#[derive(Debug)]
pub struct Launch {
    /// The position of each change in the round, and its rendered body.
    pub parcels: Vec<(u64, Parcel)>,
    /// Whether the changes go in one request; otherwise each goes only after the previous one was
    /// acknowledged.
    pub together: bool,
}

impl Lane {
    /// The next change that may be sent now, if any.
    #[must_use]
    pub fn next_sendable(&mut self, now: Instant) -> Option<u64> {
        if self.stale || self.unwritten.is_some() {
            return None;
        }
        if self.batching.is_some() {
            return self.next_batch(now);
        }
        let phase = self.slots.iter().find(|slot| !slot.is_done())?.change.operation;
        let limit = if self.is_blocked() || self.order == OrderMode::Strict { 1 } else { self.max_in_flight };
        if self.in_flight() >= limit {
            return None;
        }
        let reach = usize::try_from((self.settled + WINDOW).saturating_sub(self.prefix)).unwrap_or(0);
        let one_by_one = limit == 1;
        for (index, slot) in self.slots.iter().enumerate().take(reach) {
            if slot.is_done() {
                continue;
            }
            if slot.change.operation != phase {
                return None;
            }
            if matches!(slot.state, SlotState::Ready(_)) {
                return Some(self.prefix + index as u64);
            }
            if one_by_one {
                return None;
            }
        }
        None
    }

    /// Tries a blocked head now, without the wait for its next probe: an app or operator says that the
    /// receiver works.
    pub fn try_now(&mut self, now: Instant) {
        if self.is_blocked()
            && let Some(Slot { state: SlotState::Waiting { until, why }, .. }) = self.slots.front_mut()
            && *why != Wait::Rendering
        {
            *until = (*until).min(now);
        }
    }

    /// The head, if it may be sent as a probe.
    #[must_use]
    pub fn probe_head(&self) -> Option<u64> {
        let head = self.slots.front().filter(|_| self.may_probe())?;
        matches!(head.state, SlotState::Ready(_)).then_some(self.prefix)
    }

    /// Whether the head could be sent as a probe, now or after rendering, regardless of its own wait after a
    /// failed attempt.
    #[must_use]
    pub fn is_probeable(&self, now: Instant) -> bool {
        let head = self.slots.front().filter(|_| self.may_probe());
        head.is_some_and(|head| match head.state {
            SlotState::Ready(_) => true,
            // A head cannot be rendered while other changes are being rendered; another lane sends the probe.
            SlotState::New => !self.preparing,
            SlotState::Waiting { why, until } => !self.preparing && (why != Wait::Rendering || until <= now),
            SlotState::Preparing
            | SlotState::Flying(_)
            | SlotState::Claimed
            | SlotState::Batched { .. }
            | SlotState::Acknowledged
            | SlotState::Settled
            | SlotState::Parked(_) => false,
        })
    }

    /// Whether another change may be sent beyond the settled prefix.
    fn may_probe(&self) -> bool {
        !self.stale && self.unwritten.is_none() && self.prefix < self.settled + self.window()
    }

    /// Ends the wait of the head, so that it may be rendered for a probe.
    pub fn hurry_head(&mut self) {
        if let Some(head) = self.slots.front_mut().filter(|head| head.is_waiting()) {
            head.state = SlotState::New;
        }
    }

    /// Sends a change, and in a `strict` lane that is not blocked also the ready changes after it; each goes
    /// only after the previous one was acknowledged. [`Lane::on_acknowledged`], [`Lane::on_failed`] or
    /// [`Lane::on_recalled`] must follow for each, or for all that go together [`Lane::on_batch_answered`] or
    /// [`Lane::on_batch_failed`].
    pub fn launch(&mut self, position: u64, is_probe: bool) -> Launch {
        if let Some(parcels) = self.launch_batch(position, is_probe) {
            return Launch { parcels, together: true };
        }
        let reach = (self.settled + self.window()).saturating_sub(position);
        let alone =
            is_probe || self.is_blocked() || self.order == OrderMode::Phased || self.batching.is_some();
        let most = if alone { 1 } else { PIPELINE.min(usize::try_from(reach).unwrap_or(PIPELINE)) };
        let mut launched = Vec::new();
        let first = position.checked_sub(self.prefix).and_then(|first| usize::try_from(first).ok());
        for slot in self.slots.iter_mut().skip(first.unwrap_or(usize::MAX)).take(most) {
            let SlotState::Ready(parcel) = &slot.state else { break };
            let parcel = parcel.clone();
            slot.state = SlotState::Flying(parcel.clone());
            launched.push((position + launched.len() as u64, parcel));
        }
        Launch { parcels: launched, together: false }
    }
}
