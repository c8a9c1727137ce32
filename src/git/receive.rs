//! Takes a pack in: on a blocking thread of its own, fed through a short channel, so that a slow
//! disk slows the download instead of filling memory. Nothing becomes visible in the mirror until
//! the pack was looked into (see [`super::pack_check`]), is indexed, and all that was wanted is seen to be complete. If the channel closes before
//! [`Piece::End`], the fetch was given up and nothing stays behind.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use git2::Indexer;
use tidings_actors::ports::{Extent, GitError};
use tidings_entity::id::ObjectId;
use tokio::sync::mpsc;

use super::{
    closure::{Known, Seen},
    failure,
    fetch::FetchFailure,
    limits::{Cancel, Limits},
    mirror::{Mirror, Quarantine},
    objects::Objects,
    pack_check::{PackCheck, PackLimits},
    turn::Turn,
};
use crate::settings::git::GitSettings;

/// Signature, version and number of objects.
const PACK_HEADER_BYTES: usize = 12;
/// A pack without objects is its header and its hash.
const EMPTY_PACK_OBJECTS: u32 = 0;

/// Packs with deltas of larger objects than this are indexed one at a time, and no longer than a minute each:
/// others wait for it.
const LARGE_DELTA_BYTES: u64 = 8 << 20;
const LARGE_DELTA_TIME: Duration = Duration::from_mins(1);
static LARGE_DELTAS: Mutex<()> = Mutex::new(());
/// Between two looks whether it is free.
const LARGE_DELTA_LOOK: Duration = Duration::from_millis(50);

/// The free space is looked at again after so many bytes.
const ROOM_CHECKED_EVERY: usize = 8 << 20;

/// What a fetch hands over.
pub(super) enum Piece {
    /// Bytes of the pack.
    Pack(Bytes),
    /// The pack is whole.
    End(ShallowChange),
}

/// More commits without parents than these no honest answer has: one for each commit of its edge.
const SHALLOW_LINES_MAX: usize = 200_000;

/// How the list of commits without parents changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ShallowChange {
    added: BTreeSet<ObjectId>,
    removed: BTreeSet<ObjectId>,
}

impl ShallowChange {
    /// A commit is without its parents from now on.
    ///
    /// # Errors
    /// [`GitError::TooLarge`].
    pub(super) fn add(&mut self, commit: ObjectId) -> Result<(), GitError> {
        self.added.insert(commit);
        self.check()
    }

    /// A commit has its parents from now on.
    ///
    /// # Errors
    /// [`GitError::TooLarge`].
    pub(super) fn remove(&mut self, commit: ObjectId) -> Result<(), GitError> {
        self.removed.insert(commit);
        self.check()
    }

    fn check(&self) -> Result<(), GitError> {
        if self.added.len() + self.removed.len() <= SHALLOW_LINES_MAX {
            return Ok(());
        }
        Err(GitError::TooLarge(format!("more than {SHALLOW_LINES_MAX} commits at the edge of the history")))
    }
}

/// What must be complete before the pack is let in.
pub(super) struct Expected {
    pub(super) mirror: Arc<Mirror>,
    pub(super) wants: Vec<ObjectId>,
    pub(super) haves: Vec<ObjectId>,
    /// How much of each want was asked for.
    pub(super) extent: Extent,
    /// Every tree that is here is complete in that sense.
    pub(super) trusted: bool,
    /// The right to write; whoever drops this last lets the next writer in.
    pub(super) turn: Turn,
}

/// Takes a pack in; blocks. Returns the number of its objects.
pub(super) fn receive(
    expected: &Expected,
    settings: &GitSettings,
    mut pieces: mpsc::Receiver<Piece>,
    cancel: &Cancel,
) -> Result<u64, FetchFailure> {
    let mut intake = Intake {
        quarantine: expected.mirror.quarantine("fetch")?,
        bases: expected.mirror.open()?,
        max_objects: settings.fetch_max_objects,
        limits: PackLimits {
            object_bytes: settings.object_max_bytes,
            delta_bytes: settings.delta_max_bytes,
            unpacked_bytes: settings.unpacked_max_bytes,
        },
        check: None,
        patience: Patience {
            began: Instant::now(),
            longest: settings.fetch_timeout,
            cancel: cancel.clone(),
            alone_until: Arc::default(),
        },
        head: Vec::with_capacity(PACK_HEADER_BYTES),
        objects: None,
        indexer: None,
        mirror: &expected.mirror,
        unchecked: 0,
    };
    let shallow = loop {
        match pieces.blocking_recv() {
            Some(Piece::Pack(bytes)) => intake.take(&bytes)?,
            Some(Piece::End(shallow)) => break shallow,
            None => return Err(GitError::Cancelled.into()),
        }
    };
    let (objects, quarantine) = intake.finish()?;
    let mirror = &expected.mirror;
    let open = Objects::open(&[quarantine.objects(), &mirror.objects()])?;
    check_wants(&open, expected, settings, cancel)?;
    if expected.extent < Extent::Whole {
        quarantine.mark_partial()?;
    }
    let turn = &expected.turn;
    // Shallow lines first: one too many is harmless, one too few misleads the host. Of a commit that is not
    // here nobody needs a line.
    if shallow != ShallowChange::default() {
        let before = mirror.shallow()?;
        let mut lines = before.clone();
        lines.extend(shallow.added.into_iter().filter(|commit| open.contains(*commit)));
        if lines != before {
            mirror.set_shallow(turn, &lines)?;
        }
        drop(open);
        mirror.promote(turn, &quarantine)?;
        let with_all = lines.len();
        lines.retain(|line| !shallow.removed.contains(line));
        if lines.len() < with_all {
            mirror.set_shallow(turn, &lines)?;
        }
    } else {
        drop(open);
        mirror.promote(turn, &quarantine)?;
    }
    for want in &expected.wants {
        mirror.mark_complete(*want, expected.extent);
    }
    mirror.measure()?;
    Ok(objects)
}

/// Checks that every want is complete. Of several, all that are not are named.
fn check_wants(
    open: &Objects,
    expected: &Expected,
    settings: &GitSettings,
    cancel: &Cancel,
) -> Result<(), FetchFailure> {
    let here = Objects::open(&[&expected.mirror.objects()])?;
    let known = if expected.trusted { Known::All(&here) } else { Known::Commits(&expected.haves) };
    let (mut seen, mut odd) = (Seen::default(), Vec::new());
    for want in &expected.wants {
        let limits = Limits::new(settings, cancel.clone());
        match seen.check(open, &known, &limits, *want, expected.extent) {
            Ok(()) => {}
            Err(error) if error.is_divisible() && expected.wants.len() > 1 => odd.push((*want, error)),
            Err(error) => return Err(error.into()),
        }
    }
    if odd.is_empty() { Ok(()) } else { Err(FetchFailure::Wants(odd)) }
}

/// How long taking a pack in may go on, and whether anybody still wants it.
#[derive(Clone)]
struct Patience {
    began: Instant,
    longest: Duration,
    cancel: Cancel,
    /// Until when it may keep others with large deltas waiting, once it does.
    alone_until: Arc<OnceLock<Instant>>,
}

impl Patience {
    fn check(&self) -> Result<(), GitError> {
        self.cancel.check()?;
        if self.alone_until.get().is_some_and(|until| Instant::now() > *until) {
            return Err(GitError::TooLarge(format!(
                "putting its deltas together takes longer than {LARGE_DELTA_TIME:?}"
            )));
        }
        if self.began.elapsed() > self.longest {
            return Err(GitError::TooLarge(format!(
                "taking its pack in takes longer than {:?}",
                self.longest
            )));
        }
        Ok(())
    }

    /// Waits until no other pack with large deltas is put together.
    fn alone(&self) -> Result<MutexGuard<'static, ()>, GitError> {
        loop {
            self.check()?;
            match LARGE_DELTAS.try_lock() {
                Ok(alone) => {
                    self.alone_until.get_or_init(|| Instant::now() + LARGE_DELTA_TIME);
                    return Ok(alone);
                }
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => thread::sleep(LARGE_DELTA_LOOK),
            }
        }
    }

    /// Why work was stopped, if it was, else what it says itself.
    fn or(&self, error: GitError) -> GitError {
        self.check().err().unwrap_or(error)
    }
}

/// A pack on its way in.
struct Intake<'a> {
    mirror: &'a Mirror,
    /// Bytes written since the last look at the free space.
    unchecked: usize,
    quarantine: Quarantine,
    max_objects: u32,
    limits: PackLimits,
    check: Option<PackCheck>,
    patience: Patience,
    head: Vec<u8>,
    objects: Option<u32>,
    // Dropped before `bases`, which it reads.
    indexer: Option<Indexer<'static>>,
    bases: Objects,
}

impl Intake<'_> {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), FetchFailure> {
        self.unchecked += bytes.len();
        if self.unchecked >= ROOM_CHECKED_EVERY {
            self.unchecked = 0;
            self.mirror.check_room()?;
        }
        if self.objects.is_none() {
            let lacking = PACK_HEADER_BYTES - self.head.len();
            let (head, rest) = bytes.split_at(lacking.min(bytes.len()));
            self.head.extend_from_slice(head);
            bytes = rest;
            if self.head.len() == PACK_HEADER_BYTES {
                self.begin()?;
            }
        }
        self.patience.check()?;
        if let Some(check) = &mut self.check {
            let checked = check.take(bytes, &|id| self.bases.header(id).ok().map(|(size, _)| size));
            checked.map_err(|error| match error {
                error @ GitError::TooLarge(_) => FetchFailure::Object(error),
                error => error.into(),
            })?;
        }
        match &mut self.indexer {
            Some(indexer) => {
                indexer.write_all(bytes).map_err(|error| self.patience.or(of_write(&error)).into())
            }
            None => Ok(()),
        }
    }

    /// The header is here: nothing is indexed before the number of objects is known to be sane.
    fn begin(&mut self) -> Result<(), GitError> {
        let version = u32::from_be_bytes(self.head[4..8].try_into().expect("4 of 12 bytes"));
        let objects = u32::from_be_bytes(self.head[8..12].try_into().expect("4 of 12 bytes"));
        if &self.head[..4] != b"PACK" || !matches!(version, 2 | 3) {
            return Err(GitError::Protocol("what came is no pack".to_owned()));
        }
        if objects > self.max_objects {
            return Err(GitError::TooLarge(format!(
                "a pack of {objects} objects, where {} are admitted",
                self.max_objects
            )));
        }
        self.objects = Some(objects);
        self.check = Some(PackCheck::new(self.limits, objects));
        if objects != EMPTY_PACK_OBJECTS {
            let indexing = |error: git2::Error| failure::of_indexing(&error);
            let patience = self.patience.clone();
            let goes_on = move || patience.check().is_ok();
            let mut indexer = self.bases.indexer(&self.quarantine.packs(), goes_on).map_err(indexing)?;
            indexer.write_all(&self.head).map_err(|error| of_write(&error))?;
            self.indexer = Some(indexer);
        }
        Ok(())
    }

    fn finish(self) -> Result<(u64, Quarantine), GitError> {
        let Some(objects) = self.objects else {
            return match self.head.len() {
                0 => Ok((0, self.quarantine)),
                _ => Err(GitError::Protocol("the pack ends within its header".to_owned())),
            };
        };
        if let Some(indexer) = self.indexer {
            // What deltas are made of is held whole: one such pack at a time.
            let is_large = self.check.as_ref().is_some_and(|check| check.largest_delta() > LARGE_DELTA_BYTES);
            let _alone = if is_large { Some(self.patience.alone()?) } else { None };
            indexer.commit().map_err(|error| self.patience.or(failure::of_indexing(&error)))?;
        }
        Ok((u64::from(objects), self.quarantine))
    }
}

fn of_write(error: &std::io::Error) -> GitError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<git2::Error>()) {
        Some(error) => failure::of_indexing(error),
        None => failure::of_disk(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_of_a_history_is_a_set_of_so_many_commits() {
        let commit = |number: usize| {
            let mut id = [0; 20];
            id[..8].copy_from_slice(&number.to_be_bytes());
            ObjectId::new(id)
        };
        let mut shallow = ShallowChange::default();
        for number in 0..SHALLOW_LINES_MAX {
            shallow.add(commit(number)).expect("so many may be");
            // Said again it is the same.
            shallow.add(commit(number / 2)).expect("nothing new");
        }
        let error = shallow.remove(commit(SHALLOW_LINES_MAX)).expect_err("one too many");
        assert!(matches!(error, GitError::TooLarge(_)), "{error}");
    }
}
