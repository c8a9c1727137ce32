//! Upkeep on timers: removing old rows and keeping mirrors small. Two actors under the
//! `housekeeping` supervisor, restarted after a failure; each has one timer and one task, so their
//! mailboxes hold at most one message. A crash loses one round of upkeep.

mod mirror_keeper;
mod retention;

pub use mirror_keeper::{MirrorKeeper, MirrorKeeperMessage};
pub use retention::{Retention, RetentionMessage};

use std::sync::Arc;

use crate::{context::Context, directory::Gauge};

/// What an actor of upkeep is made of.
#[derive(Clone)]
pub struct UpkeepArguments {
    /// Ports and policies.
    pub context: Context,
    /// Its gauge.
    pub gauge: Arc<Gauge>,
}

#[cfg(test)]
mod tests;
