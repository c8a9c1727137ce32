//! Places for scans: so many run at once, shared by all apps. An app takes another place only while more
//! places are free than it holds. So an app that watches hosts which send by the byte holds at most half of
//! the places, and an app that holds none finds one.

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
    free: usize,
    held: HashMap<AppId, usize>,
    /// Those who wait, in the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    came: u64,
}

struct Waiting {
    apps: Vec<AppId>,
    granted: oneshot::Sender<ScanSlot>,
}

/// A place, given back when dropped.
pub struct ScanSlot {
    slots: ScanSlots,
    apps: Vec<AppId>,
}

impl ScanSlots {
    /// `count` places, all of them free.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let (held, waiting) = (HashMap::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { free: count.max(1), held, waiting, came: 0 })))
    }

    /// Waits for a place for a scan that serves these apps.
    pub async fn take(&self, apps: &[AppId]) -> ScanSlot {
        let granted = {
            let mut state = self.state();
            if state.may_take(apps) {
                state.hold(apps);
                return ScanSlot { slots: self.clone(), apps: apps.to_vec() };
            }
            let (grant, granted) = oneshot::channel();
            let place = state.came;
            state.came += 1;
            state.waiting.insert(place, Waiting { apps: apps.to_vec(), granted: grant });
            granted
        };
        granted.await.expect("who waits is forgotten only when a place is granted")
    }

    fn give_back(&self, apps: &[AppId]) {
        let mut lost = Vec::new();
        {
            let mut state = self.state();
            state.let_go(apps);
            state.waiting.retain(|_, waiting| !waiting.granted.is_closed());
            let places: Vec<u64> = state.waiting.keys().copied().collect();
            for place in places {
                if !state.waiting.get(&place).is_some_and(|waiting| state.may_take(&waiting.apps)) {
                    continue;
                }
                let Some(Waiting { apps, granted }) = state.waiting.remove(&place) else { continue };
                state.hold(&apps);
                lost.extend(granted.send(ScanSlot { slots: self.clone(), apps }).err());
            }
        }
        // Whoever went away meanwhile gives its place back, too.
        drop(lost);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn may_take(&self, apps: &[AppId]) -> bool {
        let held = |app| self.held.get(app).copied().unwrap_or(0);
        apps.iter().map(held).min().unwrap_or(0) < self.free
    }

    fn hold(&mut self, apps: &[AppId]) {
        self.free -= 1;
        for app in apps {
            *self.held.entry(app.clone()).or_default() += 1;
        }
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

impl Drop for ScanSlot {
    fn drop(&mut self) {
        self.slots.give_back(&self.apps);
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
}
