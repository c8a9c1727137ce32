//! How many packs are indexed at the same time, over all fetches of this process. During indexing libgit2
//! keeps some 160 bytes for each object, and the whole bases of large deltas.
//!
//! A pack of few objects is indexed as it comes. A larger one is received to disk as a whole first, so that a
//! slow host holds no memory that other fetches wait for. Then the fetch takes a share of the budget here,
//! app by app. A share is kept for [`SHARE_TIME`], and longer if no other fetch waits for it.

use std::{sync::LazyLock, thread, time::Duration};

use tidings_actors::{
    limits::shares::{Share, Shares},
    ports::GitError,
};
use tidings_entity::id::AppId;

/// A pack of at most this many objects is indexed as it arrives, without a share: 160 KB of memory.
pub(crate) const FEW_OBJECTS: u32 = 1_000;
/// Packs with more objects than this are indexed one by one.
const MANY_OBJECTS: u32 = 100_000;
/// Packs with deltas of larger objects than this are indexed one by one as well.
const LARGE_DELTA_BYTES: u64 = 8 << 20;
/// For this time no other fetch can take a share away.
pub(crate) const SHARE_TIME: Duration = Duration::from_mins(1);
/// An app holds at most this many times what it leaves to other apps.
const GREED: u64 = 3;
/// Between two looks whether it is free.
const LOOK: Duration = Duration::from_millis(50);

/// Objects of packs that are indexed side by side: 40 MB of memory.
static OBJECTS: LazyLock<Shares> = LazyLock::new(|| Shares::new(250_000, GREED));
/// Packs that are indexed one by one: those with many objects (`git.fetch_max_objects` bounds the number),
/// and those with large deltas.
static ALONE: LazyLock<Shares> = LazyLock::new(|| Shares::new(1, GREED));

/// The budget that a pack needs a share of, and the size of the share; `None`: the pack is small.
pub(crate) fn share_of(objects: u32, largest_delta: u64) -> Option<(&'static Shares, u64)> {
    if objects > MANY_OBJECTS || largest_delta > LARGE_DELTA_BYTES {
        Some((&ALONE, 1))
    } else {
        (objects > FEW_OBJECTS).then(|| (&*OBJECTS, u64::from(objects)))
    }
}

/// Waits for a share for these apps; blocks. `goes_on` is called repeatedly and ends the wait with its error.
///
/// # Errors
/// The error of `goes_on`.
pub(crate) fn take(
    shares: &Shares,
    apps: &[AppId],
    units: u64,
    goes_on: impl Fn() -> Result<(), GitError>,
) -> Result<Share, GitError> {
    let mut place = shares.join(apps, units);
    loop {
        goes_on()?;
        match place.try_take() {
            Ok(share) => return Ok(share),
            Err(waits) => place = waits,
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_much_memory_goes_one_by_one_and_the_rest_shares() {
        let kind = |objects, largest_delta| {
            share_of(objects, largest_delta)
                .map(|(shares, units)| (std::ptr::eq(shares, &raw const *ALONE), units))
        };
        assert_eq!(kind(FEW_OBJECTS, LARGE_DELTA_BYTES), None);
        assert_eq!(kind(FEW_OBJECTS + 1, 0), Some((false, 1_001)));
        assert_eq!(kind(MANY_OBJECTS, 0), Some((false, 100_000)));
        assert_eq!(kind(MANY_OBJECTS + 1, 0), Some((true, 1)));
        assert_eq!(kind(1, LARGE_DELTA_BYTES + 1), Some((true, 1)));
    }

    #[test]
    fn a_share_is_waited_for_until_nobody_wants_the_pack() {
        let shares = Shares::new(10, GREED);
        let held = take(&shares, &[], 6, || Ok(())).expect("free");
        let asked = std::cell::Cell::new(0);
        let gives_up = || {
            asked.set(asked.get() + 1);
            if asked.get() < 3 { Ok(()) } else { Err(GitError::Cancelled) }
        };
        assert!(matches!(take(&shares, &[], 5, gives_up), Err(GitError::Cancelled)));
        assert!(!shares.is_wanted(), "who gave up waits no more");
        drop(held);
        drop(take(&shares, &[], 10, || Ok(())).expect("all of it"));
    }
}
