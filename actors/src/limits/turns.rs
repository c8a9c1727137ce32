//! Places that all apps share; waiting apps take turns, however much work each of them has. An app with a
//! million changes delays another app by one place at most.
//!
//! Each waiting request costs an entry; the lanes of an app bound their number. A request that stops waiting
//! costs no turn.

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
    waiting: HashMap<AppId, VecDeque<oneshot::Sender<TurnPermit>>>,
    /// The apps that wait; the app whose turn is next comes first.
    order: VecDeque<AppId>,
}

/// A place that is taken; it is free again when this drops.
#[derive(Debug)]
pub struct TurnPermit(Option<Turns>);

impl Turns {
    /// Creates this many places, at least one.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let (waiting, order) = (HashMap::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(State { free: places.max(1), waiting, order })))
    }

    /// Takes a place, if one is free now.
    #[must_use]
    pub fn try_take(&self) -> Option<TurnPermit> {
        let mut state = self.state();
        state.free = state.free.checked_sub(1)?;
        drop(state);
        Some(TurnPermit(Some(self.clone())))
    }

    /// Waits for a place.
    pub async fn take(&self, app: &AppId) -> TurnPermit {
        let waiting = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return TurnPermit(Some(self.clone()));
            }
            state.join(app)
        };
        // The sender is dropped only after it sent a place, and is kept while this request waits.
        waiting.await.unwrap_or(TurnPermit(None))
    }

    /// Passes a place to the next in line, or frees it.
    fn release(&self) {
        let mut place = TurnPermit(Some(self.clone()));
        loop {
            let next = {
                let mut state = self.state();
                let next = state.next();
                state.free += usize::from(next.is_none());
                next
            };
            let Some(next) = next else {
                // The place is already counted as free, so dropping it must not free it again.
                place.0 = None;
                return;
            };
            match next.send(place) {
                Ok(()) => return,
                // That request stopped waiting.
                Err(back) => place = back,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn join(&mut self, app: &AppId) -> oneshot::Receiver<TurnPermit> {
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

    fn next(&mut self) -> Option<oneshot::Sender<TurnPermit>> {
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

impl Drop for TurnPermit {
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
