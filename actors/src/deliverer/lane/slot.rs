//! One change of a lane in memory: its state and its attempts.

use std::time::Duration;

use tidings_entity::id::ObjectId;
use tokio::time::Instant;

use crate::{
    model::round::Change,
    ports::{Parcel, Park},
    time::Timestamp,
};

#[derive(Debug)]
pub(super) enum SlotState {
    New,
    Preparing,
    Ready(Parcel),
    Flying(Parcel),
    /// Claimed by a consumer, whose answer has the only copy of its bytes: a claim may last for long.
    Claimed,
    /// On its way in a batch, which holds its bytes.
    Batched {
        batch: u64,
        size: u64,
    },
    /// Waiting after a failure; the rendered delivery is dropped meanwhile.
    Waiting {
        until: Instant,
        why: Wait,
    },
    Acknowledged,
    Parked(Box<Park>),
    /// An outcome that is on disk, above the prefix.
    Settled,
}

/// The reason why a change waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Another try after a failure of the endpoint.
    Endpoint,
    /// The next attempt after a failure of the change itself.
    Item,
    /// Another try to render it.
    Rendering,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) change: Change,
    pub(super) state: SlotState,
    /// Attempts at endpoints that the app had earlier.
    pub(super) earlier: u32,
    pub(super) tries: u32,
    pub(super) item_tries: u32,
    pub(super) first_failure: Option<Timestamp>,
    pub(super) last_try: Option<Instant>,
    pub(super) unobtainable: Vec<ObjectId>,
    /// The answer to a batch that settled it.
    pub(super) answer: Option<u64>,
}

impl Slot {
    pub(super) fn new(change: Change) -> Self {
        Self {
            change,
            state: SlotState::New,
            earlier: 0,
            tries: 0,
            item_tries: 0,
            first_failure: None,
            last_try: None,
            unobtainable: Vec::new(),
            answer: None,
        }
    }

    /// How long the change has been failing, as of a failure at `now`. A first failure in the future was
    /// recorded before the clock was set back: it is moved to `now`, so that the cursor is blocked in time.
    pub(super) fn failing_for(&mut self, now: Timestamp) -> Duration {
        let first = self.first_failure.map_or(now, |first| first.min(now));
        self.first_failure = Some(first);
        now.since(first)
    }

    /// The number of attempts so far, those at earlier endpoints of the app included. Attempts are numbered
    /// by it.
    pub(super) fn attempts(&self) -> u32 {
        self.earlier + self.tries
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, SlotState::Waiting { .. })
    }

    /// Whether the change may be rendered now: it is new, or its wait is over.
    pub(super) fn is_unrendered(&self, now: Instant) -> bool {
        match self.state {
            SlotState::New => true,
            SlotState::Waiting { until, .. } => until <= now,
            _ => false,
        }
    }

    /// Whether the change is being rendered, or may be rendered now.
    pub(super) fn is_coming(&self, now: Instant) -> bool {
        matches!(self.state, SlotState::Preparing) || self.is_unrendered(now)
    }

    /// The bytes of the deliveries in flight.
    pub(super) fn flying_bytes(&self) -> u64 {
        match &self.state {
            SlotState::Flying(parcel) => parcel.size(),
            SlotState::Batched { size, .. } => *size,
            _ => 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, SlotState::Acknowledged | SlotState::Parked(_) | SlotState::Settled)
    }
}
