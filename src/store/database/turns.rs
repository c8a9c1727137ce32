//! Turns of searches. A search looks at thousands of rows and keeps its connection meanwhile, so only one
//! search of a kind runs at a time: the other connections stay free for a start, for `/readyz` and for short
//! reads. Apps take turns: however many searches an app asks for, only one of them waits beside those of
//! other apps.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tidings_entity::id::AppId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns of one kind of searches.
pub(crate) struct Turns {
    place: Arc<Semaphore>,
    /// A place for each app that searches or waits; `None`: searches over all apps.
    apps: Mutex<HashMap<Option<AppId>, Arc<Semaphore>>>,
}

/// The right to search, until it is dropped.
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
    _of_app: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { place: Arc::new(Semaphore::new(1)), apps: Mutex::default() }
    }
}

impl Turns {
    /// Waits for the turn of an app; `None`: of a search over all apps.
    pub(crate) async fn turn(&self, app: Option<&AppId>) -> Turn {
        let of_app = {
            let mut apps = self.apps.lock();
            apps.retain(|_, place| Arc::strong_count(place) > 1);
            Arc::clone(apps.entry(app.cloned()).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        let of_app = of_app.acquire_owned().await.expect("the semaphores of turns are never closed");
        let place = Arc::clone(&self.place).acquire_owned().await;
        Turn { _place: place.expect("the semaphores of turns are never closed"), _of_app: of_app }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use ulid::Ulid;

    use super::*;

    #[tokio::test]
    async fn an_app_with_many_searches_delays_another_app_by_one() {
        let turns = Arc::new(Turns::default());
        let (one, other) = (AppId::new(Ulid::from_parts(1, 1)), AppId::new(Ulid::from_parts(1, 2)));
        let first = turns.turn(Some(&one)).await;
        let mut waiting = tokio::task::JoinSet::new();
        for app in [vec![one.clone(); 9], vec![other.clone()]].concat() {
            let turns = turns.clone();
            waiting.spawn(async move {
                let _turn = turns.turn(Some(&app)).await;
                app
            });
            tokio::task::yield_now().await;
        }
        assert!(timeout(Duration::from_millis(50), waiting.join_next()).await.is_err(), "one at a time");
        drop(first);
        let mut order = Vec::new();
        while let Some(app) = waiting.join_next().await {
            order.push(app.expect("ended"));
        }
        let place = order.iter().position(|app| *app == other).expect("its turn came");
        assert!(place <= 1, "the other app waited for {place} searches");
        assert_eq!(order.len(), 10);
        drop(turns.turn(None).await);
        assert_eq!(turns.apps.lock().len(), 1, "apps without searches are forgotten");
    }
}
