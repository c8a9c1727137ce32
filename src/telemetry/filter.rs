//! Which lines are logged, and changing that while the process runs.

use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Replaces the filters in force, for log lines and for exported ones. Returns whether it succeeded.
type Change = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The filter in force of this process, as text, and the way to change it.
static FILTER: OnceLock<(Mutex<String>, Change)> = OnceLock::new();

/// Remembers the filter that the log of this process was started with.
pub(super) fn remember(filter: String, change: impl Fn(&str) -> bool + Send + Sync + 'static) {
    // A log is started once in a process; a second start was refused before.
    drop(FILTER.set((Mutex::new(filter), Box::new(change))));
}

/// The filter in force; `None`: this process writes no log of Tidings.
#[must_use]
pub fn filter() -> Option<String> {
    FILTER.get().map(|(filter, _)| filter.lock().clone())
}

/// Checks that a text is a filter.
///
/// # Errors
/// The fault of the text.
pub fn check_filter(text: &str) -> Result<(), ParseError> {
    EnvFilter::builder().parse(text).map(drop)
}

/// Logs by another filter from now on. `false`: nothing was changed.
pub fn set_filter(text: &str) -> bool {
    let Some((filter, change)) = FILTER.get().filter(|_| check_filter(text).is_ok()) else { return false };
    let mut filter = filter.lock();
    let is_changed = change(text);
    if is_changed {
        text.clone_into(&mut filter);
    }
    is_changed
}
