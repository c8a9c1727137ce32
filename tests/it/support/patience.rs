//! Waiting for a state, with a deadline: the only place of the stories that looks twice.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Time between two checks of a condition.
const PAUSE: Duration = Duration::from_millis(10);
/// What anything that should happen at once gets on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Looks until `look` gives something.
///
/// # Panics
/// When `deadline` has passed; `what` tells what never came.
pub(crate) fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "within {deadline:?} there was no {what}");
        thread::sleep(PAUSE);
    }
}

/// Says to the threads of a story that it is over, also when it fails: they end, and the failure is shown.
pub(crate) struct SetAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
