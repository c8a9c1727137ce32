//! On one of all replicas, writes the entries that ledgers folded: of what happens again and again within a
//! minute only the first is told at once. Supervised by `housekeeping`, restarted after a failure; a crash
//! loses one look, and the next one tells what that one would have told.

use std::time::Duration;

use tracing::{debug, warn};

use super::Chore;
use crate::{context::Context, tasks::in_time};

/// The wait between two looks: an entry that was folded comes at most so much later than its minute.
const EVERY: Duration = Duration::from_secs(10);

/// The chore that tells what was folded.
pub struct LedgerKeeper;

impl Chore for LedgerKeeper {
    const FIRST: Duration = EVERY;

    async fn run(context: &Context) -> Duration {
        if context.shards.leads() {
            match in_time(context.store.tell_folded(context.now())).await {
                Ok(0) => {}
                Ok(entries) => debug!(entries, "{entries} folded entries were told"),
                Err(reason) => warn!("folded entries of ledgers could not be told: {reason}"),
            }
        }
        EVERY
    }
}
