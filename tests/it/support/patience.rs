//! Waiting for a state, with a deadline: the only place of the stories that looks twice.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Time between two checks of a condition.
const PAUSE: Duration = Duration::from_millis(10);
/// Time between two looks at a page. Each look takes some milliseconds of processor time from the browser, which
/// draws the page meanwhile.
const PAUSE_OF_PAGES: Duration = Duration::from_millis(25);
/// The longest time between two checks: a long wait is checked less often, a twentieth of the time that it has lasted.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// What anything that should happen at once gets on a busy machine, which may be five times slower.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// Looks until `look` gives something.
///
/// # Panics
/// When `deadline` has passed; `what` tells what never came.
pub(crate) fn eventually<T>(what: &str, deadline: Duration, look: impl FnMut() -> Option<T>) -> T {
    eventually_or(what, deadline, look, String::new)
}

/// Looks until `look` gives something; `instead` tells what is there when nothing came.
///
/// # Panics
/// When `deadline` has passed.
pub(crate) fn eventually_or<T>(
    what: &str,
    deadline: Duration,
    look: impl FnMut() -> Option<T>,
    instead: impl FnOnce() -> String,
) -> T {
    looks(PAUSE, what, deadline, look, instead)
}

/// Looks at a page until `look` gives something.
///
/// # Panics
/// When [`SOON`] has passed; `what` tells what never came.
pub(crate) fn on_page<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    on_page_or(what, look, String::new)
}

/// Looks at a page until `look` gives something; `instead` tells what is there when nothing came.
///
/// # Panics
/// When [`SOON`] has passed.
pub(crate) fn on_page_or<T>(
    what: &str,
    look: impl FnMut() -> Option<T>,
    instead: impl FnOnce() -> String,
) -> T {
    looks(PAUSE_OF_PAGES, what, SOON, look, instead)
}

fn looks<T>(
    pause: Duration,
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
    instead: impl FnOnce() -> String,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = began.elapsed();
        if waited >= deadline {
            panic!("within {deadline:?} there was no {what} {}", instead());
        }
        thread::sleep((waited / 20).clamp(pause, PAUSE_MAX));
    }
}

/// The shortest of several turns, each of which says how long it took; no turn follows one that took less
/// than `enough`. A busy machine is late in some turns, and what is slow by itself is late in each.
pub(crate) fn shortest_of(turns: u32, enough: Duration, mut turn: impl FnMut() -> Duration) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..turns {
        shortest = shortest.min(turn());
        if shortest < enough {
            break;
        }
    }
    shortest
}

/// Says to the threads of a story that it is over, also when it fails: they end, and the failure is shown.
pub(crate) struct SetAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
