//! Failures that no breaker has counted yet. A breaker starts with its first failure and ends with its last
//! one, so a report may find no breaker; the failure is noted here until a breaker counts it. Bounded by the
//! number of sources and endpoints with failures: reports of one key share one note.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

/// Failures of one source or endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many failures there were.
    pub count: u32,
    /// The public text of the last failure.
    pub error: String,
    /// The longest wait that a failed answer asked for.
    pub retry_after: Option<Duration>,
}

/// The notes, by the key of the breaker. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FailureCounts(Arc<Mutex<HashMap<String, Failures>>>);

impl FailureCounts {
    /// Notes a failure of the source or endpoint of `key`, for its breaker to count later.
    pub fn add(&self, key: &str, error: String, retry_after: Option<Duration>) {
        let mut notes = self.0.lock();
        let failures = notes.entry(key.to_owned()).or_default();
        failures.count += 1;
        failures.error = error;
        failures.retry_after = failures.retry_after.max(retry_after);
    }

    /// The noted failures. They stay until [`FailureCounts::counted`] is called, so that a crash in between
    /// loses none.
    #[must_use]
    pub fn look(&self, key: &str) -> Option<Failures> {
        self.0.lock().get(key).cloned()
    }

    /// `count` of the failures are counted and written.
    pub fn counted(&self, key: &str, count: u32) {
        let mut notes = self.0.lock();
        let Some(failures) = notes.get_mut(key) else { return };
        failures.count = failures.count.saturating_sub(count);
        if failures.count == 0 {
            notes.remove(key);
        }
    }

    /// Forgets failures that were not counted before a success: they were not in a row.
    pub fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }
}
