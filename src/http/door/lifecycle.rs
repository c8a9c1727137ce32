//! Whether this process takes work. `/readyz` tells load balancers, tails of events end when it stops.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;

/// Whether this process takes work, and since when it runs. Clones share one state.
#[derive(Clone)]
pub struct Lifecycle {
    started: Instant,
    draining: Arc<AtomicBool>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { started: Instant::now(), draining: Arc::default() }
    }
}

impl Lifecycle {
    /// From now on `/readyz` says no: this process is stopping.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether this process is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Seconds since the start of this process.
    #[must_use]
    pub fn uptime_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
