//! Trees and contents that a request reads: fetching those that a mirror lacks, and the problem for a failure
//! of Git.

use std::borrow::Cow;

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
    let seconds = match error {
        GitError::RateLimited { retry_after: Some(wait) } => wait.as_secs().max(1),
        _ => RETRY_AFTER_SECONDS,
    };
    if matches!(error, GitError::Storage(_) | GitError::Corrupt(_) | GitError::Busy(_) | GitError::Cancelled)
    {
        warn!(code = error.code(), %error, "a content was not read");
    }
    info!(code = error.code(), %error, "a content was not served");
    Problem::new(Kind::CONTENT_UNAVAILABLE).with_detail(reason(error)).retry_after(seconds)
}

/// Why there is no content, for the app. Whether a port refused the connection or stayed silent is not shown:
/// an app could map a network with it.
fn reason(error: &GitError) -> Cow<'static, str> {
    match error {
        GitError::RateLimited { .. } => "the Git host asks to wait".into(),
        GitError::Storage(_) | GitError::Corrupt(_) | GitError::Busy(_) | GitError::Cancelled => {
            "the mirror cannot be read".into()
        }
        GitError::TooLarge(_) | GitError::MalformedTree(_) => "the content is too large or malformed".into(),
        GitError::Status(status) => format!("the Git host answered with status {status}").into(),
        GitError::Unreachable(_) | GitError::Timeout(_) => "the Git host did not answer".into(),
        GitError::Unauthorized | GitError::NotFound => "the Git host does not show the repository".into(),
        GitError::Protocol(_) => "the Git host does not speak the Git protocol".into(),
        _ => "the Git host does not have it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_says_what_the_git_host_answered() {
        for (error, expected) in [
            (GitError::Status(503), "the Git host answered with status 503"),
            (GitError::Unreachable("refused".to_owned()), "the Git host did not answer"),
            (GitError::Timeout("ten seconds".to_owned()), "the Git host did not answer"),
            (GitError::Unauthorized, "the Git host does not show the repository"),
            (GitError::Protocol("html".to_owned()), "the Git host does not speak the Git protocol"),
            (GitError::Missing(ObjectId::new([7; 20])), "the Git host does not have it"),
        ] {
            assert_eq!(reason(&error), expected);
        }
    }
}
