//! Which mirrors the mirror keeper looks at next: those that grew, and those that nobody watches any more.
//! Objects are fetched for many reasons (a scan, the opening of a lane, a window
//! that is foreseen, a list that depends on sizes, a download), and all of them pass the Git engine:
//! it notes here what grew, and the mirror keeper waits for it. So nobody who fetches can forget to
//! tell the keeper, and what was noted while the keeper is being restarted is there when it is back.
//!
//! Bounded by the repositories: each is noted once, however often it grows.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use tidings_entity::id::RepositoryId;
use tokio::sync::Notify;

/// The mirrors that changed and were not looked at yet. Clones share it; one waits at a time.
#[derive(Clone, Debug, Default)]
pub struct Growth(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    grown: Mutex<BTreeSet<RepositoryId>>,
    noted: Notify,
}

impl Growth {
    /// Something was fetched into the mirror of this repository, or nobody watches the repository any more.
    pub fn note(&self, repository: &RepositoryId) {
        let mut grown = self.0.grown.lock();
        grown.insert(repository.clone());
        drop(grown);
        self.0.noted.notify_one();
    }

    /// Waits until something grew, and takes what did.
    pub async fn wait(&self) -> BTreeSet<RepositoryId> {
        loop {
            let grown = std::mem::take(&mut *self.0.grown.lock());
            if !grown.is_empty() {
                return grown;
            }
            self.0.noted.notified().await;
        }
    }
}
