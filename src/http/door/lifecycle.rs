//! Whether this process accepts work: `/readyz` tells load balancers, and tails of events end when it stops.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

/// Whether this process accepts work, and when it started. Clones share one state.
#[derive(Clone)]
pub struct Lifecycle {
    started: Instant,
    draining: Arc<watch::Sender<bool>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { started: Instant::now(), draining: Arc::default() }
    }
}

impl Lifecycle {
    /// Makes `/readyz` answer that this process is stopping.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether this process is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits until this process is stopping.
    pub async fn drained(&self) {
        // `self` holds the sender, so the channel cannot close during the wait.
        drop(self.draining.subscribe().wait_for(|is_draining| *is_draining).await);
    }

    /// Seconds since the start of this process.
    #[must_use]
    pub fn uptime_seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
