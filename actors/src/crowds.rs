//! How many attempts are under way at an app at the same time, over all its sinks. Each sink has a gate of
//! its own; what the app as a whole takes is bounded here.
//!
//! A crowd lives while somebody holds it. Who stops waiting for a place costs nobody one.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tidings_entity::id::AppId;
use tokio::sync::Notify;

/// The crowds of all apps that are being served. Cheap to clone.
#[derive(Clone, Default)]
pub struct Crowds(Arc<Mutex<HashMap<AppId, Weak<Counted>>>>);

impl Crowds {
    /// The crowd of an app that takes so many attempts at once. All who ask share it, and the last bound
    /// that was said goes.
    #[must_use]
    pub fn of(&self, app: &AppId, most: usize) -> Crowd {
        let mut of_app = self.0.lock();
        if let Some(counted) = of_app.get(app).and_then(Weak::upgrade) {
            counted.most.store(most.max(1), Relaxed);
            counted.freed.notify_waiters();
            return Crowd(counted);
        }
        of_app.retain(|_, counted| counted.strong_count() > 0);
        let counted = Arc::new(Counted {
            most: AtomicUsize::new(most.max(1)),
            taken: AtomicUsize::new(0),
            freed: Notify::new(),
        });
        of_app.insert(app.clone(), Arc::downgrade(&counted));
        Crowd(counted)
    }
}

/// The attempts of one app. Cheap to clone.
#[derive(Clone)]
pub struct Crowd(Arc<Counted>);

struct Counted {
    most: AtomicUsize,
    taken: AtomicUsize,
    freed: Notify,
}

/// A place among the attempts of an app, for as long as it is held.
pub struct Place(Arc<Counted>);

impl Crowd {
    /// Waits for a place.
    pub async fn take(&self) -> Place {
        loop {
            // It listens before it looks, so that no place which comes free in between is missed.
            let freed = self.0.freed.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(&self) -> Option<Place> {
        let most = self.0.most.load(Relaxed);
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        self.0.taken.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Place(Arc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
        self.0.freed.notify_one();
    }
}

impl fmt::Debug for Crowd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Crowd").field(&self.0.taken).field(&self.0.most).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use ulid::Ulid;

    use super::*;

    #[tokio::test]
    async fn sinks_of_one_app_share_its_places_and_others_have_their_own() {
        let crowds = Crowds::default();
        let app = |number| AppId::new(Ulid::from_parts(1, number));
        let (one, other) = (crowds.of(&app(1), 2), crowds.of(&app(1), 2));
        let (first, _second) = (one.take().await, other.take().await);
        assert!(other.take().now_or_never().is_none(), "two attempts are under way");
        assert!(crowds.of(&app(2), 1).take().now_or_never().is_some());
        let waiting = async { drop(other.take().await) };
        // It waits first, and goes on when the place comes free.
        tokio::join!(waiting, async { drop(first) });
        assert!(crowds.of(&app(1), 3).take().now_or_never().is_some(), "the bound is the last that was said");
    }
}
