//! A delivery needs a blob that the mirror lacks: the mirror is a cache and may have been lost or
//! damaged, or it is one of trees alone. One request brings what the following deliveries need as well, so
//! that a lost mirror never costs a request for each file. Runs inside a task of the deliverer;
//! a task that is killed anywhere is done again.

use tidings_entity::id::ObjectId;

use super::opening::fetch;
use crate::{
    context::Context,
    ports::{DeliveryOrder, Extent, FetchOrder, GitError},
};

/// Makes a blob present. [`GitError::Unobtainable`] comes only after two definitive refusals of
/// the blob itself.
pub(super) async fn bring(context: &Context, order: &DeliveryOrder, blob: ObjectId) -> Result<(), GitError> {
    let (remote, spec) = (&order.lane.remote, &order.lane.round.spec);
    let is_narrow = spec.target.as_ref().is_some_and(|target| target.view.is_narrow());
    if !is_narrow {
        bring_commit(context, order).await?;
    }
    if !context.git.absent_blobs(remote, &[blob]).await?.is_empty() {
        context.transport.foresee(remote, spec, std::slice::from_ref(&order.change)).await;
    }
    let alone = FetchOrder { wants: vec![blob], depth: 1, ..FetchOrder::default() };
    match fetch(context, remote, alone).await {
        // A host may leave contents out and then give none by its id: they come with their commit.
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

/// Asks for the whole commit that a delivery is about. It may be that the host has forgotten it, or cannot give
/// all of it, and has the blob nevertheless.
async fn bring_commit(context: &Context, order: &DeliveryOrder) -> Result<(), GitError> {
    let Some(target) = &order.lane.round.spec.target else { return Ok(()) };
    let all = FetchOrder { wants: vec![target.commit], haves: Vec::new(), depth: 1, extent: Extent::Whole };
    match context.git.fetch(&order.lane.remote, &all).await {
        Err(error) if !error.is_divisible() => Err(error),
        Err(_) | Ok(_) => Ok(()),
    }
}

/// Has a mirror that was found to be damaged begun anew, with the tree that the delivery is about.
pub(super) async fn mend(context: &Context, order: &DeliveryOrder) -> Result<(), GitError> {
    let spec = &order.lane.round.spec;
    let Some(end) = spec.target.as_ref().or(spec.held.as_ref()) else { return Ok(()) };
    let extent = if end.view.is_narrow() { Extent::Trees } else { Extent::Whole };
    let wants = vec![end.commit];
    fetch(context, &order.lane.remote, FetchOrder { wants, haves: Vec::new(), depth: 1, extent }).await
}
