//! How much is indexed at the same time, over all fetches of this process. Until a pack is indexed libgit2 keeps
//! some 160 bytes of each of its objects, and what large deltas are made of whole.
//!
//! A pack of few objects is indexed as it comes. One of more lies on disk first, whole: a host that sends slowly
//! holds nothing that others wait for. Then it takes its share here, first come, first served. Whoever has a share
//! may keep it for [`SHARE_TIME`] at least, and for longer while nobody waits for it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tidings_actors::ports::GitError;

/// A pack of at most so many objects is indexed as it comes, and takes no share: 160 KB of memory.
pub(super) const FEW_OBJECTS: u32 = 1_000;
/// A pack of more objects than these is indexed alone among its like.
const MANY_OBJECTS: u32 = 100_000;
/// So long a share is safe from others.
pub(super) const SHARE_TIME: Duration = Duration::from_mins(1);
/// Between two looks whether it is free.
const LOOK: Duration = Duration::from_millis(50);

/// Objects of packs that are indexed side by side: 40 MB of memory.
static MANY: Budget = Budget::new(250_000);
/// Packs of more objects than [`MANY_OBJECTS`]; `git.fetch_max_objects` bounds what one takes.
static HUGE: Budget = Budget::new(1);
/// Packs with large deltas.
pub(super) static LARGE_DELTAS: Budget = Budget::new(1);

/// What a pack of so many objects takes a share of, and how much.
pub(super) fn share_of(objects: u32) -> (&'static Budget, u64) {
    if objects > MANY_OBJECTS { (&HUGE, 1) } else { (&MANY, u64::from(objects)) }
}

/// Something that all fetches share.
#[derive(Debug)]
pub(super) struct Budget(Mutex<State>);

#[derive(Debug)]
struct State {
    free: u64,
    came: u64,
    /// Those who wait, in the order in which they came.
    line: VecDeque<u64>,
}

impl Budget {
    const fn new(units: u64) -> Self {
        Self(Mutex::new(State { free: units, came: 0, line: VecDeque::new() }))
    }

    /// Waits for so many units, which must not be more than there are; blocks. `goes_on` is asked again and again.
    ///
    /// # Errors
    /// What `goes_on` says.
    pub(super) fn take(
        &self,
        units: u64,
        goes_on: impl Fn() -> Result<(), GitError>,
    ) -> Result<Share<'_>, GitError> {
        let place = Place::join(self);
        loop {
            goes_on()?;
            let mut state = self.state();
            if state.line.front() == Some(&place.number) && state.free >= units {
                state.free -= units;
                return Ok(Share { budget: self, units });
            }
            drop(state);
            thread::sleep(LOOK);
        }
    }

    /// Whether somebody waits for a share.
    pub(super) fn is_wanted(&self) -> bool {
        !self.state().line.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in line, given up when dropped.
struct Place<'b> {
    budget: &'b Budget,
    number: u64,
}

impl<'b> Place<'b> {
    fn join(budget: &'b Budget) -> Self {
        let mut state = budget.state();
        let number = state.came;
        state.came += 1;
        state.line.push_back(number);
        Self { budget, number }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.budget.state().line.retain(|number| *number != self.number);
    }
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Share<'b> {
    budget: &'b Budget,
    units: u64,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.state().free += self.units;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked once, then no more.
    fn once() -> impl Fn() -> Result<(), GitError> {
        let asked = std::cell::Cell::new(false);
        move || if asked.replace(true) { Err(GitError::Cancelled) } else { Ok(()) }
    }

    #[test]
    fn packs_of_some_objects_share_and_huge_ones_go_one_by_one() {
        let (budget, units) = share_of(MANY_OBJECTS);
        assert!(std::ptr::eq(budget, &MANY) && units == 100_000);
        let (budget, units) = share_of(MANY_OBJECTS + 1);
        assert!(std::ptr::eq(budget, &HUGE) && units == 1);
    }

    #[test]
    fn no_more_is_given_than_there_is_and_who_goes_away_gives_it_back() {
        let budget = Budget::new(10);
        let first = budget.take(6, once()).expect("free");
        let second = budget.take(4, once()).expect("free");
        assert!(matches!(budget.take(1, once()), Err(GitError::Cancelled)), "nothing is left");
        drop(second);
        assert!(budget.take(5, once()).is_err(), "four are left");
        assert!(!budget.is_wanted(), "who gave up waits no more");
        drop(first);
        drop(budget.take(10, once()).expect("all of it"));
    }

    #[test]
    fn who_wants_little_does_not_overtake_who_wants_much() {
        let budget = Budget::new(10);
        let first = budget.take(6, once()).expect("free");
        thread::scope(|scope| {
            let much = scope.spawn(|| drop(budget.take(10, || Ok(())).expect("in the end")));
            while !budget.is_wanted() {
                thread::yield_now();
            }
            assert!(budget.take(1, once()).is_err(), "somebody came before");
            drop(first);
            much.join().expect("no panic");
        });
        drop(budget.take(1, once()).expect("free again"));
    }
}
