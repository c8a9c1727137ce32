//! A delivery needs a blob that the mirror lacks: the mirror is a cache and may have been lost or
//! damaged, or it is one of trees alone. One request brings what the following deliveries need as well, so
//! that a lost mirror never costs a request for each file. Runs inside a task of the deliverer;
//! killed anywhere, it is simply done again.

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
    if let Some(target) = spec.target.as_ref().filter(|target| !target.view.is_narrow()) {
        let all =
            FetchOrder { wants: vec![target.commit], haves: Vec::new(), depth: 1, extent: Extent::Whole };
        match context.git.fetch(remote, &all).await {
            // The host has forgotten the commit, or cannot give all of it; perhaps it has the blob.
            Err(error) if !error.is_divisible() => return Err(error),
            Err(_) | Ok(_) => {}
        }
    }
    if !context.git.absent_blobs(remote, &[blob]).await?.is_empty() {
        context.transport.foresee(remote, spec, std::slice::from_ref(&order.change)).await;
    }
    let alone = FetchOrder { wants: vec![blob], depth: 1, ..FetchOrder::default() };
    fetch(context, remote, alone).await
}

/// Has a mirror that was found to be damaged begun anew, with the tree that the delivery is about.
pub(super) async fn mend(context: &Context, order: &DeliveryOrder) -> Result<(), GitError> {
    let spec = &order.lane.round.spec;
    let Some(end) = spec.target.as_ref().or(spec.held.as_ref()) else { return Ok(()) };
    let extent = if end.view.is_narrow() { Extent::Trees } else { Extent::Whole };
    let wants = vec![end.commit];
    fetch(context, &order.lane.remote, FetchOrder { wants, haves: Vec::new(), depth: 1, extent }).await
}
