//! Under which terms the lanes of this process run: what people decided about each lane when its rows were
//! read. A lane whose terms changed begins no attempt any more and reads its rows again; every other lane
//! goes on.
//!
//! A process that has its database to itself learns of changed terms where they are changed: whoever changes
//! rows says so to the deliverer of the app, which looks (`Terms::look`) before it goes on.
//!
//! Where replicas share a database, the one that changes terms may be another, and its word may be lost:
//! behind a pooler nobody can listen, and who listens misses what is told while the database restarts. So
//! no word is relied on. The lease keeper looks at the terms of all lanes here each [`LOOK`], in one
//! statement for some thousand lanes, and a lane may begin attempts only for [`CONFIRMED_FOR`] after the
//! moment at which the last look that saw its terms unchanged was *asked for*. Then it waits for another
//! look.
//!
//! That makes unwatching a fence. Let the rows of a watch be gone at a moment. A look that is asked for later
//! sees that they are gone and ends the lane; one that was asked for before lets the lane begin attempts for
//! no longer than [`CONFIRMED_FOR`] after that moment. So whoever waits [`FENCED_AFTER`] knows that no
//! attempt of the watch begins anywhere any more, whether its owner hears, sleeps or is cut from the
//! database. No clock is compared with another; only that they run about alike is assumed, as for leases. The
//! process that works on the watch itself needs no wait: it ends its lanes before it answers (`Terms::end`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::{AppId, CursorId, WatchId};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::ports::{LaneSnapshot, LaneTerms, Store, StoreError};

/// The wait between two looks at the terms of all lanes, where another replica may change them.
pub const LOOK: Duration = Duration::from_secs(1);
/// How long a lane may begin attempts after a look was asked for that saw its terms unchanged: some looks may
/// fail before deliveries stop.
pub const CONFIRMED_FOR: Duration = Duration::from_secs(4);
/// Nothing begins under terms that were changed so long ago: a fourth more than [`CONFIRMED_FOR`], because
/// two clocks do not run quite alike, and a look at one takes a moment.
pub const FENCED_AFTER: Duration = Duration::from_secs(5);
/// A look takes no longer.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Lanes that one statement looks at.
const LANES_A_LOOK: usize = 4_096;

/// The lanes of this process with their terms. Cheap to clone.
#[derive(Clone, Default)]
pub struct Terms(Arc<Table>);

#[derive(Default)]
struct Table {
    /// By the number of the reading of their rows.
    lanes: Mutex<Lanes>,
    /// Says that a look ended.
    looked: watch::Sender<()>,
}

#[derive(Default)]
struct Lanes {
    readings: u64,
    running: BTreeMap<u64, Arc<Running>>,
}

/// A lane that runs, or whose rows are being read.
struct Running {
    cursor: CursorId,
    state: Mutex<State>,
}

struct State {
    /// `None` while they are being read.
    of: Option<(AppId, WatchId, LaneTerms)>,
    /// `None`: nobody but this process changes terms.
    confirmed_until: Option<Instant>,
    end: Option<End>,
}

/// Why a lane begins no attempt any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its rows are to be read again.
    Changed,
    /// Its watch is gone: not even an attempt of several requests goes on.
    Gone,
}

impl Terms {
    /// Reads the rows of a lane, which runs under what they say from then on. `is_shared`: other
    /// processes may change them.
    ///
    /// # Errors
    /// Those of `reading`.
    pub(crate) async fn read(
        &self,
        cursor: &CursorId,
        is_shared: bool,
        reading: impl Future<Output = Result<LaneSnapshot, StoreError>>,
    ) -> Result<(LaneSnapshot, UnderTerms), StoreError> {
        // It is known before it reads: what ends while it reads ends this lane as well.
        let confirmed_until = is_shared.then(|| Instant::now() + CONFIRMED_FOR);
        let state = Mutex::new(State { of: None, confirmed_until, end: None });
        let lane = Arc::new(Running { cursor: cursor.clone(), state });
        let number = {
            let mut lanes = self.lanes();
            lanes.readings += 1;
            let number = lanes.readings;
            lanes.running.insert(number, lane.clone());
            number
        };
        let under = UnderTerms { terms: self.clone(), number, lane };
        let rows = reading.await?;
        under.lane.state().of = Some((rows.app.clone(), rows.watch.clone(), LaneTerms::of(&rows)));
        Ok((rows, under))
    }

    /// Looks at the terms of the lanes of one app, or of all: lanes whose terms changed end, the others
    /// may go on.
    ///
    /// # Errors
    /// When the store does not answer in time; what was seen until then counts.
    pub(crate) async fn look(&self, store: &dyn Store, app: Option<&AppId>) -> Result<(), StoreError> {
        let looked = self.look_at(store, self.of_app(app)).await;
        // Whoever waits for a look sees what became of its lane, also after one that failed.
        self.0.looked.send_replace(());
        looked
    }

    async fn look_at(&self, store: &dyn Store, lanes: Vec<Arc<Running>>) -> Result<(), StoreError> {
        for some in lanes.chunks(LANES_A_LOOK) {
            let asked = Instant::now();
            let cursors: Vec<CursorId> = some.iter().map(|lane| lane.cursor.clone()).collect();
            let late = |_| StoreError::Unavailable(format!("no answer within {LOOK_MAX:?}"));
            let now = timeout(LOOK_MAX, store.lane_terms(&cursors)).await.map_err(late)??;
            let now: HashMap<CursorId, LaneTerms> = now.into_iter().collect();
            some.iter().for_each(|lane| lane.see(now.get(&lane.cursor), asked));
        }
        Ok(())
    }

    /// A watch is gone: no attempt of it begins here from now on.
    pub(crate) fn end(&self, watch: &WatchId) {
        self.end_where(|(_, of, _)| of == watch);
    }

    /// The same for all that an app watched.
    pub(crate) fn end_app(&self, app: &AppId) {
        self.end_where(|(of, ..)| of == app);
    }

    /// A lane whose rows are being read may have read them before: it reads them again.
    fn end_where(&self, is_gone: impl Fn(&(AppId, WatchId, LaneTerms)) -> bool) {
        for lane in self.lanes().running.values() {
            let mut state = lane.state();
            match &state.of {
                Some(of) if is_gone(of) => state.end = Some(End::Gone),
                Some(_) => {}
                None => state.end = Some(End::Changed),
            }
        }
        self.0.looked.send_replace(());
    }

    /// The apps that have lanes which ended and were not dropped yet: they are to be told, until they are.
    pub(crate) fn ended(&self) -> BTreeSet<AppId> {
        let lanes = self.lanes();
        let ended = lanes.running.values().filter_map(|lane| {
            let state = lane.state();
            state.of.as_ref().filter(|_| state.end.is_some()).map(|(app, ..)| app.clone())
        });
        ended.collect()
    }

    /// Whether a lane of this cursor runs here, or its rows are being read.
    pub(crate) fn runs(&self, cursor: &CursorId) -> bool {
        self.lanes().running.values().any(|lane| lane.cursor == *cursor)
    }

    fn of_app(&self, app: Option<&AppId>) -> Vec<Arc<Running>> {
        let lanes = self.lanes();
        let is_meant = |lane: &&Arc<Running>| {
            let state = lane.state();
            let of = state.of.as_ref().filter(|_| state.end.is_none());
            of.is_some_and(|(of, ..)| app.is_none_or(|app| app == of))
        };
        lanes.running.values().filter(is_meant).cloned().collect()
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.0.lanes.lock()
    }
}

impl Running {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// What a look saw that was asked for at this moment.
    fn see(&self, now: Option<&LaneTerms>, asked: Instant) {
        let mut state = self.state();
        let lasts = |now: &LaneTerms| state.of.as_ref().is_some_and(|(.., terms)| terms.last_under(now));
        let end = match now {
            None => Some(End::Gone),
            Some(now) if lasts(now) => None,
            Some(_) => Some(End::Changed),
        };
        state.end = state.end.or(end);
        if let Some(until) = &mut state.confirmed_until {
            *until = (*until).max(asked + CONFIRMED_FOR);
        }
    }
}

/// A lane among those that run; dropped with it.
pub(crate) struct UnderTerms {
    terms: Terms,
    number: u64,
    lane: Arc<Running>,
}

impl UnderTerms {
    /// Whether its terms are what they were, as far as is known.
    pub(crate) fn stand(&self) -> bool {
        self.lane.state().end.is_none()
    }

    /// Whether its watch is gone.
    pub(crate) fn are_gone(&self) -> bool {
        self.lane.state().end == Some(End::Gone)
    }

    /// Whether they were looked at lately enough to begin an attempt.
    pub(crate) fn are_confirmed(&self) -> bool {
        self.lane.state().confirmed_until.is_none_or(|until| Instant::now() < until)
    }

    /// Hears when a look ended.
    pub(crate) fn looks(&self) -> watch::Receiver<()> {
        self.terms.0.looked.subscribe()
    }
}

impl Drop for UnderTerms {
    fn drop(&mut self) {
        self.terms.lanes().running.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
