//! Walks first parents through the objects in the mirror.

use tidings_actors::ports::{GitError, Walk};
use tidings_entity::id::ObjectId;

use crate::objects::Objects;

/// How a walk along first parents ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// The walk met its goal, the root or its limit.
    Done(Walk),
    /// The walk met a commit whose parent is not in the mirror.
    Ends {
        /// The number of commits that were found.
        reached: u32,
        /// The last commit that was found.
        last: Option<ObjectId>,
    },
}

/// Walks from `head` until `held`, at most `limit` commits.
pub(crate) fn chain(
    objects: &Objects,
    head: ObjectId,
    held: ObjectId,
    limit: u32,
) -> Result<Chain, GitError> {
    let mut commits = Vec::new();
    let mut current = head;
    loop {
        if current == held {
            commits.reverse();
            return Ok(Chain::Done(Walk::Reached(commits)));
        }
        if commits.len() >= limit as usize {
            return Ok(Chain::Done(Walk::LimitReached));
        }
        let commit = match objects.commit(current) {
            Err(GitError::Missing(_)) => {
                let reached = u32::try_from(commits.len()).unwrap_or(u32::MAX);
                return Ok(Chain::Ends { reached, last: commits.last().copied() });
            }
            commit => commit?,
        };
        commits.push(current);
        match commit.facts.first_parent {
            Some(parent) => current = parent,
            None => return Ok(Chain::Done(Walk::Rewritten)),
        }
    }
}
