//! Failures that no breaker has counted yet. A breaker is made by its first failure and ends with
//! its last one, so a report can meet one that is not there yet, or not any more; what is noted
//! here waits for it. Bounded by the things that have failures: reports of one key fold into one
//! note.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

/// Failures of one source or endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many failures there were.
    pub count: u32,
    /// The public text of the last one.
    pub error: String,
    /// The longest wait that one of them asked for.
    pub retry_after: Option<Duration>,
}

/// The notes, by the key of the breaker. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<HashMap<String, Failures>>>);

impl Notes {
    /// Notes one failure.
    pub fn add(&self, key: &str, error: String, retry_after: Option<Duration>) {
        let mut notes = self.0.lock();
        let failures = notes.entry(key.to_owned()).or_default();
        failures.count += 1;
        failures.error = error;
        failures.retry_after = failures.retry_after.max(retry_after);
    }

    /// The failures that are noted. They stay until [`Notes::counted`] says otherwise, so that a crash in
    /// between loses none.
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

    /// A success before anybody counted: the failures were not in a row.
    pub fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }
}
