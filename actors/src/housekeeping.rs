//! Upkeep on timers: removes old rows, keeps mirrors small and undamaged, redrives letters whose content can
//! be fetched again, measures the installation, keeps the leases of a replica, writes folded ledger entries,
//! wakes subscriptions, tells Git hosts the statuses of watches, moves tasks by the clock, and removes
//! objects of artifacts without a row. Ten actors, the line of workers ([`claims`]) and the actor that
//! tells workers of work ([`work_caller`]) under the `housekeeping` supervisor, restarted after a
//! failure; each has one timer and few tasks at a time. A crash loses one round of upkeep.

mod artifact_keeper;
mod chore;
pub mod claims;
mod clock_keeper;
mod lease_keeper;
mod ledger_keeper;
mod letter_keeper;
mod mirror_keeper;
mod retention;
mod status_keeper;
mod subscription_keeper;
mod surveyor;
pub mod work_caller;

pub use artifact_keeper::ArtifactKeeper;
pub use chore::{Chore, ChoreActor, ChoreMessage};
pub use clock_keeper::{ClockKeeper, ClockKeeperMessage};
pub use lease_keeper::{LeaseKeeper, LeaseKeeperMessage};
pub use ledger_keeper::LedgerKeeper;
pub use letter_keeper::{LetterKeeper, LetterKeeperMessage};
pub use mirror_keeper::{KeepError, MirrorKeeper, MirrorKeeperMessage, Room, is_due};
pub use retention::Retention;
pub use status_keeper::{StatusKeeper, StatusKeeperMessage};
pub use subscription_keeper::{SubscriptionKeeper, SubscriptionKeeperMessage};
pub use surveyor::Surveyor;

use std::sync::Arc;

use tokio::sync::watch;

use crate::{context::Context, supervision::directory::Gauge};

/// The arguments that an actor of housekeeping starts from.
#[derive(Clone)]
pub struct UpkeepArguments {
    /// The ports, the policies and the address book.
    pub context: Context,
    /// Counts the messages and restarts of the actor.
    pub gauge: Arc<Gauge>,
}

/// Waits until this process wrote more than `written` has seen.
async fn beyond(mut written: watch::Receiver<u64>) -> watch::Receiver<u64> {
    // The store is gone only when the process ends.
    if written.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    written
}

#[cfg(test)]
mod tests;
