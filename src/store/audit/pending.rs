//! How the audit entry of a request gets into the transaction of its change.
//!
//! The entry waits in [`Pending`], which belongs to the task of the request. The first change that the store
//! makes in that task writes the entry in the same transaction. The HTTP pipeline writes the entry of a
//! request that changes no row, before the answer.
//!
//! Of one action of one app, or of callers without a token, at most ten entries a minute have rows of their
//! own. The others share one row a minute later, whose target is `times:<n>` and whose actor is the app (or
//! `anyone`); entries that are only counted when the process ends have no row.

use std::{future::Future, sync::Arc};

use parking_lot::Mutex;
use tidings_actors::ports::{AuditEntry, AuditKept};

/// An audit entry that will be written with the transaction of its request.
pub struct Pending {
    /// The limits of the log.
    pub kept: AuditKept,
    /// The name of the caller in the audit log.
    pub actor: String,
    entry: Mutex<Option<AuditEntry>>,
}

tokio::task_local! {
    static REQUEST: Arc<Pending>;
}

impl Pending {
    /// An entry that no change took along yet.
    #[must_use]
    pub fn of(entry: AuditEntry, kept: AuditKept) -> Arc<Self> {
        Arc::new(Self { kept, actor: entry.actor.clone(), entry: Mutex::new(Some(entry)) })
    }

    /// The pending entry of the request that this task serves.
    #[must_use]
    pub fn current() -> Option<Arc<Self>> {
        REQUEST.try_with(Arc::clone).ok()
    }

    /// Runs work whose first change writes this entry.
    pub async fn during<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        REQUEST.scope(self.clone(), work).await
    }

    /// Sets the thing that was acted on, if it is known only after the act.
    pub fn about(&self, target: &str) {
        if let Some(entry) = self.entry.lock().as_mut() {
            target.clone_into(&mut entry.target);
        }
    }

    /// Takes the entry, unless it was taken before.
    #[must_use]
    pub fn take(&self) -> Option<AuditEntry> {
        self.entry.lock().take()
    }

    /// Gives the entry back: the change was not made.
    pub fn put_back(&self, entry: AuditEntry) {
        *self.entry.lock() = Some(entry);
    }
}

/// Names the target of this request's entry, if its path does not: a thing that is created.
pub fn about(target: &str, app: Option<&str>) {
    let Some(pending) = Pending::current() else { return };
    if let Some(entry) = pending.entry.lock().as_mut() {
        target.clone_into(&mut entry.target);
        if let Some(app) = app {
            app.clone_into(&mut entry.app);
        }
    }
}
