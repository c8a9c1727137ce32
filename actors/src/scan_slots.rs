//! Places for scans: so many run at once, shared by all apps. An app takes another place only while more
//! places are free than it holds. So an app that watches hosts which send by the byte holds at most half of
//! the places, and an app that holds none finds one.
//!
//! A scan that takes long goes over to a place of another kind, of which there are as many, shared by the same
//! rule: what slow hosts hold is soon none of the places that every scan needs. Whoever finds no slow place
//! ends its scan.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidings_entity::id::AppId;
use tokio::sync::oneshot;

/// The places. Cheap to clone.
#[derive(Clone)]
pub struct ScanSlots(Arc<Mutex<State>>);

struct State {
    quick: Pool,
    slow: Pool,
    /// Those who wait for a quick place, in the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    came: u64,
}

/// Places of one kind.
struct Pool {
    free: usize,
    held: HashMap<AppId, usize>,
}

struct Waiting {
    apps: Vec<AppId>,
    granted: oneshot::Sender<ScanSlot>,
}

/// A place, given back when dropped.
pub struct ScanSlot {
    slots: ScanSlots,
    apps: Vec<AppId>,
    is_slow: bool,
}

impl ScanSlots {
    /// `count` places, and as many for slow scans, all of them free.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let pool = || Pool { free: count.max(1), held: HashMap::new() };
        Self(Arc::new(Mutex::new(State { quick: pool(), slow: pool(), waiting: BTreeMap::new(), came: 0 })))
    }

    /// Waits for a place for a scan that serves these apps.
    async fn take(&self, apps: &[AppId]) -> ScanSlot {
        let granted = {
            if let Some(slot) = self.try_take(apps) {
                return slot;
            }
            let mut state = self.state();
            let (grant, granted) = oneshot::channel();
            let place = state.came;
            state.came += 1;
            state.waiting.insert(place, Waiting { apps: apps.to_vec(), granted: grant });
            granted
        };
        granted.await.expect("who waits is forgotten only when a place is granted")
    }

    /// Waits until there may be a place, and takes none: whoever waits holds nothing that others want.
    pub async fn free(&self, apps: &[AppId]) {
        drop(self.take(apps).await);
    }

    /// A place for a scan that serves these apps, if one is free for them now.
    #[must_use]
    pub fn try_take(&self, apps: &[AppId]) -> Option<ScanSlot> {
        self.state().quick.take(apps).then(|| self.slot(apps.to_vec()))
    }

    fn slot(&self, apps: Vec<AppId>) -> ScanSlot {
        ScanSlot { slots: self.clone(), apps, is_slow: false }
    }

    /// Gives a quick place back, and hands it on.
    fn give_back(&self, apps: &[AppId]) {
        let mut lost = Vec::new();
        {
            let mut state = self.state();
            state.quick.let_go(apps);
            state.waiting.retain(|_, waiting| !waiting.granted.is_closed());
            let places: Vec<u64> = state.waiting.keys().copied().collect();
            for place in places {
                let State { quick, waiting, .. } = &mut *state;
                if !waiting.get(&place).is_some_and(|waiting| quick.take(&waiting.apps)) {
                    continue;
                }
                let Some(Waiting { apps, granted }) = waiting.remove(&place) else { continue };
                lost.extend(granted.send(self.slot(apps)).err());
            }
        }
        // Whoever went away meanwhile gives its place back, too.
        drop(lost);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Takes a place, if one of these apps may have another.
    fn take(&mut self, apps: &[AppId]) -> bool {
        let held = |app| self.held.get(app).copied().unwrap_or(0);
        if apps.iter().map(held).min().unwrap_or(0) >= self.free {
            return false;
        }
        self.free -= 1;
        for app in apps {
            *self.held.entry(app.clone()).or_default() += 1;
        }
        true
    }

    fn let_go(&mut self, apps: &[AppId]) {
        self.free += 1;
        for app in apps {
            if let Some(held) = self.held.get_mut(app) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(app);
                }
            }
        }
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
    /// The scan takes long: it goes over to a slow place, and others get the one that it had. `false`: its apps
    /// hold as many slow places as they may, so the scan must end.
    pub fn slow_down(&mut self) -> bool {
        if self.is_slow {
            return true;
        }
        if !self.slots.state().slow.take(&self.apps) {
            return false;
        }
        self.is_slow = true;
        self.slots.give_back(&self.apps);
        true
    }
}

impl Drop for ScanSlot {
    fn drop(&mut self) {
        if self.is_slow {
            self.slots.state().slow.let_go(&self.apps);
        } else {
            self.slots.give_back(&self.apps);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{task::JoinSet, time::timeout};
    use ulid::Ulid;

    use super::*;

    fn app(number: u128) -> [AppId; 1] {
        [AppId::new(Ulid::from_parts(1, number))]
    }

    async fn is_free(slots: &ScanSlots, apps: &[AppId]) -> Option<ScanSlot> {
        timeout(Duration::from_millis(1), slots.take(apps)).await.ok()
    }

    async fn fill(slots: &ScanSlots, apps: &[AppId]) -> Vec<ScanSlot> {
        let mut taken = Vec::new();
        while let Some(slot) = is_free(slots, apps).await {
            taken.push(slot);
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_leaves_places_to_others_and_each_further_one_leaves_some() {
        let slots = ScanSlots::new(64);
        let first = fill(&slots, &app(1)).await;
        assert_eq!(first.len(), 32);
        let second = fill(&slots, &app(2)).await;
        assert_eq!(second.len(), 16);
        assert!(is_free(&slots, &app(3)).await.is_some());
        // A source of both goes as soon as either may.
        assert!(is_free(&slots, &[app(1)[0].clone(), app(3)[0].clone()]).await.is_some());
        drop(first);
        assert_eq!(fill(&slots, &app(2)).await.len(), 16, "it may have as many as the first had");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_in_order_and_who_went_away_loses_nothing() {
        let slots = ScanSlots::new(2);
        let first = is_free(&slots, &app(1)).await.expect("free");
        assert!(is_free(&slots, &app(1)).await.is_none(), "gone before it had its turn");
        let (again, waiting) = (slots.clone(), app(1));
        let mut waits = JoinSet::new();
        waits.spawn(async move { again.take(&waiting).await });
        tokio::task::yield_now().await;
        assert!(waits.try_join_next().is_none());
        let other = is_free(&slots, &app(2)).await.expect("left for others");
        drop(first);
        let second = timeout(Duration::from_secs(1), waits.join_next())
            .await
            .expect("in time")
            .expect("it")
            .expect("no panic");
        drop((second, other));
        let all = [is_free(&slots, &app(1)).await, is_free(&slots, &app(2)).await];
        assert!(all.iter().all(Option::is_some), "nothing was lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_scan_frees_its_place_for_others_as_long_as_its_app_may_have_slow_ones() {
        let slots = ScanSlots::new(64);
        let (mut slow, mut ended) = (Vec::new(), 0);
        for _ in 0..3 {
            for mut slot in fill(&slots, &app(1)).await {
                assert!(!slot.is_slow);
                match slot.slow_down() {
                    true => slow.push(slot),
                    false => ended += 1,
                }
            }
        }
        assert_eq!((slow.len(), ended), (32, 64), "half of the slow places, and no more");
        assert!(slow.iter_mut().all(ScanSlot::slow_down), "it has its place");
        assert_eq!(fill(&slots, &app(2)).await.len(), 32, "no quick place is held by the slow ones");
        let mut other = is_free(&slots, &app(2)).await.expect("free");
        assert!(other.slow_down(), "another app finds a slow place");
        slow.clear();
        drop(other);
        assert_eq!(slots.state().slow.free, 64);
        assert_eq!(slots.state().quick.free, 64);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_place_that_a_slow_scan_leaves() {
        let slots = ScanSlots::new(1);
        let mut first = is_free(&slots, &app(1)).await.expect("free");
        let (again, waiting) = (slots.clone(), app(1));
        let mut waits = JoinSet::new();
        waits.spawn(async move { again.take(&waiting).await });
        tokio::task::yield_now().await;
        assert!(waits.try_join_next().is_none());
        assert!(first.slow_down());
        let second = timeout(Duration::from_secs(1), waits.join_next()).await.expect("in time");
        let mut second = second.expect("it").expect("no panic");
        assert!(!second.slow_down(), "the only slow place is held");
    }
}
