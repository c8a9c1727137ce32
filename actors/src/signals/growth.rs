//! The mirrors that the mirror keeper looks at next: mirrors that grew, and mirrors that no watch follows any
//! more. Objects are fetched for many reasons (a scan, the opening of a lane, a window that is read ahead, a
//! list that depends on sizes, a download), and every fetch passes the Git engine: it notes here which mirror
//! grew, and the mirror keeper waits for it. So no caller of a fetch can forget to tell the keeper, and notes
//! made while the keeper restarts are not lost.
//!
//! Bounded by the repositories: each is noted once, however often it grows.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use tidings_entity::id::RepositoryId;
use tokio::sync::Notify;

/// The mirrors that changed and were not looked at yet. Clones share them; one task waits at a time.
#[derive(Clone, Debug, Default)]
pub struct Growth(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    grown: Mutex<BTreeSet<RepositoryId>>,
    noted: Notify,
}

impl Growth {
    /// Notes that a fetch went into the mirror of this repository, or that the repository lost its last
    /// watch.
    pub fn note(&self, repository: &RepositoryId) {
        let mut grown = self.0.grown.lock();
        grown.insert(repository.clone());
        drop(grown);
        self.0.noted.notify_one();
    }

    /// Waits until a mirror grew, and takes all noted mirrors.
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
