//! Notifies waiting tasks of written entries, once they are on disk.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::watch;

/// Whether this process wrote entries.
#[derive(Default)]
pub(crate) struct News {
    /// The present transaction has written entries, or a transaction did that was rolled back.
    is_marked: AtomicBool,
    /// Transactions with entries that are on disk.
    told: watch::Sender<u64>,
}

impl News {
    /// The transaction that is going on writes entries.
    pub(crate) fn mark(&self) {
        self.is_marked.store(true, Relaxed);
    }

    /// A transaction is on disk.
    pub(crate) fn tell(&self) {
        if self.is_marked.swap(false, Relaxed) {
            self.told.send_modify(|count| *count += 1);
        }
    }

    /// Changes with each transaction that brought entries to the disk.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }
}
