//! The objects of an order that a mirror has already, and which of them can be relied on.

use std::collections::BTreeSet;

use tidings_actors::ports::{Extent, FetchOrder, GitError};
use tidings_entity::id::ObjectId;

use super::closure::{COMPARED_MAX, Known, Seen};
use crate::settings::GitSettings;
use crate::{
    mirror::Mirror,
    objects::{
        Kind, Objects,
        limits::{Cancel, Limits},
    },
};

/// A host is told of at most this many shallow commits (without parents) that are not haves; a mirror with
/// more is overdue for compacting. Shallow commits that are haves are always named.
const SHALLOW_SAID: usize = 1_000;

/// The present and the missing objects of an order.
pub(crate) struct Survey {
    pub(crate) missing: Vec<ObjectId>,
    /// Wants that are present but faulty.
    pub(crate) refused: Vec<(ObjectId, GitError)>,
    pub(crate) haves: Vec<ObjectId>,
    pub(crate) shallow: Vec<ObjectId>,
    /// Whether every tree in the mirror is complete, as far as the order goes.
    pub(crate) trusted: bool,
}

/// Finds the objects of an order that are present. With `deepen` the wants are requested even if they are
/// present.
pub(crate) fn survey(
    mirror: &Mirror,
    settings: &GitSettings,
    order: &FetchOrder,
    deepen: bool,
    cancel: &Cancel,
) -> Result<Survey, GitError> {
    let objects = mirror.open()?;
    let limits = || Limits::new(settings, cancel.clone());
    let extent = order.extent;
    // Admitted objects were complete as far as they were requested. They are checked again only if a read
    // missed an object, or if less may have been requested than now.
    let said: BTreeSet<_> = order.haves.iter().copied().collect();
    let trusted = !(mirror.is_doubted() || extent == Extent::Whole && mirror.is_partial());
    let is_doubted = !said.is_empty() && (mirror.take_doubt() || !trusted);
    let (mut haves, mut checked) = (Vec::new(), Seen::default());
    for have in said.iter().copied().filter(|have| is_usable(&objects, *have)) {
        cancel.check()?;
        if is_doubted && !mirror.is_complete(have, extent) {
            if haves.len() >= COMPARED_MAX
                || checked.check(&objects, &Known::Commits(&[]), &limits(), have, extent).is_err()
            {
                continue;
            }
            mirror.mark_complete(have, extent);
        }
        haves.push(have);
    }
    let (mut missing, mut refused, mut is_broken) = (Vec::new(), Vec::new(), false);
    for want in order.wants.iter().copied().collect::<BTreeSet<_>>() {
        cancel.check()?;
        if !objects.contains(want) || deepen {
            missing.push(want);
        } else if trusted && said.contains(&want) {
            mirror.mark_complete(want, extent);
        } else if !mirror.is_complete(want, extent) {
            match checked.check(&objects, &Known::Commits(&haves), &limits(), want, extent) {
                Ok(()) => mirror.mark_complete(want, extent),
                Err(GitError::Missing(_)) => {
                    is_broken = true;
                    missing.push(want);
                }
                Err(error) if error.is_of_the_object() => refused.push((want, error)),
                Err(error) => return Err(error),
            }
        }
    }
    if is_broken {
        // The haves decide what a host leaves out; after a loss none of them is certain.
        let (haves, shallow) = (Vec::new(), Vec::new());
        return Ok(Survey { missing, refused, haves, shallow, trusted: false });
    }
    let here = mirror.shallow()?.into_iter().filter(|commit| objects.contains(*commit));
    let (first, others): (Vec<_>, Vec<_>) = here.partition(|commit| said.contains(commit));
    let shallow = first.into_iter().chain(others.into_iter().take(SHALLOW_SAID)).collect();
    Ok(Survey { missing, refused, haves, shallow, trusted })
}

/// Whether the commit and its tree are present.
fn is_usable(objects: &Objects, commit: ObjectId) -> bool {
    objects.contains(commit)
        && matches!(objects.header(commit), Ok((_, Kind::Commit)))
        && objects.commit(commit).is_ok_and(|commit| objects.contains(commit.tree))
}
