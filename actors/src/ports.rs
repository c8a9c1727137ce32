//! The interfaces between decisions (this crate) and input and output (the `tidings` crate). Each method of a
//! trait is a unit of consistency, never create-read-update-delete. In-memory versions for tests stand in
//! `crate::testing`.

mod administration;
mod app;
mod git;
mod lane;
mod leases;
mod ledger;
mod meter;
mod object;
mod receipt;
mod sealing;
mod searched;
mod store;
mod task;
mod tracer;
mod transport;
mod watch;

pub use administration::*;
pub use app::{access::*, hook::*, request::*, sink::*, *};
pub use git::*;
pub use lane::{history::*, letter::*, *};
pub use leases::*;
pub use ledger::{mail::*, subscription::*, subscription_message::*, *};
pub use meter::*;
pub use object::*;
pub use receipt::*;
pub use sealing::*;
pub use searched::*;
pub use store::*;
pub use task::{artifact::*, queue::*, schedule::*, topic::*, watch_task::*, worker_subscription::*, *};
pub use tracer::*;
pub use transport::*;
pub use watch::{status::*, trouble::*, *};

use std::time::Duration;

use tokio::time::Instant;

use crate::time::Timestamp;

/// The wall clock. Waits do not use it; they use tokio's clock.
pub trait Clock: Send + Sync + 'static {
    /// Now, in unix milliseconds.
    fn now(&self) -> Timestamp;

    /// Sets this clock by the clock that all replicas share: at `at` that clock showed `told`, give or take
    /// `error`. A process alone with its database needs no shared clock.
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
