//! Commits that could not be fetched while others of their repository could. Polls request such a commit
//! again after growing waits, so that a bad ref does not cost a request at each poll.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tidings_actors::{model::secret::Secret, ports::GitError};
use tidings_entity::id::ObjectId;

/// The first wait; each further wait is twice as long.
const WAIT_FIRST: Duration = Duration::from_secs(10);
/// The longest wait between two requests for a bad commit: that of the longest pause between two polls.
const WAIT_LAST: Duration = Duration::from_mins(5);
/// A commit that cannot be fetched is forgotten this long after its wait if no scan asks for it: no ref names
/// it any more.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);
/// Most bad commits of a repository that are remembered.
const REMEMBERED_MAX: usize = 10_000;
/// After a request that timed out or broke off, the next requests have fewer wants by this factor.
const FEWER: usize = 8;

/// A hash of the credential of a request: a host may refuse to one credential what it sends to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asker(u64);

/// The commits of one repository that could not be fetched.
#[derive(Debug)]
pub(crate) struct Faults {
    known: Mutex<BTreeMap<(ObjectId, Asker), Fault>>,
    askers: RandomState,
    together: AtomicUsize,
}

#[derive(Debug)]
struct Fault {
    reason: GitError,
    tries: u32,
    until: Instant,
}

/// Wants, sorted by what is known about them.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    /// The wanted commits that are known to be unfetchable, with their reasons.
    pub(crate) refused: Vec<(ObjectId, GitError)>,
    /// The wanted commits that are requested now.
    pub(crate) asked: Vec<ObjectId>,
    /// The requested commits that could not be fetched before.
    pub(crate) again: BTreeSet<ObjectId>,
}

impl Default for Faults {
    fn default() -> Self {
        let (known, askers) = (Mutex::default(), RandomState::new());
        Self { known, askers, together: AtomicUsize::new(usize::MAX) }
    }
}

impl Faults {
    /// The hash of a credential; the absence of a credential has a hash, too.
    pub(crate) fn asker(&self, credential: Option<&Secret>) -> Asker {
        Asker(self.askers.hash_one(credential.map(Secret::expose)))
    }

    /// Sorts wanted commits into those to request now and those that are known to be faulty.
    pub(crate) fn sort(&self, asker: Asker, wants: &[ObjectId]) -> Sorted {
        let (faults, now, mut sorted) = (self.known.lock(), Instant::now(), Sorted::default());
        for want in wants {
            match faults.get(&(*want, asker)) {
                Some(fault) if fault.until > now => sorted.refused.push((*want, fault.reason.clone())),
                found => {
                    sorted.asked.push(*want);
                    sorted.again.extend(found.map(|_| *want));
                }
            }
        }
        sorted
    }

    /// The shortest wait before a commit is requested again; `None`: it is not known as faulty.
    pub(crate) fn again_in(&self, commit: ObjectId) -> Option<Duration> {
        let faults = self.known.lock();
        let of_commit = faults.range((commit, Asker(0))..=(commit, Asker(u64::MAX)));
        let until = of_commit.map(|(_, fault)| fault.until).min()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Forgets commits that were fetched.
    pub(crate) fn forget(&self, asker: Asker, had: impl IntoIterator<Item = ObjectId>) {
        let mut faults = self.known.lock();
        for want in had {
            faults.remove(&(want, asker));
        }
    }

    /// Records wants that cannot be fetched, while others of their repository can.
    pub(crate) fn note(&self, asker: Asker, refused: &[(ObjectId, GitError)]) {
        let (mut faults, now) = (self.known.lock(), Instant::now());
        if faults.len() + refused.len() > REMEMBERED_MAX {
            faults.retain(|_, fault| now < fault.until + FORGOTTEN_AFTER);
        }
        for (want, reason) in refused {
            let before = faults.remove(&(*want, asker)).map_or(0, |fault| fault.tries);
            if faults.len() >= REMEMBERED_MAX {
                continue;
            }
            if before == 0 {
                tracing::warn!(commit = %want, "{want} cannot be taken: {reason}; other refs go on");
            }
            let wait = WAIT_FIRST.saturating_mul(1 << before.min(16)).min(WAIT_LAST);
            let fault = Fault { reason: reason.clone(), tries: before + 1, until: now + wait };
            faults.insert((*want, asker), fault);
        }
    }

    /// How many wants one request may have.
    pub(crate) fn together(&self) -> usize {
        self.together.load(Ordering::Relaxed)
    }

    /// Records that a request for this number of wants timed out or broke off: smaller requests find the
    /// commit at fault.
    pub(crate) fn ask_for_fewer(&self, wants: usize) {
        self.together.store((wants / FEWER).max(1), Ordering::Relaxed);
    }

    /// Records that a request was answered: later requests may have more wants.
    pub(crate) fn ask_for_more(&self) {
        self.together.store(self.together().saturating_mul(2), Ordering::Relaxed);
    }
}

/// The `wants` that are not among `others`.
pub(crate) fn except(wants: &[ObjectId], others: impl IntoIterator<Item = ObjectId>) -> Vec<ObjectId> {
    let others: HashSet<ObjectId> = others.into_iter().collect();
    wants.iter().copied().filter(|want| !others.contains(want)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: ObjectId = ObjectId::new([1; 20]);
    const GOOD: ObjectId = ObjectId::new([2; 20]);

    fn refused() -> Vec<(ObjectId, GitError)> {
        vec![(BAD, GitError::Broken("its tree is not there".to_owned()))]
    }

    #[test]
    fn what_one_credential_is_refused_another_one_asks_for() {
        let faults = Faults::default();
        let one = faults.asker(Some(&Secret::new("one".to_owned())));
        let (other, nobody) = (faults.asker(Some(&Secret::new("other".to_owned()))), faults.asker(None));
        faults.note(one, &refused());
        assert_eq!(faults.sort(one, &[BAD, GOOD]).asked, [GOOD]);
        for asker in [other, nobody] {
            assert_eq!(faults.sort(asker, &[BAD, GOOD]).asked, [BAD, GOOD]);
        }
        assert!(faults.again_in(BAD).is_some_and(|wait| wait <= WAIT_FIRST));
        assert_eq!(faults.again_in(GOOD), None);
    }

    #[test]
    fn what_was_had_is_forgotten_and_what_was_not_asked_for_stays() {
        let faults = Faults::default();
        let asker = faults.asker(None);
        faults.note(asker, &refused());
        faults.forget(asker, [GOOD]);
        assert_eq!(faults.sort(asker, &[BAD]).refused.len(), 1);
        faults.forget(asker, [BAD]);
        assert_eq!(faults.sort(asker, &[BAD]).asked, [BAD]);
    }

    #[test]
    fn fewer_wants_are_asked_for_together_until_requests_are_answered() {
        let faults = Faults::default();
        let mut seen = Vec::new();
        for _ in 0..4 {
            faults.ask_for_fewer(faults.together().min(100));
            seen.push(faults.together());
        }
        assert_eq!(seen, [12, 1, 1, 1]);
        (0..7).for_each(|_| faults.ask_for_more());
        assert_eq!(faults.together(), 128);
    }
}
