//! Places for scans: a bounded number of scans run at once, shared by all apps. An app takes another place
//! only while more places are free than the app holds. So an app that watches very slow hosts holds at most
//! half of the places, and an app without a place finds one.
//!
//! A scan that takes long moves to a slow place, of which there are as many, shared by the same rule: so
//! scans of slow hosts soon leave the places that every scan needs. A scan that finds no slow place ends.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::AppId;

use crate::limits::shares::Pool;

/// The places. Cheap to clone.
#[derive(Clone)]
pub struct ScanSlots(Arc<Mutex<State>>);

struct State {
    quick: Pool,
    slow: Pool,
}

/// A place, given back when dropped.
pub struct ScanSlot {
    slots: ScanSlots,
    apps: Vec<AppId>,
    is_slow: bool,
}

impl ScanSlots {
    /// Creates `count` places, and as many for slow scans, all of them free.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let pool = || Pool::new(count.max(1) as u64, 1);
        Self(Arc::new(Mutex::new(State { quick: pool(), slow: pool() })))
    }

    /// Whether a scan that serves these apps would find a place now.
    #[must_use]
    pub fn has_room(&self, apps: &[AppId]) -> bool {
        self.state().quick.has_room(apps, 1)
    }

    /// A place for a scan that serves these apps, if it finds one.
    #[must_use]
    pub fn take(&self, apps: &[AppId]) -> Option<ScanSlot> {
        let is_taken = self.state().quick.take(apps, 1);
        is_taken.then(|| ScanSlot { slots: self.clone(), apps: apps.to_vec(), is_slow: false })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl std::fmt::Debug for ScanSlot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ScanSlot")
            .field("apps", &self.apps)
            .field("is_slow", &self.is_slow)
            .finish_non_exhaustive()
    }
}

impl ScanSlot {
    /// Moves a scan that takes long to a slow place; other scans get the place that it had. `false`: its apps
    /// hold as many slow places as they may, so the scan must end.
    pub fn slow_down(&mut self) -> bool {
        if self.is_slow {
            return true;
        }
        let mut state = self.slots.state();
        if !state.slow.take(&self.apps, 1) {
            return false;
        }
        state.quick.let_go(&self.apps, 1);
        drop(state);
        self.is_slow = true;
        true
    }
}

impl Drop for ScanSlot {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        let pool = if self.is_slow { &mut state.slow } else { &mut state.quick };
        pool.let_go(&self.apps, 1);
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn app(number: u128) -> [AppId; 1] {
        [AppId::new(Ulid::from_parts(1, number))]
    }

    fn fill(slots: &ScanSlots, apps: &[AppId]) -> Vec<ScanSlot> {
        std::iter::from_fn(|| slots.take(apps)).collect()
    }

    #[test]
    fn an_app_leaves_places_to_others_and_each_further_one_leaves_some() {
        let slots = ScanSlots::new(64);
        let first = fill(&slots, &app(1));
        assert_eq!(first.len(), 32);
        let second = fill(&slots, &app(2));
        assert_eq!(second.len(), 16);
        assert!(slots.take(&app(3)).is_some());
        // A source of both goes as soon as either may.
        assert!(slots.take(&[app(1)[0].clone(), app(3)[0].clone()]).is_some());
        drop(first);
        assert_eq!(fill(&slots, &app(2)).len(), 16, "it may have as many as the first had");
    }

    #[test]
    fn a_slow_scan_frees_its_place_for_others_as_long_as_its_app_may_have_slow_ones() {
        let slots = ScanSlots::new(64);
        let (mut slow, mut ended) = (Vec::new(), 0);
        for _ in 0..3 {
            for mut slot in fill(&slots, &app(1)) {
                assert!(!slot.is_slow);
                match slot.slow_down() {
                    true => slow.push(slot),
                    false => ended += 1,
                }
            }
        }
        assert_eq!((slow.len(), ended), (32, 64), "half of the slow places, and no more");
        assert!(slow.iter_mut().all(ScanSlot::slow_down), "it has its place");
        assert_eq!(fill(&slots, &app(2)).len(), 32, "no quick place is held by the slow ones");
        let mut other = slots.take(&app(2)).expect("free");
        assert!(other.slow_down(), "another app finds a slow place");
        slow.clear();
        drop(other);
        assert!(slots.state().slow.is_whole(64));
        assert!(slots.state().quick.is_whole(64));
    }

    #[test]
    fn a_place_that_is_given_back_is_free_for_everybody() {
        let slots = ScanSlots::new(2);
        let first = slots.take(&app(1)).expect("free");
        assert!(!slots.has_room(&app(1)), "the other one is left for others");
        let other = slots.take(&app(2)).expect("left for others");
        assert!(!slots.has_room(&app(3)));
        drop((first, other));
        assert!(slots.take(&app(1)).is_some());
        assert!(slots.state().quick.is_whole(2));
    }
}
