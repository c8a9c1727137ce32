//! When each source was looked at last and is looked at next: a board that the watchers of this process
//! write on and the front door reads. A poll that finds nothing writes no row, so these moments are in
//! memory only: after a restart they are unknown until the next poll, and another replica knows its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tidings_entity::id::SourceId;

use crate::time::Timestamp;

/// The polls of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// When the last scan ended, well or not; `None`: none did since this process began.
    pub last: Option<Timestamp>,
    /// When the next one is due; `None`: it waits for the probe of its breaker.
    pub next: Option<Timestamp>,
}

/// The board. Clones share it; it holds one small entry for each source that is watched here.
#[derive(Clone, Debug, Default)]
pub struct Polls(Arc<Mutex<HashMap<SourceId, Polled>>>);

impl Polls {
    /// How a source is polled, as far as this process knows.
    #[must_use]
    pub fn of(&self, source: &SourceId) -> Option<Polled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(source).copied()
    }

    /// Notes how a source is polled.
    pub(crate) fn note(&self, source: &SourceId, polled: Polled) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(source.clone(), polled);
    }

    /// A source is not watched here any more.
    pub(crate) fn forget(&self, source: &SourceId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(source);
    }
}
