//! The limits of one pass over trees: entries, depth, bytes and time; and its cancellation when no caller
//! waits for the result any more.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tidings_actors::ports::GitError;

use crate::settings::{GitSettings, TREE_DEPTH_CEILING};

/// How many entries go by between two looks at the clock.
const LOOK_EVERY: u64 = 512;
/// Most bytes of trees on the way down to one directory.
pub(crate) const HELD_BYTES_MAX: usize = 64 << 20;

/// Ends blocking work when the future that waits for it is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Whether the work is no longer wanted.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`GitError::Cancelled`] once the work is no longer wanted.
    pub(crate) fn check(&self) -> Result<(), GitError> {
        if self.is_cancelled() { Err(GitError::Cancelled) } else { Ok(()) }
    }

    /// Cancels when the returned guard is dropped.
    pub(crate) fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }
}

/// A guard that cancels the work when it is dropped ([`Cancel::on_drop`]).
pub(crate) struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// The budget of one pass.
pub(crate) struct Limits {
    entries: u64,
    depth: usize,
    time: Duration,
    cancel: Cancel,
    began: Instant,
    seen: Cell<u64>,
    looked: Cell<u64>,
}

impl Limits {
    pub(crate) fn new(settings: &GitSettings, cancel: Cancel) -> Self {
        Self {
            entries: settings.tree_max_entries,
            depth: settings.tree_max_depth.min(TREE_DEPTH_CEILING) as usize,
            time: settings.tree_timeout,
            cancel,
            began: Instant::now(),
            seen: Cell::new(0),
            looked: Cell::new(0),
        }
    }

    /// Counts entries that are about to be looked at.
    ///
    /// # Errors
    /// [`GitError::TooLarge`] when the budget is spent, [`GitError::Cancelled`].
    pub(crate) fn spend(&self, entries: usize) -> Result<(), GitError> {
        let seen = self.seen.get() + entries as u64;
        self.seen.set(seen);
        if seen > self.entries {
            return Err(GitError::TooLarge(format!("more than {} entries", self.entries)));
        }
        if seen - self.looked.get() >= LOOK_EVERY {
            self.looked.set(seen);
            if self.cancel.is_cancelled() {
                return Err(GitError::Cancelled);
            }
            if self.began.elapsed() > self.time {
                return Err(GitError::TooLarge(format!(
                    "reading its trees takes longer than {:?}",
                    self.time
                )));
            }
        }
        Ok(())
    }

    /// Checks that a directory is not too deep.
    ///
    /// # Errors
    /// [`GitError::TooLarge`].
    pub(crate) fn check_depth(&self, depth: usize) -> Result<(), GitError> {
        if depth <= self.depth {
            Ok(())
        } else {
            Err(GitError::TooLarge(format!("directories deeper than {}", self.depth)))
        }
    }

    /// Checks the bytes of the trees on the way down to one directory.
    ///
    /// # Errors
    /// [`GitError::TooLarge`] if they exceed the limit.
    pub(crate) fn check_held(&self, bytes: usize) -> Result<(), GitError> {
        if bytes <= HELD_BYTES_MAX {
            Ok(())
        } else {
            let what = format!("directories of more than {HELD_BYTES_MAX} bytes within each other");
            Err(GitError::TooLarge(what))
        }
    }
}
