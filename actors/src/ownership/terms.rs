//! The terms of the lanes of this process: the decisions of people about each lane at the moment when its
//! rows were read. A lane whose terms changed begins no more attempts and reads its rows again; other lanes
//! go on.
//!
//! A process that has its database to itself learns of changed terms where they are changed: the code that
//! changes rows tells the deliverer of the app, which compares the terms (`Terms::look`) before it goes on.
//!
//! Where replicas share a database, another replica may change terms, and its notification may be lost:
//! behind a pooler no replica can listen, and notifications are missed while the database restarts. So no
//! notification is relied on. The lease keeper looks at the terms of all lanes here each [`LOOK`], in one
//! statement for some thousand lanes. A lane may begin attempts only for [`CONFIRMED_FOR`] after the
//! *request* of the last look that found its terms unchanged. Then the lane waits for another look.
//!
//! That makes the removal of a watch a fence. A look that is requested after the removal sees it and ends the
//! lane. A look that was requested before lets the lane begin attempts for at most [`CONFIRMED_FOR`] after
//! the removal. So [`FENCED_AFTER`] later no attempt of the watch begins anywhere, even if the replica that
//! works on it sleeps or is cut off from the database. No two clocks are compared; they only have to run at
//! about the same speed, as for leases. The process that works on the watch itself needs no wait: it ends its
//! lanes before it answers (`Terms::end`).

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
/// No work begins under terms that were changed this long ago: a fourth more than [`CONFIRMED_FOR`], because
/// two clocks do not run quite alike, and reading one takes a moment.
pub const FENCED_AFTER: Duration = Duration::from_secs(5);
/// A look takes no longer.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// The number of lanes that one statement reads the terms of.
const LANES_A_LOOK: usize = 4_096;

/// The lanes of this process with their terms. Cheap to clone.
#[derive(Clone, Default)]
pub struct Terms(Arc<Table>);

#[derive(Default)]
struct Table {
    /// The lanes, by the number under which their rows were read.
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
    /// The end of the last confirmation; `None`: only this process changes terms.
    confirmed_until: Option<Instant>,
    end: Option<End>,
}

/// Why a lane begins no attempt any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The rows of the lane must be read again.
    Changed,
    /// The watch of the lane is gone: even an attempt of several requests ends.
    Gone,
}

impl Terms {
    /// Reads the rows of a lane, which runs under their terms from then on. `is_shared`: other processes may
    /// change them.
    ///
    /// # Errors
    /// The errors of `reading`.
    pub(crate) async fn read(
        &self,
        cursor: &CursorId,
        is_shared: bool,
        reading: impl Future<Output = Result<LaneSnapshot, StoreError>>,
    ) -> Result<(LaneSnapshot, UnderTerms), StoreError> {
        // The lane is registered before it reads, so that a change of terms during the read ends it as well.
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

    /// Looks at the terms of the lanes of one app, or of all: lanes whose terms changed end, the others may
    /// go on.
    ///
    /// # Errors
    /// When the store does not answer in time; the terms read until then count.
    pub(crate) async fn look(&self, store: &dyn Store, app: Option<&AppId>) -> Result<(), StoreError> {
        let looked = self.look_at(store, self.of_app(app)).await;
        // Tasks that wait for a look are woken, also after a look that failed.
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

    /// Ends all lanes of an app's watches.
    pub(crate) fn end_app(&self, app: &AppId) {
        self.end_where(|(of, ..)| of == app);
    }

    /// Ends the lanes of a removed watch. A lane whose rows are being read may have read them before the
    /// removal: it reads them again.
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

    /// The apps with lanes that ended and were not dropped yet: their deliverers must be told.
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

    /// Applies the terms that a look found; the look was requested at `asked`.
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
    /// Whether the terms are unchanged, as far as is known.
    pub(crate) fn stand(&self) -> bool {
        self.lane.state().end.is_none()
    }

    /// Whether the watch of the lane is gone.
    pub(crate) fn are_gone(&self) -> bool {
        self.lane.state().end == Some(End::Gone)
    }

    /// Whether the terms were read recently enough to begin an attempt.
    pub(crate) fn are_confirmed(&self) -> bool {
        self.lane.state().confirmed_until.is_none_or(|until| Instant::now() < until)
    }

    /// A receiver that is notified when a look ends.
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
