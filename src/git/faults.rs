//! Commits that could not be had while others of their repository could. A host is asked for such a commit
//! again after growing waits, so that a bad ref does not cost a request at each poll.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tidings_actors::ports::GitError;
use tidings_entity::id::ObjectId;

/// The first wait; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_secs(10);
/// The longest wait between two requests for a bad commit.
const WAIT_LAST: Duration = Duration::from_mins(15);
/// Most bad commits that one poll asks for again: each may cost a request of its own.
const AGAIN_AT_ONCE: usize = 4;
/// Most bad commits of a repository that are remembered.
const REMEMBERED_MAX: usize = 50_000;

/// What could not be had of one repository.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<HashMap<ObjectId, Fault>>);

#[derive(Debug)]
struct Fault {
    reason: GitError,
    tries: u32,
    until: Instant,
}

impl Faults {
    /// Which of these wants cannot be had as far as is known, with the reason of each, and those to be asked
    /// for.
    pub(super) fn known(&self, wants: &[ObjectId]) -> (Vec<(ObjectId, GitError)>, Vec<ObjectId>) {
        let faults = self.faults();
        let (mut known, mut asked, mut again, now) = (Vec::new(), Vec::new(), 0, Instant::now());
        for want in wants {
            match faults.get(want) {
                Some(fault) if fault.until > now || again == AGAIN_AT_ONCE => {
                    known.push((*want, fault.reason.clone()));
                }
                Some(_) => {
                    again += 1;
                    asked.push(*want);
                }
                None => asked.push(*want),
            }
        }
        (known, asked)
    }

    /// In how long a commit is asked for again at the earliest.
    pub(super) fn again_in(&self, commit: ObjectId) -> Option<Duration> {
        let until = self.faults().get(&commit)?.until;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Remembers what came of wants that were asked for. `others`: something of the repository can be had, so
    /// that it is these wants that cannot.
    pub(super) fn note(&self, asked: &[ObjectId], refused: &[(ObjectId, GitError)], others: bool) {
        let mut faults = self.faults();
        if faults.is_empty() && refused.is_empty() {
            return;
        }
        let now = Instant::now();
        let refused: HashMap<_, _> = refused.iter().map(|(id, reason)| (*id, reason)).collect();
        for want in asked {
            let reason = refused.get(want).map(|reason| (*reason).clone());
            let before = faults.remove(want).map_or(0, |fault| fault.tries);
            if let Some(reason) = reason.filter(|_| others && faults.len() < REMEMBERED_MAX) {
                if before == 0 {
                    tracing::warn!(commit = %want, "{want} cannot be taken: {reason}; other refs go on");
                }
                let wait = WAIT_FIRST.saturating_mul(1 << before.min(16)).min(WAIT_LAST);
                faults.insert(*want, Fault { reason, tries: before + 1, until: now + wait });
            }
        }
    }

    fn faults(&self) -> MutexGuard<'_, HashMap<ObjectId, Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
