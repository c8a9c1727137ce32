//! On one of all replicas, writes the entries for folded changes: of changes that repeat within a minute only
//! the first gets an entry at once. Supervised by `housekeeping`, restarted after a failure; a crash loses
//! one look, and the next look writes the same entries.

use std::time::Duration;

use tracing::{debug, warn};

use super::Chore;
use crate::{context::Context, supervision::tasks::in_time};

/// The wait between two looks: an entry for folded changes is at most this late.
const EVERY: Duration = Duration::from_secs(10);
/// The states of one transaction, which others wait for. A look that finds this number goes on at once.
const AT_ONCE: u64 = 500;

/// The chore that writes the entries for folded changes.
pub struct LedgerKeeper;

impl Chore for LedgerKeeper {
    const FIRST: Duration = EVERY;

    async fn run(context: &Context) -> Duration {
        if context.shards.leads() {
            match in_time(context.store.tell_folded(context.now(), AT_ONCE)).await {
                Ok(0) => {}
                Ok(states) => {
                    debug!(states, "entries for the folded changes of {states} states were written");
                    if states >= AT_ONCE {
                        return Duration::ZERO;
                    }
                }
                Err(reason) => warn!("folded entries of ledgers could not be told: {reason}"),
            }
        }
        EVERY
    }
}
