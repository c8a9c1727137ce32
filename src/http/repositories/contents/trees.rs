//! Trees and contents that a request reads: fetching those that a mirror lacks, and the problem for a failure
//! of Git.

use tidings_actors::{
    model::round::TreeEnd,
    ports::{Content, Extent, FetchOrder, GitError, PinnedTrees, Remote},
};
use tidings_entity::id::ObjectId;
use tracing::{info, warn};

use crate::http::{
    bodies::problem::{Kind, Problem},
    front::Front,
};

/// The most trees that one request leaves out because the host refuses them.
const REFUSALS_MAX: usize = 8;
/// The seconds that a client should wait if the Git host does not send a content.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 30;

/// Fetches the trees, and returns those that could be fetched.
pub(crate) async fn bring_trees(front: &Front, pinned: &PinnedTrees) -> Result<Vec<TreeEnd>, GitError> {
    let mut ends = pinned.ends.clone();
    for _ in 0..REFUSALS_MAX {
        let wants = ends.iter().map(|end| end.commit).collect();
        let order = FetchOrder { wants, haves: Vec::new(), depth: 1, extent: Extent::Trees };
        match front.git.fetch(&pinned.remote, &order).await {
            Err(GitError::Unobtainable(commit)) if ends.iter().any(|end| end.commit == commit) => {
                ends.retain(|end| end.commit != commit);
            }
            fetched => return fetched.map(|_| ends),
        }
    }
    Ok(ends)
}

/// Reads a blob; a blob that the mirror lacks is fetched by its id.
pub(crate) async fn content(
    front: &Front,
    remote: &Remote,
    blob: ObjectId,
    limit: u64,
) -> Result<Content, GitError> {
    match front.git.content(remote, blob, limit).await {
        Err(GitError::Missing(_) | GitError::Corrupt(_)) => {
            let report = front.git.fetch_blobs(remote, &[blob]).await?;
            if report.refused.contains(&blob) {
                return Err(GitError::Unobtainable(blob));
            }
            front.git.content(remote, blob, limit).await
        }
        read => read,
    }
}

/// The problem for failed Git work: the app was told of the content, so the answer never says that the
/// content is gone.
pub(crate) fn unavailable(error: &GitError) -> Problem {
    let (detail, seconds) = match error {
        GitError::RateLimited { retry_after } => {
            let seconds = retry_after.map_or(RETRY_AFTER_SECONDS, |wait| wait.as_secs().max(1));
            ("the Git host asks to wait", seconds)
        }
        GitError::Storage(_) | GitError::Corrupt(_) | GitError::Busy(_) | GitError::Cancelled => {
            warn!(code = error.code(), %error, "a content was not read");
            ("the mirror cannot be read", RETRY_AFTER_SECONDS)
        }
        GitError::TooLarge(_) | GitError::MalformedTree(_) => {
            ("the content is too large or malformed", RETRY_AFTER_SECONDS)
        }
        _ => ("the Git host does not have it", RETRY_AFTER_SECONDS),
    };
    info!(code = error.code(), %error, "a content was not served");
    Problem::new(Kind::CONTENT_UNAVAILABLE).with_detail(detail).retry_after(seconds)
}
