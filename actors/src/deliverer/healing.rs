//! Fetches a blob that a delivery needs and the mirror lacks: the mirror is a cache that may have been lost
//! or damaged, or it holds only trees. One request fetches also the blobs of the following deliveries, so
//! that a lost mirror never costs a request for each file. Runs inside a task of the deliverer; a task that
//! is killed is done again.

use tidings_entity::id::ObjectId;

use super::opening::fetch;
use crate::{
    context::Context,
    ports::{DeliveryOrder, Extent, FetchOrder, GitError},
};

/// Fetches a missing blob. [`GitError::Unobtainable`] comes only after two definitive refusals of the blob
/// itself.
pub(super) async fn bring(context: &Context, order: &DeliveryOrder, blob: ObjectId) -> Result<(), GitError> {
    let (remote, spec) = (&order.lane.remote, &order.lane.round.spec);
    let is_narrow = spec.target.as_ref().is_some_and(|target| target.view.is_narrow());
    if !is_narrow {
        bring_commit(context, order).await?;
    }
    if !context.git.absent_blobs(remote, &[blob]).await?.is_empty() {
        context.transport.prefetch(remote, spec, std::slice::from_ref(&order.change)).await;
    }
    let alone = FetchOrder { wants: vec![blob], depth: 1, ..FetchOrder::default() };
    match fetch(context, remote, alone).await {
        // Some hosts leave contents out of a fetch and refuse to send them by id: then the whole commit is
        // fetched.
        Err(GitError::Unobtainable(refused)) if is_narrow => {
            bring_commit(context, order).await?;
            match context.git.absent_blobs(remote, &[blob]).await?.is_empty() {
                true => Ok(()),
                false => Err(GitError::Unobtainable(refused)),
            }
        }
        other => other,
    }
}

/// Fetches the whole commit of a delivery. The host may no longer have the commit, or may be unable to send
/// all of it, and still have the blob.
async fn bring_commit(context: &Context, order: &DeliveryOrder) -> Result<(), GitError> {
    let Some(target) = &order.lane.round.spec.target else { return Ok(()) };
    let all = FetchOrder { wants: vec![target.commit], haves: Vec::new(), depth: 1, extent: Extent::Whole };
    match context.git.fetch(&order.lane.remote, &all).await {
        Err(error) if !error.is_divisible() => Err(error),
        Err(_) | Ok(_) => Ok(()),
    }
}

/// Starts the mirror again after it was found damaged, and fetches the tree that the delivery needs.
pub(super) async fn mend(context: &Context, order: &DeliveryOrder) -> Result<(), GitError> {
    let spec = &order.lane.round.spec;
    let Some(end) = spec.target.as_ref().or(spec.held.as_ref()) else { return Ok(()) };
    let extent = if end.view.is_narrow() { Extent::Trees } else { Extent::Whole };
    let wants = vec![end.commit];
    fetch(context, &order.lane.remote, FetchOrder { wants, haves: Vec::new(), depth: 1, extent }).await
}
