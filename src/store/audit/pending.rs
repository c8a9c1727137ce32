//! How the deed of a request comes into the transaction of its change.
//!
//! The deed of a request waits in [`Pending`], which goes with the task of the request. The first
//! change that the store makes in that task takes it along, into the same transaction. What changes
//! no row is recorded by the front door, before the answer.
//!
//! Of one action of one app, or of those without a token, at most ten deeds a minute have rows of their own.
//! The others have one together a minute later, whose target is `times:<n>` and whose actor is the app (or
//! `anyone`); those that were counted when the process ends have none.

use std::{future::Future, sync::Arc};

use parking_lot::Mutex;
use tidings_actors::ports::{AuditKept, Deed};

/// A deed on its way into the log.
pub struct Pending {
    /// How much of the log is kept.
    pub kept: AuditKept,
    /// Who sent the request.
    pub actor: String,
    deed: Mutex<Option<Deed>>,
}

tokio::task_local! {
    static REQUEST: Arc<Pending>;
}

impl Pending {
    /// A deed that no change took along yet.
    #[must_use]
    pub fn of(deed: Deed, kept: AuditKept) -> Arc<Self> {
        Arc::new(Self { kept, actor: deed.actor.clone(), deed: Mutex::new(Some(deed)) })
    }

    /// The pending deed of the request that this task serves.
    #[must_use]
    pub fn current() -> Option<Arc<Self>> {
        REQUEST.try_with(Arc::clone).ok()
    }

    /// Does work whose first change takes this deed along.
    pub async fn during<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        REQUEST.scope(self.clone(), work).await
    }

    /// Names what it is done to, where nobody knew before.
    pub fn about(&self, target: &str) {
        if let Some(deed) = self.deed.lock().as_mut() {
            target.clone_into(&mut deed.target);
        }
    }

    /// Takes the deed, if none did before.
    #[must_use]
    pub fn take(&self) -> Option<Deed> {
        self.deed.lock().take()
    }

    /// Gives it back: the change was not made.
    pub fn put_back(&self, deed: Deed) {
        *self.deed.lock() = Some(deed);
    }
}

/// Names what the deed of this request is done to, where its path does not: something that is made.
pub fn about(target: &str, app: Option<&str>) {
    let Some(pending) = Pending::current() else { return };
    if let Some(deed) = pending.deed.lock().as_mut() {
        target.clone_into(&mut deed.target);
        if let Some(app) = app {
            app.clone_into(&mut deed.app);
        }
    }
}
