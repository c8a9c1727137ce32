//! On one of all replicas, removes history, settled ranges and unused blob rows past their age, and the
//! oldest history of apps with too many rows; then gives the room that rows left back to the disk, also the
//! room of tasks. Each step is bounded, so that deliveries never wait for it. The store never removes rows
//! that an open round or letter names. Supervised by `housekeeping`, restarted after a failure; a crash
//! loses one step.

use std::time::Duration;

use tracing::{info, warn};

use super::Chore;
use crate::{context::Context, ports::StoreError, supervision::tasks::in_time};

/// The wait before the first run, and at most between two looks whether this replica leads by now.
const FIRST: Duration = Duration::from_secs(60);
/// The wait while there is more to remove.
const MORE: Duration = Duration::from_millis(500);
/// Unused bytes that the database keeps for rows to come.
const SPARE_BYTES: u64 = 16 << 20;
/// The most bytes that one run gives back.
const RELEASED_BYTES: u64 = 32 << 20;

/// The chore that removes history past its age.
pub struct Retention;

impl Chore for Retention {
    const FIRST: Duration = FIRST;

    async fn run(context: &Context) -> Duration {
        let policy = &context.policy;
        if !context.shards.leads() {
            return policy.upkeep_interval.min(FIRST);
        }
        match remove(context).await {
            Ok(rows) if rows >= policy.upkeep_rows => return MORE,
            Ok(0) => {}
            Ok(rows) => info!(rows, "{rows} old rows were removed"),
            Err(reason) => warn!("old rows could not be removed: {reason}"),
        }
        match in_time(context.store.release_space(SPARE_BYTES, RELEASED_BYTES)).await {
            Ok(bytes) if bytes >= RELEASED_BYTES => return MORE,
            Ok(0) => {}
            Ok(bytes) => info!(bytes, "{bytes} unused bytes of the database went back to the disk"),
            Err(reason) => warn!("unused room of the database could not be given back: {reason}"),
        }
        policy.upkeep_interval
    }
}

/// Removes at most `upkeep_rows` rows of each kind. Returns how many rows of the kind with most were removed.
async fn remove(context: &Context) -> Result<u64, StoreError> {
    let (store, policy) = (&context.store, &context.policy);
    let limit = policy.upkeep_rows;
    let old = in_time(store.prune(context.now(), policy.history, policy.blob_age, limit)).await?;
    let entries =
        in_time(store.prune_ledgers(context.now(), policy.ledger_age, policy.ledger_rows, limit)).await?;
    Ok(old.max(entries).max(in_time(store.shorten_history(policy.history_rows, limit)).await?))
}
