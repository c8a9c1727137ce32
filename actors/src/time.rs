//! Moments and spans as numbers. Wall-clock moments are unix milliseconds and come from
//! [`crate::ports::Clock`]; waits are measured on tokio's clock, which tests can pause.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A wall-clock moment in unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `wait` after this one.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The span from `earlier` to this moment; nothing when the clock went backwards.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}
