//! Trees that a request reads: bringing those that a lost mirror lacks, and what it means for a client that
//! Git failed.

use tidings_actors::{
    ports::{Extent, FetchOrder, GitError, PinnedTrees},
    round::TreeEnd,
};
use tracing::{info, warn};

use crate::http::{
    bodies::problem::{Kind, Problem},
    front::Front,
};

/// Trees that the host refuses for good are left out, at most so many of one request.
const REFUSALS_MAX: usize = 8;
/// How many seconds a client should wait when the Git host does not give a content.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 30;

/// Makes the trees present, and gives those that can be had.
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

/// What failed Git work means here: the app was told of the content, so it is never said to be gone.
pub(crate) fn unavailable(error: &GitError) -> Problem {
    let (detail, seconds) = match error {
        GitError::RateLimited { retry_after } => {
            let seconds = retry_after.map_or(RETRY_AFTER_SECONDS, |wait| wait.as_secs().max(1));
            ("the Git host asks for patience", seconds)
        }
        GitError::Storage(_) | GitError::Corrupt(_) | GitError::Busy(_) | GitError::Cancelled => {
            warn!(code = error.code(), %error, "a content was not read");
            ("the mirror cannot be read", RETRY_AFTER_SECONDS)
        }
        GitError::TooLarge(_) | GitError::MalformedTree(_) => {
            ("the repository is beyond what is served of it", RETRY_AFTER_SECONDS)
        }
        _ => ("the Git host does not give it", RETRY_AFTER_SECONDS),
    };
    info!(code = error.code(), %error, "a content was not served");
    Problem::new(Kind::CONTENT_UNAVAILABLE).with_detail(detail).retry_after(seconds)
}
