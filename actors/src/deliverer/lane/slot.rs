//! One change of a lane in memory: how far it got, and what its tries were.

use std::time::Duration;

use tidings_entity::id::ObjectId;
use tokio::time::Instant;

use crate::{
    ports::{Parcel, Park},
    round::Change,
    time::Timestamp,
};

#[derive(Debug)]
pub(super) enum SlotState {
    New,
    Preparing,
    Ready(Parcel),
    Flying(Parcel),
    /// On its way in a batch, which holds its bytes.
    Batched {
        batch: u64,
        size: u64,
    },
    /// After a failure; what was rendered is dropped meanwhile.
    Waiting {
        until: Instant,
        why: Wait,
    },
    Acknowledged,
    Parked(Box<Park>),
    /// An outcome that is on disk, above the prefix.
    Settled,
}

/// What a change waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Another try after a failure of the endpoint.
    Endpoint,
    /// Another try after a failure of its own.
    Item,
    /// Another try to render it.
    Rendering,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) change: Change,
    pub(super) state: SlotState,
    /// Tries at endpoints that the app had before.
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

    /// For how long it has been failing when a try failed `now`. A first failure that lies ahead was noted
    /// before the clock was set back: from now on it counts from here, so that a cursor is blocked in time.
    pub(super) fn failing_for(&mut self, now: Timestamp) -> Duration {
        let first = self.first_failure.map_or(now, |first| first.min(now));
        self.first_failure = Some(first);
        now.since(first)
    }

    /// All tries, by which attempts are numbered.
    pub(super) fn attempts(&self) -> u32 {
        self.earlier + self.tries
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, SlotState::Waiting { .. })
    }

    /// Whether it may be rendered now.
    pub(super) fn is_unrendered(&self, now: Instant) -> bool {
        match self.state {
            SlotState::New => true,
            SlotState::Waiting { until, .. } => until <= now,
            _ => false,
        }
    }

    /// Whether it is being rendered, or may be now.
    pub(super) fn is_coming(&self, now: Instant) -> bool {
        matches!(self.state, SlotState::Preparing) || self.is_unrendered(now)
    }

    /// Bytes on their way.
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
