//! Who works next on what all apps share: so many places, and apps that wait for one take turns,
//! whatever each of them has to do. An app with a million changes costs another one place at most:
//! the one whose turn it is.
//!
//! Waiting costs an entry each, and whoever waits is bounded elsewhere (by the lanes of its app).
//! Who stops waiting costs nobody a turn.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::AppId;
use tokio::sync::oneshot;

/// The places. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: HashMap<AppId, VecDeque<oneshot::Sender<Place>>>,
    /// The apps that wait, the one whose turn it is first.
    order: VecDeque<AppId>,
}

/// A place that is taken; it is free again when this drops.
#[derive(Debug)]
pub struct Place(Option<Turns>);

impl Turns {
    /// So many places, at least one.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let (waiting, order) = (HashMap::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(State { free: places.max(1), waiting, order })))
    }

    /// A place, if one is free now.
    #[must_use]
    pub fn try_take(&self) -> Option<Place> {
        let mut state = self.state();
        state.free = state.free.checked_sub(1)?;
        drop(state);
        Some(Place(Some(self.clone())))
    }

    /// Waits for a place.
    pub async fn take(&self, app: &AppId) -> Place {
        let waiting = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Place(Some(self.clone()));
            }
            state.join(app)
        };
        // A sender goes only with a place, and is kept as long as this waits.
        waiting.await.unwrap_or(Place(None))
    }

    /// Gives a place to whoever is next, or back.
    fn release(&self) {
        let mut place = Place(Some(self.clone()));
        loop {
            let next = {
                let mut state = self.state();
                let next = state.next();
                state.free += usize::from(next.is_none());
                next
            };
            let Some(next) = next else {
                // It is counted as free: it must not be given back again.
                place.0 = None;
                return;
            };
            match next.send(place) {
                Ok(()) => return,
                // It stopped waiting.
                Err(back) => place = back,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn join(&mut self, app: &AppId) -> oneshot::Receiver<Place> {
        let (sender, waiting) = oneshot::channel();
        match self.waiting.get_mut(app) {
            Some(of_app) => of_app.push_back(sender),
            None => {
                self.waiting.insert(app.clone(), VecDeque::from([sender]));
                self.order.push_back(app.clone());
            }
        }
        waiting
    }

    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        loop {
            let app = self.order.pop_front()?;
            let Some(of_app) = self.waiting.get_mut(&app) else { continue };
            let next = of_app.pop_front();
            if of_app.is_empty() {
                self.waiting.remove(&app);
            } else {
                self.order.push_back(app);
            }
            if next.as_ref().is_some_and(|next| !next.is_closed()) {
                return next;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::task::{JoinSet, yield_now};

    fn app(number: u128) -> AppId {
        AppId::new(ulid::Ulid::from_parts(1, number))
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_with_much_to_do_costs_another_one_turn() {
        let turns = Turns::new(2);
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut work = JoinSet::new();
        let mut ask = |who: u128, count: usize| {
            for _ in 0..count {
                let (turns, done) = (turns.clone(), done.clone());
                work.spawn(async move {
                    let _place = turns.take(&app(who)).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    done.lock().push(who);
                });
            }
        };
        ask(1, 1_000);
        yield_now().await;
        ask(2, 1);
        ask(3, 2);
        while work.join_next().await.is_some() {}
        let done = done.lock();
        let at = |who: u128| done.iter().position(|other| *other == who).expect("done");
        // Two were at it already; of the two that follow one may still be the first app's.
        assert!(at(2) <= 4 && at(3) <= 4, "{:?}", &done[..8]);
        assert_eq!(done.len(), 1_003);
        assert_eq!(turns.state().free, 2);
        assert!(turns.state().waiting.is_empty() && turns.state().order.is_empty(), "nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_takes_no_place_with_it() {
        let turns = Turns::new(1);
        let taken = turns.take(&app(1)).await;
        for _ in 0..10 {
            let left = tokio::time::timeout(Duration::from_millis(1), turns.take(&app(2))).await;
            assert!(left.is_err(), "there is no place");
        }
        let (one, other) = (app(3), app(4));
        let mut waiting = Box::pin(turns.take(&one));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(taken);
        // The place was given to one who then does not come for it.
        drop(waiting);
        let _place = tokio::time::timeout(Duration::from_secs(1), turns.take(&other)).await.expect("free");
    }
}
