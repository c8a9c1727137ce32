//! Upkeep on timers: removing old rows, keeping mirrors small and whole, sending again what lacked
//! its content, measuring how everything is, keeping the leases of a replica, telling what ledgers
//! folded, waking subscriptions. Seven actors under the `housekeeping` supervisor, restarted after a
//! failure; each has one timer and few tasks at a time. A crash loses one round of upkeep.

mod chore;
mod lease_keeper;
mod ledger_keeper;
mod letter_keeper;
mod mirror_keeper;
mod retention;
mod subscription_keeper;
mod surveyor;

pub use chore::{Chore, ChoreActor, ChoreMessage};
pub use lease_keeper::{LeaseKeeper, LeaseKeeperMessage};
pub use ledger_keeper::LedgerKeeper;
pub use letter_keeper::{LetterKeeper, LetterKeeperMessage};
pub use mirror_keeper::{KeepError, MirrorKeeper, MirrorKeeperMessage, Room, is_due};
pub use retention::Retention;
pub use subscription_keeper::{SubscriptionKeeper, SubscriptionKeeperMessage};
pub use surveyor::Surveyor;

use std::sync::Arc;

use crate::{context::Context, directory::Gauge};

/// What an actor of upkeep starts from.
#[derive(Clone)]
pub struct UpkeepArguments {
    /// Ports and policies.
    pub context: Context,
    /// The gauge of the actor.
    pub gauge: Arc<Gauge>,
}

#[cfg(test)]
mod tests;
