//! The bytes of rendered deliveries that all lanes together may hold: so memory stays bounded when a thousand
//! receivers are slow at the same time. Waiting requests are served in order, so a large file is not
//! overtaken for ever by small ones.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit that is counted, in bytes: a semaphore counts to four thousand million.
const UNIT: u64 = 1 << 10;

/// The budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    /// Creates a budget of this many bytes, at least one KiB.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let total = units(bytes).max(1);
        Self { free: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Takes this many bytes if they are free now; `None`: they are not.
    #[must_use]
    pub fn try_take(&self, bytes: u64) -> Option<MemoryPermit> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(self.share(bytes)).ok()?;
        Some(MemoryPermit(permit))
    }

    /// Waits for this many bytes, or for the whole budget if that is less.
    ///
    /// # Panics
    /// Never: the budget is never closed.
    pub async fn take(&self, bytes: u64) -> MemoryPermit {
        let permit = Arc::clone(&self.free).acquire_many_owned(self.share(bytes)).await;
        MemoryPermit(permit.expect("the budget is never closed"))
    }

    /// The number of bytes that no permit holds.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.available_permits() as u64 * UNIT
    }

    fn share(&self, bytes: u64) -> u32 {
        units(bytes).min(self.total)
    }
}

/// Bytes that are held; they are free again when this is dropped.
#[derive(Debug)]
pub struct MemoryPermit(OwnedSemaphorePermit);

impl MemoryPermit {
    /// Gives back the held bytes beyond this number.
    pub fn shrink(&mut self, bytes: u64) {
        let spare = self.0.num_permits().saturating_sub(units(bytes) as usize);
        drop(self.0.split(spare));
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_counted_and_comes_back() {
        let budget = Budget::new(10 * UNIT);
        let mut first = budget.take(6 * UNIT).await;
        assert!(budget.try_take(5 * UNIT).is_none());
        first.shrink(2 * UNIT - 1);
        assert_eq!(budget.free(), 8 * UNIT);
        let second = budget.try_take(8 * UNIT).expect("free");
        drop((first, second));
        assert_eq!(budget.free(), 10 * UNIT);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_everything_is_everything_and_waits_its_turn() {
        let budget = Budget::new(4 * UNIT);
        let small = budget.take(1).await;
        let (of, waiting) = (budget.clone(), tokio::task::JoinSet::<MemoryPermit>::new());
        let mut waiting = waiting;
        waiting.spawn(async move { of.take(1 << 30).await });
        tokio::task::yield_now().await;
        assert!(budget.try_take(1).is_none(), "a large one that waits is not overtaken");
        drop(small);
        let all = waiting.join_next().await.expect("one").expect("no panic");
        assert_eq!(budget.free(), 0);
        drop(all);
        assert_eq!(budget.free(), 4 * UNIT);
    }
}
