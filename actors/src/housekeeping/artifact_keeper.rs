//! On one of all replicas, removes objects whose artifact has no row: those of tasks that were removed, of
//! artifacts that were replaced, and of uploads that a crash cut off between object and row. An object is
//! removed once it is [`ORPHAN_KEPT`] old by its id, so that an upload that still runs is never taken for an
//! orphan. Each step asks for at most [`STEP`] names, and the chore rests between two steps. Supervised by
//! `housekeeping`, restarted after a failure; a crash loses one run.

use std::time::Duration;

use tidings_entity::id::ArtifactId;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Chore;
use crate::{
    context::Context,
    ports::{ORPHAN_KEPT, ObjectError},
    supervision::tasks::in_time,
    time::Timestamp,
};

/// The wait before the first run, and at most between two looks whether this replica leads by now.
const FIRST: Duration = Duration::from_secs(5);
/// Objects that one step compares with the rows.
const STEP: usize = 500;
/// The rest between two steps: at most 25,000 objects are compared in a second.
const REST: Duration = Duration::from_millis(20);
/// The longest time of one call of the object store.
const CALL_MAX: Duration = Duration::from_secs(30);

/// The chore that removes objects without a row.
pub struct ArtifactKeeper;

impl Chore for ArtifactKeeper {
    const FIRST: Duration = FIRST;

    async fn run(context: &Context) -> Duration {
        let every = context.policy.upkeep_interval;
        if !context.shards.leads() {
            return every.min(FIRST);
        }
        match sweep(context).await {
            Ok(0) => {}
            Ok(gone) => info!(objects = gone, "{gone} objects without an artifact were removed"),
            Err(reason) => warn!("objects without an artifact could not be removed: {reason}"),
        }
        every
    }
}

/// Removes orphans, and returns how many.
async fn sweep(context: &Context) -> Result<usize, String> {
    let objects = &context.objects;
    let before = before(context.now());
    let mut gone = called(objects.drop_unfinished(before, STEP)).await?;
    let mut last: Option<ArtifactId> = None;
    while context.shards.leads() && !context.directory.is_closed() {
        let found = called(objects.list(last.as_ref(), STEP)).await?;
        let Some(end) = found.last() else { break };
        last = Some(end.clone());
        let old: Vec<ArtifactId> = found.into_iter().filter(|id| began(id) < before).collect();
        if !old.is_empty() {
            let known =
                in_time(context.store.known_artifacts(&old)).await.map_err(|error| error.to_string())?;
            for orphan in old.iter().filter(|id| !known.contains(id)) {
                called(objects.remove(orphan)).await?;
                gone += 1;
            }
        }
        sleep(REST).await;
    }
    Ok(gone)
}

/// The latest moment at which an upload began whose object may be an orphan.
fn before(now: Timestamp) -> Timestamp {
    let kept = i64::try_from(ORPHAN_KEPT.as_millis()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(kept))
}

/// When the upload of an object began.
fn began(id: &ArtifactId) -> Timestamp {
    Timestamp(i64::try_from(id.ulid().timestamp_ms()).unwrap_or(i64::MAX))
}

async fn called<T>(call: impl Future<Output = Result<T, ObjectError>>) -> Result<T, String> {
    let answered = timeout(CALL_MAX, call).await;
    answered.map_err(|_late| format!("no answer within {CALL_MAX:?}"))?.map_err(|error| error.to_string())
}
