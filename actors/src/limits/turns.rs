//! Places that all apps share; waiting apps take turns, however much work each of them has. An app with a
//! million changes delays another app by one place at most. An app that gives a place back gets it again
//! only if no other app waits.
//!
//! Each waiting request costs an entry; the lanes of an app bound their number. A request that stops waiting
//! costs no turn, and no entry beyond the next request of its app.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::AppId;
use tokio::sync::oneshot;
use ulid::Ulid;

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
pub struct TurnPermit {
    /// Missing once the place is free or passed on.
    turns: Option<Turns>,
    /// The app that has the place.
    app: Option<AppId>,
}

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
        Some(TurnPermit { turns: Some(self.clone()), app: None })
    }

    /// Whether another app waits for a place.
    #[must_use]
    pub fn is_wanted_beside(&self, app: &AppId) -> bool {
        let is_open = |waiting: &VecDeque<oneshot::Sender<_>>| waiting.iter().any(|one| !one.is_closed());
        self.state().waiting.iter().any(|(other, waiting)| other != app && is_open(waiting))
    }

    /// Waits for a place.
    pub async fn take(&self, app: &AppId) -> TurnPermit {
        let waiting = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return TurnPermit { turns: Some(self.clone()), app: Some(app.clone()) };
            }
            state.join(app)
        };
        // The sender is dropped only after it sent a place, and is kept while this request waits.
        waiting.await.unwrap_or(TurnPermit { turns: None, app: None })
    }

    /// Waits for a place for work that serves these apps, in the turn of the app that has the fewest requests
    /// waiting. All work that serves no app takes turns like one app.
    pub async fn take_for(&self, apps: &[AppId]) -> TurnPermit {
        if let Some(place) = self.try_take() {
            return place;
        }
        let app = {
            let state = self.state();
            let waiting = |app: &&AppId| state.waiting.get(*app).map_or(0, VecDeque::len);
            apps.iter().min_by_key(waiting).cloned()
        };
        self.take(&app.unwrap_or_else(|| AppId::new(Ulid::nil()))).await
    }

    /// Passes a place to the next in line after the app that had it, or frees it.
    fn release(&self, had: Option<&AppId>) {
        loop {
            let next = {
                let mut state = self.state();
                let next = state.next(had);
                state.free += usize::from(next.is_none());
                next
            };
            let Some((app, next)) = next else { return };
            let Err(mut back) = next.send(TurnPermit { turns: Some(self.clone()), app: Some(app) }) else {
                return;
            };
            // That request stopped waiting, and dropping its place must not free it.
            back.turns = None;
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
            Some(of_app) => {
                of_app.retain(|waiting| !waiting.is_closed());
                of_app.push_back(sender);
            }
            None => {
                self.waiting.insert(app.clone(), VecDeque::from([sender]));
                self.order.push_back(app.clone());
            }
        }
        waiting
    }

    /// The next request in line and its app: of another app than this one, if another one waits.
    fn next(&mut self, had: Option<&AppId>) -> Option<(AppId, oneshot::Sender<TurnPermit>)> {
        loop {
            let other = self.order.iter().position(|app| Some(app) != had);
            let app = self.order.remove(other.unwrap_or(0))?;
            let Some(of_app) = self.waiting.get_mut(&app) else { continue };
            let next = of_app.pop_front();
            if of_app.is_empty() {
                self.waiting.remove(&app);
            } else {
                self.order.push_back(app.clone());
            }
            if let Some(next) = next.filter(|next| !next.is_closed()) {
                return Some((app, next));
            }
        }
    }
}

impl Drop for TurnPermit {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.release(self.app.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::time::Duration;
    use tokio::task::{JoinSet, yield_now};

    fn app(number: u128) -> AppId {
        AppId::new(Ulid::from_parts(1, number))
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

    /// A repository that a busy app watches as well does not wait behind all other work of that app.
    #[tokio::test]
    async fn work_for_several_apps_goes_with_the_least_busy_one_and_work_for_none_waits_its_turn() {
        let turns = Turns::new(1);
        let taken = turns.take(&app(1)).await;
        let (busy, both) = ([app(1)], [app(1), app(2)]);
        let mut waiting: Vec<_> =
            [&busy[..], &busy, &both, &[]].map(|apps| Box::pin(turns.take_for(apps))).into();
        assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        drop(taken);
        for (next, who) in [(2, "both"), (0, "the busy app"), (1, "nobody"), (0, "the busy app again")] {
            let is_served = waiting.remove(next).now_or_never().is_some();
            assert!(is_served, "it was the turn of {who}");
        }
    }

    /// A slow download is broken off once another app waits; its app asks again on a second connection.
    #[tokio::test]
    async fn a_place_goes_to_another_app_before_it_comes_back() {
        let turns = Turns::new(1);
        let taken = turns.take(&app(1)).await;
        let (slow, other) = (app(1), app(2));
        let (mut again, mut waiting) = (Box::pin(turns.take(&slow)), Box::pin(turns.take(&other)));
        assert!((&mut again).now_or_never().is_none() && (&mut waiting).now_or_never().is_none());
        drop(taken);
        assert!((&mut again).now_or_never().is_none(), "it had the place");
        drop(waiting.now_or_never().expect("its turn"));
        drop(again.now_or_never().expect("nobody else waits"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_takes_no_place_with_it() {
        let turns = Turns::new(1);
        let taken = turns.take(&app(1)).await;
        for _ in 0..10 {
            let left = tokio::time::timeout(Duration::from_millis(1), turns.take(&app(2))).await;
            assert!(left.is_err(), "there is no place");
        }
        assert_eq!(turns.state().waiting[&app(2)].len(), 1, "who left before is forgotten");
        assert!(!turns.is_wanted_beside(&app(1)));
        let (one, other) = (app(3), app(4));
        let mut waiting = Box::pin(turns.take(&one));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(taken);
        // The place was given to one who then does not come for it.
        drop(waiting);
        let _place = tokio::time::timeout(Duration::from_secs(1), turns.take(&other)).await.expect("free");
    }
}
