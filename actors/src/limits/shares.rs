//! Scarce units that apps share. Requests are served app by app, and an app takes more units only while it
//! leaves enough free for others: so one app alone holds at most a part of the units, and an app that holds
//! none always finds some.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::AppId;
use tokio::sync::Notify;

/// Units, and the apps that hold them.
#[derive(Debug)]
pub(crate) struct Pool {
    free: u64,
    /// An app holds at most this many times what it leaves free.
    greed: u64,
    held: HashMap<AppId, u64>,
}

impl Pool {
    pub(crate) fn new(units: u64, greed: u64) -> Self {
        Self { free: units, greed, held: HashMap::new() }
    }

    /// The units that nobody holds.
    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    /// The units that an app holds.
    pub(crate) fn held_by(&self, app: &AppId) -> u64 {
        self.held.get(app).copied().unwrap_or(0)
    }

    /// Whether this many units are free for these apps now.
    pub(crate) fn has_room(&self, apps: &[AppId], units: u64) -> bool {
        units <= self.free && self.may_hold(apps, units)
    }

    /// Whether one of these apps leaves enough units to others when it takes this many more. Units that serve
    /// no app may take all units.
    fn may_hold(&self, apps: &[AppId], units: u64) -> bool {
        let left = self.free.saturating_sub(units);
        apps.iter().map(|app| self.held_by(app)).min().unwrap_or(0) <= self.greed.saturating_mul(left)
    }

    /// Takes units, if these apps may have them now.
    pub(crate) fn take(&mut self, apps: &[AppId], units: u64) -> bool {
        if !self.has_room(apps, units) {
            return false;
        }
        self.free -= units;
        for app in apps {
            *self.held.entry(app.clone()).or_default() += units;
        }
        true
    }

    pub(crate) fn let_go(&mut self, apps: &[AppId], units: u64) {
        self.free += units;
        for app in apps {
            if let Some(held) = self.held.get_mut(app) {
                *held -= units;
                if *held == 0 {
                    self.held.remove(app);
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_whole(&self, units: u64) -> bool {
        self.free == units && self.held.is_empty()
    }
}

/// Units for which requests wait in a line. Clones share them.
#[derive(Clone)]
pub struct Shares(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Notified when a waiting request may be served that could not be before.
    changed: Notify,
}

struct State {
    pool: Pool,
    line: BTreeMap<Rank, Waiting>,
    /// The rank of the last request of each app that was not served yet, or was served just now.
    last: HashMap<AppId, u64>,
    /// The rank that was served last.
    served: u64,
    came: u64,
}

/// The rank of a waiting request: the number of its app's requests before it, then its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u64, u64);

struct Waiting {
    apps: Vec<AppId>,
    units: u64,
}

impl Shares {
    /// Creates this many units, of which one app holds at most `greed` times what it leaves free.
    #[must_use]
    pub fn new(units: u64, greed: u64) -> Self {
        let state = State {
            pool: Pool::new(units, greed),
            line: BTreeMap::new(),
            last: HashMap::new(),
            served: 0,
            came: 0,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }))
    }

    /// Stands in line for this many units; there must be as many in all.
    #[must_use]
    pub fn join(&self, apps: &[AppId], units: u64) -> QueuedShare {
        let mut state = self.state();
        let last = apps.iter().map(|app| state.last.get(app).map_or(0, |last| last + 1)).min();
        let rank = Rank(last.unwrap_or(0).max(state.served), state.came);
        state.came += 1;
        for app in apps {
            let last = state.last.entry(app.clone()).or_default();
            *last = rank.0.max(*last);
        }
        state.line.insert(rank, Waiting { apps: apps.to_vec(), units });
        QueuedShare { shares: self.clone(), rank }
    }

    /// Waits for units, of which there must be as many at all.
    pub async fn take(&self, apps: &[AppId], units: u64) -> Share {
        if let Some(share) = self.take_at_once(apps, units) {
            return share;
        }
        let mut place = self.join(apps, units);
        loop {
            let changed = self.0.changed.notified();
            match place.try_take() {
                Ok(share) => return share,
                Err(waits) => place = waits,
            }
            changed.await;
        }
    }

    /// Takes units without a place in the line, if nobody waits and these apps may have them: most requests
    /// of polls are served so.
    fn take_at_once(&self, apps: &[AppId], units: u64) -> Option<Share> {
        let mut state = self.state();
        let is_taken = state.line.is_empty() && state.pool.take(apps, units);
        is_taken.then(|| Share { shares: self.clone(), apps: apps.to_vec(), units })
    }

    /// Whether a request waits for a share.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.state().line.is_empty()
    }

    /// The number of requests that wait for a share.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().line.len()
    }

    /// Whether no share is held and no request waits.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

impl State {
    /// Takes the units of the next request: the first in line whose app may have more. Requests behind it
    /// wait until there are enough units for it.
    fn serve(&mut self, rank: Rank) -> Option<Waiting> {
        let may_have = |waiting: &Waiting| self.pool.may_hold(&waiting.apps, waiting.units);
        let (next, waiting) = self.line.iter().find(|(_, waiting)| may_have(waiting))?;
        if *next != rank || !self.pool.take(&waiting.apps, waiting.units) {
            return None;
        }
        self.served = rank.0;
        self.leave(rank)
    }

    fn leave(&mut self, rank: Rank) -> Option<Waiting> {
        let left = self.line.remove(&rank);
        let (served, is_anybody_there) = (self.served, !self.line.is_empty());
        self.last.retain(|_, last| is_anybody_there && *last >= served);
        left
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        formatter
            .debug_struct("Shares")
            .field("pool", &state.pool)
            .field("waiting", &state.line.len())
            .finish()
    }
}

/// A place in the queue, which is left when the value is dropped.
#[derive(Debug)]
pub struct QueuedShare {
    shares: Shares,
    rank: Rank,
}

impl QueuedShare {
    /// Takes the share, if this request has its turn and enough units are free.
    ///
    /// # Errors
    /// The place in the line, if not.
    pub fn try_take(self) -> Result<Share, Self> {
        let served = self.shares.state().serve(self.rank);
        let Some(Waiting { apps, units }) = served else { return Err(self) };
        Ok(Share { shares: self.shares.clone(), apps, units })
    }
}

impl Drop for QueuedShare {
    fn drop(&mut self) {
        self.shares.state().leave(self.rank);
        self.shares.0.changed.notify_waiters();
    }
}

/// Units that are held, given back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    apps: Vec<AppId>,
    units: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.state().pool.let_go(&self.apps, self.units);
        self.shares.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn app(number: u128) -> [AppId; 1] {
        [AppId::new(Ulid::from_parts(1, number))]
    }

    fn taken(place: QueuedShare) -> Share {
        place.try_take().expect("its turn")
    }

    #[test]
    fn a_share_is_taken_at_once_only_where_nobody_waits() {
        let shares = Shares::new(2, 3);
        let own = shares.take_at_once(&app(1), 1).expect("nobody waits");
        let place = shares.join(&app(2), 1);
        assert!(shares.take_at_once(&app(3), 1).is_none(), "another app waits");
        drop(place);
        let other = shares.take_at_once(&app(3), 1).expect("nobody waits any more");
        assert!(shares.take_at_once(&app(4), 1).is_none(), "nothing is free");
        drop((own, other));
        assert!(shares.is_unused() && shares.state().pool.is_whole(2));
    }

    #[test]
    fn an_app_leaves_a_part_to_others_and_finds_some_where_it_holds_nothing() {
        let shares = Shares::new(4, 3);
        let own: Vec<Share> = (0..3).map(|_| taken(shares.join(&app(1), 1))).collect();
        let fourth = shares.join(&app(1), 1).try_take().expect_err("the last one is for others");
        let other = taken(shares.join(&app(2), 1));
        let third = shares.join(&app(3), 1).try_take().expect_err("nothing is free");
        drop(own);
        let fourth = fourth.try_take().expect("room again");
        drop((third.try_take().expect("room again"), fourth, other));
        assert!(shares.state().pool.is_whole(4));
        assert!(!shares.is_wanted());
    }

    #[test]
    fn requests_are_served_app_by_app() {
        let shares = Shares::new(1, 3);
        let mut held = taken(shares.join(&app(1), 1));
        let mut waiting: Vec<(u128, QueuedShare)> =
            [1, 1, 1, 2, 2, 3].map(|number| (number, shares.join(&app(number), 1))).into();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(held);
            let mut next = None;
            for (number, place) in std::mem::take(&mut waiting) {
                match place.try_take() {
                    Ok(share) => next = Some((number, share)),
                    Err(place) => waiting.push((number, place)),
                }
            }
            let (number, share) = next.expect("somebody is next");
            order.push(number);
            held = share;
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1]);
    }

    #[test]
    fn who_wants_little_does_not_overtake_who_wants_much() {
        let shares = Shares::new(10, 1);
        let held = taken(shares.join(&app(1), 5));
        let much = shares.join(&app(2), 10).try_take().expect_err("half is held");
        let little = shares.join(&app(3), 1).try_take().expect_err("others came before");
        drop(held);
        let little = little.try_take().expect_err("others came before");
        let much = much.try_take().expect("all is free");
        drop(much);
        drop(little.try_take().expect("free again"));
        assert!(shares.state().last.is_empty(), "nothing is remembered of who is served");
    }

    #[test]
    fn who_goes_away_is_waited_for_no_more() {
        let shares = Shares::new(1, 1);
        let held = taken(shares.join(&app(1), 1));
        let gone = shares.join(&app(2), 1);
        let waits = shares.join(&app(3), 1).try_take().expect_err("it is held");
        drop((gone, held));
        drop(waits.try_take().expect("its turn"));
        assert!(shares.is_unused());
    }

    #[tokio::test]
    async fn waiting_ends_when_a_share_is_given_back() {
        let shares = Shares::new(1, 1);
        let held = shares.take(&app(1), 1).await;
        let other = app(2);
        let (second, ()) = tokio::join!(shares.take(&other, 1), async { drop(held) });
        drop(second);
        assert!(shares.state().pool.is_whole(1));
    }
}
