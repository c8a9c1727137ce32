//! The bytes of contents and rendered bodies that may be in memory at a time, over all apps.
//!
//! Most of them come from a pool. An app gets bytes of the pool if what it then holds is at most what is then
//! free. So one app holds at most half of the pool, the next one at most half of the rest, and of `n` apps
//! that grow together each gets one of `n + 1` equal parts. Nobody waits in line for the pool: a request that
//! waits holds back nobody.
//!
//! A request that gets nothing of the pool waits until the pool has enough for it, or until it gets the one
//! place beside the pool, whatever comes first. One request at a time has the place, of any size. Waiting
//! apps take turns at it, so an app with many large files delays another app by one of them. A request that
//! needs less after a while, such as a body that is rendered, moves to the pool where its app's share allows.
//!
//! In all, the requests hold at most the pool and the largest single request. A waiting request costs an
//! entry; one that stops waiting takes nothing with it.

use std::{pin::pin, slice, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tidings_entity::id::AppId;
use tokio::sync::Notify;

use crate::limits::{
    shares::Pool,
    turns::{TurnPermit, Turns},
};

/// The budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: u64,
    pool: Mutex<Pool>,
    /// Notified when bytes of the pool were given back.
    freed: Notify,
    place: Turns,
}

/// Bytes that an app holds; they are free again when this is dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    budget: Budget,
    app: AppId,
    /// Bytes of the pool.
    bytes: u64,
    /// The place beside the pool, instead of bytes of the pool.
    place: Option<TurnPermit>,
}

impl Budget {
    /// Creates a budget with a pool of this many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let (pool, freed, place) = (Mutex::new(Pool::new(bytes, 1)), Notify::new(), Turns::new(1));
        Self(Arc::new(Shared { total: bytes, pool, freed, place }))
    }

    /// The most bytes of the pool that an app can hold.
    #[must_use]
    pub fn share_max(&self) -> u64 {
        self.0.total / 2
    }

    /// The number of bytes of the pool that no permit holds.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.pool().free()
    }

    /// Takes this many bytes of the pool, if what the app then holds is at most what is then free.
    #[must_use]
    pub fn try_take(&self, app: &AppId, bytes: u64) -> Option<MemoryPermit> {
        let mut pool = self.pool();
        let left = pool.free().checked_sub(bytes)?;
        let is_taken = pool.held_by(app) + bytes <= left && pool.take(slice::from_ref(app), bytes);
        drop(pool);
        is_taken.then(|| MemoryPermit { budget: self.clone(), app: app.clone(), bytes, place: None })
    }

    /// Waits for this many bytes: of the pool, or for the place beside it.
    pub async fn take(&self, app: &AppId, bytes: u64) -> MemoryPermit {
        let mut place = pin!(self.0.place.take(app));
        loop {
            let freed = self.0.freed.notified();
            if let Some(permit) = self.try_take(app, bytes) {
                return permit;
            }
            tokio::select! {
                place = &mut place => {
                    let place = Some(place);
                    return MemoryPermit { budget: self.clone(), app: app.clone(), bytes: 0, place };
                }
                () = freed => {}
            }
        }
    }

    fn give_back(&self, app: &AppId, bytes: u64) {
        self.pool().let_go(slice::from_ref(app), bytes);
        self.0.freed.notify_waiters();
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.pool.lock()
    }
}

impl MemoryPermit {
    /// Gives back the held bytes beyond this number. Gives back the place beside the pool, if the pool has
    /// this many bytes for the app.
    pub fn shrink(&mut self, bytes: u64) {
        if self.place.is_some() {
            if let Some(share) = self.budget.try_take(&self.app, bytes) {
                *self = share;
            }
            return;
        }
        let spare = self.bytes.saturating_sub(bytes);
        self.bytes -= spare;
        self.budget.give_back(&self.app, spare);
    }

    /// Whether this is the place beside the pool, and another app waits for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.place.is_some() && self.budget.0.place.is_wanted_beside(&self.app)
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        self.budget.give_back(&self.app, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, future::BoxFuture};

    const MIB: u64 = 1 << 20;

    fn app(number: u128) -> AppId {
        AppId::new(ulid::Ulid::from_parts(1, number))
    }

    /// A request that has begun to wait.
    fn waiting(budget: &Budget, number: u128, bytes: u64) -> BoxFuture<'static, MemoryPermit> {
        let (budget, app) = (budget.clone(), app(number));
        let mut waiting = async move { budget.take(&app, bytes).await }.boxed();
        assert!((&mut waiting).now_or_never().is_none(), "it waits");
        waiting
    }

    #[tokio::test]
    async fn held_bytes_are_counted_and_come_back() {
        let budget = Budget::new(100);
        let mut first = budget.take(&app(1), 50).await;
        assert!(budget.try_take(&app(1), 1).is_none(), "it would hold more than is free");
        first.shrink(10);
        assert_eq!(budget.free(), 90);
        first.shrink(20);
        assert_eq!(budget.free(), 90, "a permit does not grow");
        let second = budget.try_take(&app(1), 40).expect("half of it");
        drop((first, second));
        assert_eq!((budget.free(), budget.share_max()), (100, 50));
        assert!(budget.pool().is_whole(100), "nothing is kept of apps that hold none");
    }

    #[test]
    fn an_app_never_holds_more_than_half_of_the_pool_whatever_the_size_of_its_requests() {
        for size in 1..=60 {
            let (budget, mut held) = (Budget::new(120), Vec::new());
            while let Some(permit) = budget.try_take(&app(1), size) {
                held.push(permit);
            }
            let bytes = 120 - budget.free();
            assert!(bytes <= 60 && bytes + size > 60, "{bytes} of 120 in requests of {size}");
        }
    }

    #[test]
    fn however_greedy_some_apps_are_the_next_one_gets_an_ordinary_delivery() {
        let (budget, ordinary) = (Budget::new(128 * MIB), MIB);
        let mut held = Vec::new();
        for greedy in 1..=6 {
            let before = held.len();
            while let Some(permit) = budget.try_take(&app(greedy), ordinary) {
                held.push(permit);
            }
            assert!(held.len() > before, "app {greedy} gets some beside {before} MiB of the others");
        }
        assert!(budget.try_take(&app(7), ordinary).is_some());
        // The apps take turns instead: each gets its part of seven.
        held.clear();
        let mut turn = 0;
        while let Some(permit) = budget.try_take(&app(turn % 6), ordinary) {
            held.push(permit);
            turn += 1;
        }
        assert!(held.len() >= 6 * 17 && budget.free() >= 17 * MIB, "{} MiB are held", held.len());
    }

    #[tokio::test]
    async fn a_large_request_takes_nothing_from_the_pool_and_holds_back_only_large_ones() {
        let budget = Budget::new(4 * MIB);
        let large = budget.take(&app(1), 1 << 30).await;
        assert_eq!(budget.free(), 4 * MIB);
        let other_large = waiting(&budget, 2, 1 << 30);
        for number in 1..4 {
            assert!(budget.take(&app(number), MIB).now_or_never().is_some(), "a small one goes beside it");
        }
        assert!(large.is_awaited());
        drop(large);
        let other_large = other_large.now_or_never().expect("its turn");
        assert!(!other_large.is_awaited());
    }

    #[tokio::test]
    async fn a_large_request_leaves_the_place_as_soon_as_the_pool_has_room_for_the_rest() {
        let budget = Budget::new(4 * MIB);
        let mut large = budget.take(&app(1), 1 << 30).await;
        let other = waiting(&budget, 2, 1 << 30);
        large.shrink(3 * MIB);
        assert!(large.is_awaited(), "three of four are more than the share of an app");
        large.shrink(2 * MIB);
        assert_eq!(budget.free(), 2 * MIB);
        let mut other = other.now_or_never().expect("its turn");
        large.shrink(0);
        other.shrink(MIB);
        assert_eq!(budget.free(), 3 * MIB);
        drop((large, other));
        assert!(budget.pool().is_whole(4 * MIB));
    }

    #[tokio::test]
    async fn apps_take_turns_at_the_place_and_a_request_that_left_takes_no_turn() {
        let budget = Budget::new(MIB);
        let first = budget.take(&app(1), MIB).await;
        let own = [1, 1].map(|number| waiting(&budget, number, MIB));
        let left = waiting(&budget, 2, MIB);
        let other = waiting(&budget, 3, MIB);
        drop(left);
        drop(first);
        let [second, third] = own;
        let other = other.now_or_never().expect("before the second one of the first app");
        assert!(other.is_awaited());
        drop(other);
        drop(second.now_or_never().expect("and then that one"));
        drop(third.now_or_never().expect("nobody else waits"));
        assert!(budget.0.place.try_take().is_some(), "it is free again");
    }

    #[tokio::test]
    async fn whoever_waits_gets_bytes_of_the_pool_as_soon_as_they_are_free() {
        let budget = Budget::new(4 * MIB);
        let _place = budget.take(&app(9), 1 << 30).await;
        let held = budget.take(&app(1), 2 * MIB).await;
        let of_the_same = waiting(&budget, 1, MIB);
        let of_another = waiting(&budget, 2, 2 * MIB);
        assert!(budget.take(&app(3), MIB).now_or_never().is_some(), "nobody is held back by those who wait");
        drop(held);
        let got = of_the_same.now_or_never().expect("it would hold at most what is free");
        assert!(of_another.now_or_never().is_none(), "it would hold more than is free");
        drop(got);
        assert_eq!(budget.free(), 4 * MIB);
    }
}
