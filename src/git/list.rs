//! Plans and windows of a round's list. Small lists are cached, shared by all watches that ask for the same
//! list; a large list is computed again for every window, from the path where the window begins.

pub(crate) mod difference;
pub(crate) mod rules;
pub(crate) mod tree_join;

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tidings_actors::{
    model::round::{Change, Letter, ListDigest, Plan, RoundSpec, Summary},
    ports::{GitError, Seek},
};
use tidings_entity::{id::ObjectId, kind::Operation};

use super::objects::Objects;
use crate::settings::GitSettings;
use crate::{
    list::difference::{Difference, Letters, PHASES},
    objects::limits::{Cancel, Limits},
};

/// Lists up to this length are cached whole.
pub(super) const SMALL: usize = 10_000;
/// The most changes that all cached lists together may have.
const CHANGES_KEPT: usize = 60_000;
/// Paths are shorter than this nearly everywhere.
const LONG_PATH_BYTES: usize = 256;
const LISTS_KEPT: usize = 256;

type PathHash = [u8; 32];

/// The cached part of a list.
#[derive(Clone)]
enum Known {
    Small(Arc<Vec<Change>>, Summary),
    Large,
}

/// The cached lists, the least recently used first.
#[derive(Default)]
pub(super) struct Lists {
    kept: Mutex<VecDeque<(PathHash, Known)>>,
}

impl Lists {
    fn get(&self, key: &PathHash) -> Option<Known> {
        let mut kept = self.kept.lock();
        let at = kept.iter().position(|(other, _)| other == key)?;
        let found = kept.remove(at)?;
        let known = found.1.clone();
        kept.push_back(found);
        Some(known)
    }

    fn put(&self, key: PathHash, known: Known) {
        let length = |known: &Known| match known {
            Known::Small(changes, _) => changes.iter().map(weight).sum(),
            Known::Large => 0,
        };
        let mut kept = self.kept.lock();
        kept.retain(|(other, _)| *other != key);
        kept.push_back((key, known));
        let mut changes: usize = kept.iter().map(|(_, known)| length(known)).sum();
        while changes > CHANGES_KEPT || kept.len() > LISTS_KEPT {
            let Some((_, known)) = kept.pop_front() else { break };
            changes -= length(&known);
        }
    }
}

/// A change with a long path counts as several.
fn weight(change: &Change) -> usize {
    1 + change.path.len() / LONG_PATH_BYTES
}

/// Computes plans and windows of one repository's rounds; blocks.
pub(super) struct Lister<'a> {
    pub(super) objects: &'a Objects,
    pub(super) settings: &'a GitSettings,
    pub(super) lists: &'a Lists,
    pub(super) cancel: &'a Cancel,
    /// Lists up to this length are kept whole: [`SMALL`].
    pub(super) small: usize,
}

/// The result of computing a list, or the blobs to fetch before it can be computed.
pub(super) enum Made<T> {
    /// The list, or the plan of it.
    Whole(T),
    /// The list depends on the sizes of these blobs, which the mirror lacks.
    Lacks(Vec<ObjectId>),
}

impl Lister<'_> {
    fn limits(&self) -> Limits {
        Limits::new(self.settings, self.cancel.clone())
    }

    /// The summary of the list, and the candidates that it binds.
    pub(super) fn plan(&self, spec: &RoundSpec, candidates: &[Letter]) -> Result<Made<Plan>, GitError> {
        let bound_spec = |letters: &[Letter]| RoundSpec { letters: letters.to_vec(), ..spec.clone() };
        let mut candidates = candidates.to_vec();
        candidates.sort_by(|one, other| one.path.cmp(&other.path));
        candidates.dedup_by(|one, other| one.path == other.path);
        // Also for a cached list: the presence of its commits is part of the answer, because a mirror may
        // have been lost since.
        let difference = Difference::new(self.objects, spec)?;
        if candidates.is_empty()
            && let Some(Known::Small(_, summary)) = self.lists.get(&key(&bound_spec(&[])))
        {
            // Of many watches of one branch the first computes the list, and the others find it.
            return Ok(Made::Whole(Plan { letters: Vec::new(), summary }));
        }
        let collected = self.collect(&difference, Letters::Candidates(&candidates))?;
        if let Some(lacking) = lacking(&difference) {
            return Ok(Made::Lacks(lacking));
        }
        if let (Some(changes), letters) = collected {
            let summary = summarise(&changes);
            self.lists.put(key(&bound_spec(&letters)), Known::Small(Arc::new(changes), summary));
            return Ok(Made::Whole(Plan { letters, summary }));
        }
        let (mut digest, mut counts, mut letters) = (ListDigest::default(), [0_u64; 3], Vec::new());
        for (phase, count) in PHASES.into_iter().zip(&mut counts) {
            let mut visit = |change: Change| {
                *count += 1;
                digest.add(&change);
                Ok(true)
            };
            let all = Letters::Candidates(&candidates);
            letters = difference.pass(&self.limits(), all, Some(phase), None, &mut visit)?.0;
        }
        if let Some(lacking) = lacking(&difference) {
            return Ok(Made::Lacks(lacking));
        }
        self.lists.put(key(&bound_spec(&letters)), Known::Large);
        let [deletes, creates, updates] = counts;
        let summary = Summary { deletes, creates, updates, digest: digest.finish() };
        Ok(Made::Whole(Plan { letters, summary }))
    }

    /// At most `limit` changes from `seek` on.
    pub(super) fn window(
        &self,
        spec: &RoundSpec,
        seek: &Seek,
        limit: usize,
    ) -> Result<Made<Vec<Change>>, GitError> {
        let small = match self.small(spec)? {
            Made::Whole(small) => small,
            Made::Lacks(blobs) => return Ok(Made::Lacks(blobs)),
        };
        if let Some(changes) = small {
            let begin = match seek {
                Seek::Position(position) => {
                    usize::try_from(*position).unwrap_or(usize::MAX).min(changes.len())
                }
                Seek::After(last) => changes.partition_point(|change| place(change) <= place(last)),
            };
            return Ok(Made::Whole(changes[begin..].iter().take(limit).cloned().collect()));
        }
        let difference = Difference::new(self.objects, spec)?;
        let (mut skip, first, mut after) = match seek {
            Seek::Position(position) => (*position, 0, None),
            Seek::After(last) => (0, rank(last.operation), Some(last.path.as_slice())),
        };
        let mut window = Vec::with_capacity(limit.min(self.small));
        for phase in &PHASES[first..] {
            let mut visit = |change: Change| {
                if skip > 0 {
                    skip -= 1;
                } else if window.len() < limit {
                    window.push(change);
                }
                Ok(window.len() < limit)
            };
            difference.pass(
                &self.limits(),
                Letters::Bound(&spec.letters),
                Some(*phase),
                after,
                &mut visit,
            )?;
            after = None;
            if window.len() >= limit {
                break;
            }
        }
        Ok(lacking(&difference).map_or(Made::Whole(window), Made::Lacks))
    }

    fn small(&self, spec: &RoundSpec) -> Result<Made<Option<Arc<Vec<Change>>>>, GitError> {
        let key = key(spec);
        match self.lists.get(&key) {
            Some(Known::Small(changes, _)) => return Ok(Made::Whole(Some(changes))),
            Some(Known::Large) => return Ok(Made::Whole(None)),
            None => {}
        }
        let difference = Difference::new(self.objects, spec)?;
        let changes = self.collect(&difference, Letters::Bound(&spec.letters))?.0.map(Arc::new);
        if let Some(lacking) = lacking(&difference) {
            return Ok(Made::Lacks(lacking));
        }
        let known = changes.clone().map_or(Known::Large, |changes| {
            let summary = summarise(&changes);
            Known::Small(changes, summary)
        });
        self.lists.put(key, known);
        Ok(Made::Whole(changes))
    }

    /// The whole list in one pass, unless it is too long to be cached.
    fn collect(
        &self,
        difference: &Difference<'_>,
        letters: Letters<'_>,
    ) -> Result<(Option<Vec<Change>>, Vec<Letter>), GitError> {
        let mut changes = Vec::new();
        let mut visit = |change: Change| {
            changes.push(change);
            Ok(changes.len() <= self.small)
        };
        let (letters, whole) = difference.pass(&self.limits(), letters, None, None, &mut visit)?;
        // Each pass is in the order of paths already; a stable sort puts the phases one after another.
        changes.sort_by_key(|change| rank(change.operation));
        Ok((whole.then_some(changes), letters))
    }
}

fn lacking(difference: &Difference<'_>) -> Option<Vec<ObjectId>> {
    Some(difference.lacking()).filter(|lacking| !lacking.is_empty())
}

fn rank(operation: Operation) -> usize {
    match operation {
        Operation::Delete => 0,
        Operation::Create => 1,
        Operation::Update => 2,
    }
}

/// The place of a change in its list: deletes, creates, updates, each by path.
fn place(change: &Change) -> (usize, &[u8]) {
    (rank(change.operation), &change.path)
}

fn summarise(changes: &[Change]) -> Summary {
    let (mut digest, mut counts) = (ListDigest::default(), [0_u64; 3]);
    for change in changes {
        counts[rank(change.operation)] += 1;
        digest.add(change);
    }
    let [deletes, creates, updates] = counts;
    Summary { deletes, creates, updates, digest: digest.finish() }
}

/// Names a spec: equal specs have equal lists.
fn key(spec: &RoundSpec) -> PathHash {
    let mut hasher = Sha256::new();
    hasher.update(spec.kind.as_str());
    let ends = [spec.held.as_ref(), spec.target.as_ref()];
    for end in ends.into_iter().chain(spec.bases.iter().map(Some)) {
        match end {
            Some(end) => {
                hasher.update([1]);
                hasher.update(end.commit.as_bytes());
                hasher.update(end.view.id().as_bytes());
            }
            None => hasher.update([0]),
        }
    }
    for letter in &spec.letters {
        hasher.update([2]);
        hasher.update((letter.path.len() as u64).to_be_bytes());
        hasher.update(&letter.path);
        hasher.update([u8::from(letter.before.is_some())]);
        if let Some(entry) = &letter.before {
            hasher.update(entry.mode.to_be_bytes());
            hasher.update(entry.blob.as_bytes());
        }
        hasher.update((letter.delivery.as_str().len() as u64).to_be_bytes());
        hasher.update(letter.delivery.as_str());
    }
    hasher.finalize().into()
}

#[cfg(test)]
pub(super) mod tests;
