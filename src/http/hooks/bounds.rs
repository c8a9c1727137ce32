//! What hooks may cost whoever sends them. Anybody can send one, and whoever saw one may send it
//! again under another delivery id (GitHub signs the body only), so each cost has a bound of its own:
//! memory for bodies beyond the usual size, rows of refused and repeated hooks, rows of genuine ones.
//! Beyond a bound hooks are answered and not kept; polling finds what they would have told.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::super::problem::{Kind, Problem};

/// So much of every body is free, as on every other route (1 MiB, in bytes).
const FREE_BYTES: usize = 1 << 20;
/// All that is beyond it, of all bodies together (64 MiB, in KiB).
const SHARED_KIB: usize = 64 << 10;
/// Refused and repeated hooks that are written: one a second, after this many at once.
const NOTES: (f64, f64) = (1.0, 50.0);
/// Genuine hooks that are taken in: so many a second, after so many at once.
const RECEIPTS: (f64, f64) = (200.0, 1_000.0);
/// How many seconds a host should wait beyond a bound.
const RETRY_AFTER_SECONDS: u64 = 10;

/// The bounds of one process.
pub struct Bounds {
    bodies: Arc<Semaphore>,
    notes: Mutex<Bucket>,
    receipts: Mutex<Bucket>,
}

impl Default for Bounds {
    fn default() -> Self {
        let bucket = |(rate, burst)| Mutex::new(Bucket::full(rate, burst, Instant::now()));
        Self {
            bodies: Arc::new(Semaphore::new(SHARED_KIB)),
            notes: bucket(NOTES),
            receipts: bucket(RECEIPTS),
        }
    }
}

impl Bounds {
    /// Bounds that are reached.
    #[cfg(test)]
    pub(in crate::http) fn spent() -> Self {
        let spent = || Mutex::new(Bucket { tokens: 0.0, ..Bucket::full(0.0, 1.0, Instant::now()) });
        Self { bodies: Arc::new(Semaphore::new(0)), notes: spent(), receipts: spent() }
    }

    /// Room for one body, as it arrives.
    pub(in crate::http) fn room(&self) -> Room {
        Room { bodies: self.bodies.clone(), held: None, bytes: 0 }
    }

    /// Whether a refused or repeated hook is written: for how many of them the row stands.
    pub(super) fn note(&self) -> Option<u64> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.take(Instant::now())
    }

    /// Whether a genuine hook is taken in.
    pub(super) fn admit(&self) -> Result<(), Problem> {
        let mut receipts = self.receipts.lock().unwrap_or_else(PoisonError::into_inner);
        match receipts.take(Instant::now()) {
            Some(_) => Ok(()),
            None => Err(Problem::new(Kind::TOO_MANY).retry_after(RETRY_AFTER_SECONDS)),
        }
    }
}

/// What one body holds of the memory for bodies; given back when dropped.
pub(in crate::http) struct Room {
    bodies: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Room {
    /// Makes room for so many more bytes.
    ///
    /// # Errors
    /// 503 when other bodies hold it all: waiting would hold what has arrived.
    pub(in crate::http) fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bytes += bytes;
        let needed = self.bytes.saturating_sub(FREE_BYTES).div_ceil(1024);
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(needed.saturating_sub(held)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let Ok(permit) = self.bodies.clone().try_acquire_many_owned(more) else {
            return Err(Problem::new(Kind::UNAVAILABLE).retry_after(RETRY_AFTER_SECONDS));
        };
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }
}

/// A bucket of tokens, pure.
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
    missed: u64,
}

impl Bucket {
    fn full(rate: f64, burst: f64, now: Instant) -> Self {
        Self { rate, burst, tokens: burst, at: now, missed: 0 }
    }

    /// Takes a token: how many asked since the last who got one, this one included.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * self.rate).min(self.burst);
        self.at = now;
        if self.tokens < 1.0 {
            self.missed += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.missed) + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate_and_counts_who_got_nothing() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut bucket = Bucket::full(1.0, 3.0, start);
        let got: Vec<_> = (0..10).map(|_| bucket.take(at(0))).collect();
        assert_eq!(got.iter().filter(|got| **got == Some(1)).count(), 3);
        assert_eq!(bucket.take(at(999)), None);
        assert_eq!(bucket.take(at(1_001)), Some(9), "eight before it and itself");
        assert_eq!(bucket.take(at(1_002)), None);
        assert_eq!((0..10).filter_map(|_| bucket.take(at(60_000))).count(), 3, "no more than the burst");
    }

    #[test]
    fn large_bodies_share_one_room_and_small_ones_always_fit() {
        let bounds = Bounds::default();
        let mut first = bounds.room();
        assert!(first.take(FREE_BYTES).is_ok());
        assert_eq!(bounds.bodies.available_permits(), SHARED_KIB);
        assert!(first.take(SHARED_KIB * 1024).is_ok(), "all of it");
        let mut second = bounds.room();
        assert!(second.take(FREE_BYTES).is_ok());
        assert_eq!(second.take(1).map_err(|problem| problem.status().as_u16()), Err(503));
        drop(first);
        assert!(second.take(1).is_ok());
        drop(second);
        assert_eq!(bounds.bodies.available_permits(), SHARED_KIB);
    }
}
