//! Reading what a body shows: the new content and the hash of the old one.
//!
//! What is shown depends on the round alone, never on what happens to be remembered, so that a
//! body has the same bytes at every attempt: a file above the view's maximum is neither read nor
//! hashed and is shown without `sha`, also when its hash is known.

use bytes::Bytes;
use tidings_actors::{
    ports::{BlobFacts, Content, DeliveryOrder, GitError, GitSource, PrepareError},
    view::{MAX_SIZE_DEFAULT, View},
};
use tidings_entity::{
    id::{ObjectId, Sha256Hash},
    kind::{ContentRule, Operation},
};

use super::{
    body::{Material, NewContent, as_text},
    hashes::Hashes,
};

/// Content of more bytes than this is hashed on a blocking thread, not on one that serves others.
pub(super) const BLOCKING_FROM: usize = 256 * 1024;

/// Gathers the material of a delivery.
pub(super) async fn gather(
    git: &dyn GitSource,
    hashes: &Hashes,
    order: &DeliveryOrder,
) -> Result<Material, PrepareError> {
    let new = match order.change.new.filter(|_| order.change.operation != Operation::Delete) {
        None => NewContent::Unseen,
        Some(entry) => new_content(git, hashes, order, entry.blob).await?,
    };
    let old_sha = match order.change.old.filter(|_| shows_old(order)) {
        None => None,
        Some(old) => match &new {
            // A change of mode alone: the hash is at hand.
            NewContent::Inline { sha, .. } if order.change.new.is_some_and(|new| new.blob == old.blob) => {
                Some(*sha)
            }
            _ => old_hash(git, hashes, order, old.blob).await?,
        },
    };
    Ok(Material { new, old_sha })
}

fn target_view(order: &DeliveryOrder) -> Option<&View> {
    order.round.spec.target.as_ref().map(|end| &end.view)
}

fn held_view(order: &DeliveryOrder) -> Option<&View> {
    order.round.spec.held.as_ref().map(|end| &end.view)
}

/// Whether the body names the old content: only where the app was given hashes before, and, for an
/// update, is given them now.
fn shows_old(order: &DeliveryOrder) -> bool {
    let inline = |view: Option<&View>| view.is_none_or(|view| view.content() == ContentRule::Inline);
    let before = inline(held_view(order).or(target_view(order)));
    before && (order.change.operation == Operation::Delete || inline(target_view(order)))
}

async fn new_content(
    git: &dyn GitSource,
    hashes: &Hashes,
    order: &DeliveryOrder,
    blob: ObjectId,
) -> Result<NewContent, PrepareError> {
    let view = target_view(order);
    if view.is_some_and(|view| view.content() == ContentRule::None) {
        return Ok(NewContent::Unseen);
    }
    let max = view.map_or(MAX_SIZE_DEFAULT, View::max_size);
    let known = hashes.of(blob).await?;
    if let Some(facts) = known.filter(|facts| facts.size > max) {
        return Ok(NewContent::TooLarge { size: facts.size });
    }
    let bytes = match git.content(&order.remote, blob, max).await {
        Ok(Content::Whole(bytes)) => bytes,
        Ok(Content::TooLarge { size }) => return Ok(NewContent::TooLarge { size }),
        Err(GitError::Missing(missing)) if order.unobtainable.contains(&missing) => {
            return Err(GitError::Unobtainable(missing).into());
        }
        Err(error) => return Err(error.into()),
    };
    let sha = match known {
        Some(facts) => facts.sha256,
        None => learn(hashes, blob, &bytes).await,
    };
    Ok(NewContent::Inline { sha, bytes })
}

/// The hash of the old content; nothing if it can be had nowhere or is too large.
async fn old_hash(
    git: &dyn GitSource,
    hashes: &Hashes,
    order: &DeliveryOrder,
    blob: ObjectId,
) -> Result<Option<Sha256Hash>, PrepareError> {
    let max = held_view(order).or(target_view(order)).map_or(MAX_SIZE_DEFAULT, View::max_size);
    if let Some(facts) = hashes.of(blob).await? {
        return Ok((facts.size <= max).then_some(facts.sha256));
    }
    match git.content(&order.remote, blob, max).await {
        Ok(Content::Whole(bytes)) => Ok(Some(learn(hashes, blob, &bytes).await)),
        Ok(Content::TooLarge { .. }) | Err(GitError::Unobtainable(_)) => Ok(None),
        Err(GitError::Missing(missing)) if order.unobtainable.contains(&missing) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn learn(hashes: &Hashes, blob: ObjectId, bytes: &Bytes) -> Sha256Hash {
    let facts = off_thread(bytes.len(), {
        let bytes = bytes.clone();
        move || BlobFacts {
            sha256: Sha256Hash::of(&bytes),
            size: bytes.len() as u64,
            text: as_text(&bytes).is_some(),
        }
    })
    .await;
    hashes.learn(blob, facts).await;
    facts.sha256
}

/// Runs work over so many bytes here if they are few, else on a blocking thread.
pub(super) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes < BLOCKING_FROM {
        return work();
    }
    tokio::task::spawn_blocking(work).await.expect("the work does not panic and is never aborted")
}
