//! Fetches blobs by id, many with one request: those that a partial mirror lacks for a round, or all that a
//! lost mirror lacks. The requests have no haves: the host would believe that the contents of these commits
//! are present, and leave them out.
//!
//! A host may offer filters and still refuse blobs by id. Then the whole commit is fetched; if that brings a
//! refused blob, no filter is used with that host any more.
//!
//! An id that the host refuses is left out of the next try, a request whose answer is too large is cut in
//! half. Both are bounded: so a host that refuses everything costs a bounded number of requests per batch.

use std::{collections::HashSet, sync::Arc};

use tidings_actors::ports::{BlobsReport, Extent, GitError};
use tidings_entity::id::ObjectId;

use crate::{
    acquire::{Acquire, blocking},
    host::fetch::{FetchFailure, Request},
    mirror::Mirror,
};

/// Blobs in one request, at most: 200 KiB of ids.
const PER_REQUEST: usize = 4_096;
/// Refused ids of one call after which the rest is given up, if the host has sent other blobs.
const REFUSALS_MAX: usize = 32;
/// The same number if the host has sent no blob: it may refuse all blobs by id.
const REFUSALS_ALONE: usize = 4;

/// The blobs of these that a mirror lacks, each once, in the order given. Blocks.
pub(crate) fn absent(mirror: &Mirror, blobs: &[ObjectId]) -> Result<Vec<ObjectId>, GitError> {
    let objects = mirror.open()?;
    let mut seen = HashSet::with_capacity(blobs.len());
    let is_absent = |blob: &ObjectId| seen.insert(*blob) && !objects.contains(*blob);
    Ok(blobs.iter().copied().filter(is_absent).collect())
}

impl Acquire<'_> {
    /// Fetches the blobs that the mirror lacks; the report names those that the host refused.
    pub(crate) async fn fetch_blobs(&self, blobs: &[ObjectId]) -> Result<BlobsReport, GitError> {
        let turn = self.mirror.turn().await?;
        let absent = {
            let (mirror, blobs, turn) = (Arc::clone(self.mirror), blobs.to_vec(), turn.clone());
            blocking(move |_| {
                mirror.prepare(&turn)?;
                absent(&mirror, &blobs)
            })
            .await?
        };
        if !absent.is_empty() {
            self.mirror.check_room()?;
        }
        let mut batches: Vec<Vec<ObjectId>> = absent.chunks(PER_REQUEST).rev().map(<[_]>::to_vec).collect();
        let mut report = BlobsReport::default();
        let mut left_out = 0;
        while let Some(mut batch) = batches.pop() {
            let (haves, shallow) = (Vec::new(), Vec::new());
            let request = Request { wants: batch.clone(), haves, shallow, depth: 1, extent: Extent::Whole };
            match self.ask(&turn, &request, false).await {
                Ok(one) => {
                    self.note_growth(one);
                    report.fetched.bytes += one.bytes;
                    report.fetched.objects += one.objects;
                    continue;
                }
                Err(FetchFailure::Git(GitError::Unobtainable(id))) if left_out < REFUSALS_MAX => {
                    self.mirror.note_refused(id);
                    report.refused.push(id);
                    if report.fetched.objects == 0 && report.refused.len() == REFUSALS_ALONE {
                        return Ok(report);
                    }
                    batch.retain(|blob| *blob != id);
                }
                // The host sent an answer without this blob: no refusal, but no reason to lose the other
                // blobs.
                Err(FetchFailure::Git(GitError::Missing(id))) if left_out < REFUSALS_MAX => {
                    batch.retain(|blob| *blob != id);
                }
                Err(FetchFailure::Wants(odd)) if left_out < REFUSALS_MAX => {
                    batch.retain(|blob| odd.iter().all(|(id, _)| id != blob));
                }
                Err(FetchFailure::Git(GitError::TooLarge(_)) | FetchFailure::Object(_))
                    if batch.len() > 1 =>
                {
                    let rest = batch.split_off(batch.len() / 2);
                    batches.push(rest);
                    batches.push(batch);
                    continue;
                }
                Err(failure) => return Err(failure.reason()),
            }
            left_out += 1;
            if !batch.is_empty() {
                batches.push(batch);
            }
        }
        Ok(report)
    }
}
