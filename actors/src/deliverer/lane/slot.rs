//! One change of a lane in memory: how far it got, and what its tries were.

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
    Waiting { parcel: Option<Parcel>, until: Instant, endpoint: bool },
    Acknowledged,
    Parked(Box<Park>),
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) change: Change,
    pub(super) state: SlotState,
    pub(super) tries: u32,
    pub(super) item_tries: u32,
    pub(super) first_failure: Option<Timestamp>,
    pub(super) previous_try: Option<Instant>,
    pub(super) last_try: Option<Instant>,
    pub(super) unobtainable: Vec<ObjectId>,
}

impl Slot {
    pub(super) fn new(change: Change) -> Self {
        Self {
            change,
            state: SlotState::New,
            tries: 0,
            item_tries: 0,
            first_failure: None,
            previous_try: None,
            last_try: None,
            unobtainable: Vec::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, SlotState::Acknowledged | SlotState::Parked(_))
    }
}
