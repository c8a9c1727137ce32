//! How many attempts are under way at an app at the same time, over all its sinks. Each sink has its own
//! gate; this limit bounds the app as a whole.
//!
//! A limit exists while a handle to it exists. A caller that stops waiting for a permit loses none.

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

/// The limits of all apps that are being served. Cheap to clone.
#[derive(Clone, Default)]
pub struct InFlightLimits(Arc<Mutex<ByReader>>);

type ByReader = HashMap<(AppId, Reader), Weak<Counted>>;

/// The kind of attempts that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Watches,
    Subscriptions,
}

impl InFlightLimits {
    /// The limit of an app that takes `most` attempts at once. All callers share the limit, and the latest
    /// `most` counts.
    #[must_use]
    pub fn of(&self, app: &AppId, most: usize) -> InFlightLimit {
        self.limit((app.clone(), Reader::Watches), most)
    }

    /// The limit for messages to subscriptions of an app. It is separate from the limit for deliveries, so
    /// that subscription sinks that do not answer delay no change.
    #[must_use]
    pub fn of_subscriptions(&self, app: &AppId, most: usize) -> InFlightLimit {
        self.limit((app.clone(), Reader::Subscriptions), most)
    }

    fn limit(&self, key: (AppId, Reader), most: usize) -> InFlightLimit {
        let mut of_app = self.0.lock();
        if let Some(counted) = of_app.get(&key).and_then(Weak::upgrade) {
            counted.most.store(most.max(1), Relaxed);
            counted.freed.notify_waiters();
            return InFlightLimit(counted);
        }
        of_app.retain(|_, counted| counted.strong_count() > 0);
        let counted = Arc::new(Counted {
            most: AtomicUsize::new(most.max(1)),
            taken: AtomicUsize::new(0),
            freed: Notify::new(),
        });
        of_app.insert(key, Arc::downgrade(&counted));
        InFlightLimit(counted)
    }
}

/// The attempts of one app. Cheap to clone.
#[derive(Clone)]
pub struct InFlightLimit(Arc<Counted>);

struct Counted {
    most: AtomicUsize,
    taken: AtomicUsize,
    freed: Notify,
}

/// A place among the attempts of an app, for as long as it is held.
pub struct InFlightPermit(Arc<Counted>);

impl InFlightLimit {
    /// Waits for a place.
    pub async fn take(&self) -> InFlightPermit {
        loop {
            // It subscribes before it looks for a place, so that a place that becomes free in between is not
            // missed.
            let freed = self.0.freed.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(&self) -> Option<InFlightPermit> {
        let most = self.0.most.load(Relaxed);
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        self.0.taken.fetch_update(Relaxed, Relaxed, more).ok().map(|_| InFlightPermit(Arc::clone(&self.0)))
    }
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
        self.0.freed.notify_one();
    }
}

impl fmt::Debug for InFlightLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("InFlightLimit").field(&self.0.taken).field(&self.0.most).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use ulid::Ulid;

    use super::*;

    #[tokio::test]
    async fn sinks_of_one_app_share_its_places_and_others_have_their_own() {
        let in_flight = InFlightLimits::default();
        let app = |number| AppId::new(Ulid::from_parts(1, number));
        let (one, other) = (in_flight.of(&app(1), 2), in_flight.of(&app(1), 2));
        let (first, _second) = (one.take().await, other.take().await);
        assert!(other.take().now_or_never().is_none(), "two attempts are under way");
        assert!(in_flight.of(&app(2), 1).take().now_or_never().is_some());
        let waiting = async { drop(other.take().await) };
        // It waits first, and goes on when the place comes free.
        tokio::join!(waiting, async { drop(first) });
        assert!(
            in_flight.of(&app(1), 3).take().now_or_never().is_some(),
            "the bound is the last that was said"
        );
    }

    #[tokio::test]
    async fn messages_of_subscriptions_take_no_place_from_deliveries() {
        let in_flight = InFlightLimits::default();
        let app = AppId::new(Ulid::from_parts(1, 1));
        let (deliveries, messages) = (in_flight.of(&app, 1), in_flight.of_subscriptions(&app, 1));
        let _message = messages.take().await;
        assert!(messages.take().now_or_never().is_none(), "one message is under way");
        assert!(deliveries.take().now_or_never().is_some(), "a sink that does not answer delays no change");
    }
}
