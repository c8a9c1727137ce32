//! [`MemoryStore`]: the [`Store`] of the actors in maps behind one lock. It keeps its promises as the real
//! one does, but for surviving the process.

mod backlog;
mod dismiss;
mod history;
mod lanes;
mod leases;
mod letters;
mod receipts;
mod requests_of_watches;
mod rows;
mod settled;
mod verbs;
mod watches;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

pub use leases::{LeaseTable, MemoryLeases, SIGNALS};
use parking_lot::{Mutex, MutexGuard};
use rows::State;
use tidings_entity::id::ArtifactId;
use tokio::sync::watch;

use super::SeededRandom;
use crate::{
    ports::{AttemptRecord, Clock, Fence, QueueWork, Store, StoreError},
    time::Timestamp,
};

/// What befalls one call of a verb.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The call changes nothing and fails with this error.
    Fails(StoreError),
    /// The call does its work after this wait.
    Waits(Duration),
    /// The call never ends.
    Hangs,
    /// The call panics, and with it the handler that made it.
    Panics,
}

/// A store that forgets everything when its last clone is dropped. Several processes that share a
/// database are clones.
#[derive(Clone)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    random: Arc<SeededRandom>,
    state: Arc<Mutex<State>>,
    faults: Arc<Mutex<HashMap<&'static str, VecDeque<Fault>>>>,
    leases: Arc<LeaseTable>,
    /// Changes whenever a test says that statuses were written.
    statuses: Arc<watch::Sender<u64>>,
    /// The lease of the work that this handle is for; `None`: no lease is checked.
    fence: Option<Fence>,
}

impl MemoryStore {
    /// An empty store on this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            random: Arc::new(SeededRandom::new(0x7469_6469_6e67_7300)),
            state: Arc::default(),
            faults: Arc::default(),
            leases: Arc::default(),
            statuses: Arc::default(),
            fence: None,
        }
    }

    /// Lets the next call of `verb` (one that actors use, by its name) meet this fault, after the faults set
    /// before.
    pub fn befall(&self, verb: &'static str, fault: Fault) {
        self.faults().entry(verb).or_default().push_back(fault);
    }

    /// Whether a fault that was set for `verb` has not met a call yet.
    #[must_use]
    pub fn awaits_fault(&self, verb: &'static str) -> bool {
        self.faults().get(verb).is_some_and(|faults| !faults.is_empty())
    }

    fn faults(&self) -> MutexGuard<'_, HashMap<&'static str, VecDeque<Fault>>> {
        self.faults.lock()
    }

    /// The table of leases: which replica owns which shard.
    #[must_use]
    pub fn leases(&self) -> Arc<LeaseTable> {
        self.leases.clone()
    }

    async fn meet(&self, verb: &'static str) -> Result<(), StoreError> {
        self.befallen(verb).await?;
        // Looked at when the verb does its work, not when it was asked.
        self.fence.map_or(Ok(()), |fence| self.leases.check(fence))
    }

    async fn befallen(&self, verb: &'static str) -> Result<(), StoreError> {
        let fault = self.faults().get_mut(verb).and_then(VecDeque::pop_front);
        match fault {
            None => {}
            Some(Fault::Fails(error)) => return Err(error),
            Some(Fault::Waits(wait)) => tokio::time::sleep(wait).await,
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Panics) => panic!("{verb} panics, as asked"),
        }
        Ok(())
    }

    /// The attempts that are rows.
    #[must_use]
    pub fn attempts(&self) -> Vec<AttemptRecord> {
        self.state().attempts.clone()
    }

    /// How often facts of blobs were written, and how many blobs are known.
    #[must_use]
    pub fn blobs_written(&self) -> (usize, usize) {
        let state = self.state();
        (state.blob_writes, state.blobs.len())
    }

    /// Gives an artifact a row: nothing else makes one here.
    pub fn know_artifact(&self, id: &ArtifactId) {
        self.state().artifacts.insert(id.clone());
    }

    /// Gives a queue work for workers that listen to it; nothing else does so here.
    pub fn give_work(&self, work: QueueWork) {
        self.state().work.push(work);
    }

    /// Says whether workers have tasks of rounds that ended early; nothing else does so here.
    pub fn leave_tasks(&self, has_tasks: bool) {
        self.state().has_tasks = has_tasks;
    }

    /// Says when a status of a commit is due next; nothing else does so here.
    pub fn delay_status(&self, until: Timestamp) {
        self.state().next_status = Some(until);
    }

    /// Signals that this process wrote statuses of commits; nothing else does so here.
    pub fn write_statuses(&self) {
        self.statuses.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Runs a verb that refuses before it changes anything: it needs no copy to restore, and so costs the
    /// same however much is stored.
    fn write_checked<T>(&self, verb: impl FnOnce(&mut State) -> T) -> T {
        verb(&mut self.state())
    }

    /// A verb that fails half-way changes nothing.
    fn write<T>(&self, verb: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state();
        let mut next = state.clone();
        let done = verb(&mut next)?;
        *state = next;
        Ok(done)
    }
}

impl Store for MemoryStore {
    fn under(&self, fence: Fence) -> Arc<dyn Store> {
        Arc::new(Self { fence: Some(fence), ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ManualClock;

    #[expect(clippy::unused_async, reason = "the suite makes stores that take time to open, too")]
    async fn store() -> (MemoryStore, ()) {
        (MemoryStore::new(Arc::new(ManualClock::new(Timestamp(3000)))), ())
    }

    crate::store_contract_tests!(of actors: store);
}
