//! The seams between what decides (this crate) and what touches the world (the `tidings` crate).
//! Each trait's verbs are units of consistency, never create-read-update-delete. In-memory
//! versions for tests stand in `crate::testing`.

mod access;
mod administration;
mod app;
mod git;
mod history;
mod lane;
mod leases;
mod ledger;
mod letter;
mod meter;
mod receipt;
mod request;
mod sealing;
mod sink;
mod store;
mod subscription;
mod tracer;
mod transport;
mod trouble;
mod watch;

pub use access::*;
pub use administration::*;
pub use app::*;
pub use git::*;
pub use history::*;
pub use lane::*;
pub use leases::*;
pub use ledger::*;
pub use letter::*;
pub use meter::*;
pub use receipt::*;
pub use request::*;
pub use sealing::*;
pub use sink::*;
pub use store::*;
pub use subscription::*;
pub use tracer::*;
pub use transport::*;
pub use trouble::*;
pub use watch::*;

use std::time::Duration;

use tokio::time::Instant;

use crate::time::Timestamp;

/// The wall clock. Waits do not use it; they use tokio's clock.
pub trait Clock: Send + Sync + 'static {
    /// Now, in unix milliseconds.
    fn now(&self) -> Timestamp;

    /// At this moment the clock that all replicas share said so, give or take `error`: from now on that
    /// one is followed. One that is nobody else's follows none.
    fn follow(&self, _told: Timestamp, _at: Instant, _error: Duration) {}
}

/// Randomness for jitter, ids and secrets.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes` from a cryptographically secure source.
    fn fill(&self, bytes: &mut [u8]);

    /// A number from 0 to `bound` - 1; 0 when `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        if bound == 0 { 0 } else { u64::from_be_bytes(bytes) % bound }
    }

    /// A fresh ULID of the given moment.
    fn ulid(&self, now: Timestamp) -> ulid::Ulid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        ulid::Ulid::from_parts(u64::try_from(now.0).unwrap_or(0), u128::from_be_bytes(bytes))
    }
}
