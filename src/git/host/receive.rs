//! Receives a pack on a blocking thread, fed through a short channel, so that a slow disk slows the download
//! instead of filling memory. A pack of many objects is stored on disk completely before it is indexed (see
//! [`super::indexing`]). Nothing becomes visible in the mirror until the pack is checked (see
//! [`super::pack_check`]) and indexed, and all wanted objects are complete. If the channel closes before
//! [`Piece::End`], the fetch was cancelled and no file stays.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Seek, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use git2::Indexer;
use parking_lot::Mutex;
use tidings_actors::{
    limits::shares::{Share, Shares},
    ports::{Extent, GitError},
};
use tidings_entity::id::{AppId, ObjectId};
use tokio::sync::mpsc;

use super::{
    fetch::FetchFailure,
    indexing::{self, FEW_OBJECTS, SHARE_TIME, share_of},
    pack_check::{PackCheck, PackLimits},
};
use crate::settings::GitSettings;
use crate::{
    acquire::closure::{Known, Seen},
    failure,
    mirror::{Mirror, Quarantine, turn::Turn},
    objects::{
        Objects,
        limits::{Cancel, Limits},
    },
};

/// Signature, version and number of objects.
const PACK_HEADER_BYTES: usize = 12;
/// A pack without objects is its header and its hash.
const EMPTY_PACK_OBJECTS: u32 = 0;

/// The bytes that are read at a time from a pack on disk.
const SPOOL_PIECE_BYTES: usize = 64 << 10;

/// The number of received bytes after which the free space is checked again.
const ROOM_CHECKED_EVERY: usize = 8 << 20;

/// A message from the fetch to the receiving thread.
pub(crate) enum Piece {
    /// Bytes of the pack.
    Pack(Bytes),
    /// The pack is whole.
    End(ShallowChange),
}

/// The most shallow lines that are accepted; a valid answer has one for each commit at its edge.
const SHALLOW_LINES_MAX: usize = 200_000;

/// How the list of commits without parents changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShallowChange {
    added: BTreeSet<ObjectId>,
    removed: BTreeSet<ObjectId>,
}

impl ShallowChange {
    /// A commit is without its parents from now on.
    ///
    /// # Errors
    /// [`GitError::TooLarge`].
    pub(crate) fn add(&mut self, commit: ObjectId) -> Result<(), GitError> {
        self.added.insert(commit);
        self.check()
    }

    /// A commit has its parents from now on.
    ///
    /// # Errors
    /// [`GitError::TooLarge`].
    pub(crate) fn remove(&mut self, commit: ObjectId) -> Result<(), GitError> {
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

/// The objects that must be complete before the pack is admitted.
pub(crate) struct Expected {
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) wants: Vec<ObjectId>,
    pub(crate) haves: Vec<ObjectId>,
    /// How much of each want was asked for.
    pub(crate) extent: Extent,
    /// Every tree that is here is complete in that sense.
    pub(crate) trusted: bool,
    /// The apps that the pack is received for.
    pub(crate) apps: Vec<AppId>,
    /// The right to write into the mirror; the next writer gets its turn when the last holder drops it.
    pub(crate) turn: Turn,
}

/// Takes a pack in; blocks. Returns the number of its objects.
pub(crate) fn receive(
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
        deadline: IntakeDeadline::new(settings.fetch_timeout, &expected.apps, cancel),
        head: Vec::with_capacity(PACK_HEADER_BYTES),
        objects: None,
        spool: None,
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
    // The list of shallow commits is written first: a superfluous line is harmless, a missing one misleads
    // the host. Commits that are not present need no line.
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

/// The deadline for receiving a pack, and whether the fetch was cancelled.
#[derive(Clone)]
struct IntakeDeadline {
    longest: Duration,
    apps: Arc<[AppId]>,
    cancel: Cancel,
    work: Arc<Mutex<Work>>,
}

struct Work {
    /// When receiving began; waits for other fetches do not count.
    began: Instant,
    /// The share that other fetches may wait for, and until when it may be kept.
    share: Option<(Instant, &'static Shares)>,
}

impl IntakeDeadline {
    fn new(longest: Duration, apps: &[AppId], cancel: &Cancel) -> Self {
        let work = Work { began: Instant::now(), share: None };
        Self { longest, apps: apps.into(), cancel: cancel.clone(), work: Arc::new(Mutex::new(work)) }
    }

    fn check(&self) -> Result<(), GitError> {
        self.cancel.check()?;
        let (work, now) = (self.work.lock(), Instant::now());
        if work.share.is_some_and(|(until, shares)| now > until && shares.is_wanted()) {
            return Err(GitError::Busy(format!(
                "indexing the pack takes longer than {SHARE_TIME:?}, and others wait"
            )));
        }
        if now - work.began > self.longest {
            return Err(GitError::TooLarge(format!(
                "taking its pack in takes longer than {:?}",
                self.longest
            )));
        }
        Ok(())
    }

    /// Waits for a share of the budget of all fetches.
    fn share(&self, (shares, units): (&'static Shares, u64)) -> Result<Share, GitError> {
        let since = Instant::now();
        let share = indexing::take(shares, &self.apps, units, || {
            self.cancel.check()?;
            if since.elapsed() <= self.longest {
                return Ok(());
            }
            Err(GitError::Busy(format!("packs of others were being indexed for {:?}", self.longest)))
        })?;
        let mut work = self.work.lock();
        work.began += since.elapsed();
        work.share = Some((Instant::now() + SHARE_TIME, shares));
        Ok(share)
    }

    /// The reason why the work was stopped, if it was, or else its own error.
    fn or(&self, error: GitError) -> GitError {
        self.check().err().unwrap_or(error)
    }
}

/// A pack that is being received.
struct Intake<'a> {
    mirror: &'a Mirror,
    /// Bytes written since the last look at the free space.
    unchecked: usize,
    quarantine: Quarantine,
    max_objects: u32,
    limits: PackLimits,
    check: Option<PackCheck>,
    deadline: IntakeDeadline,
    head: Vec<u8>,
    objects: Option<u32>,
    /// The pack on disk, where it is indexed once it is whole.
    spool: Option<File>,
    // Dropped before `bases`, which it reads.
    indexer: Option<Indexer<'static>>,
    bases: Objects,
}

impl Intake<'_> {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), FetchFailure> {
        self.check_room(bytes.len())?;
        if self.objects.is_none() {
            let lacking = PACK_HEADER_BYTES - self.head.len();
            let (head, rest) = bytes.split_at(lacking.min(bytes.len()));
            self.head.extend_from_slice(head);
            bytes = rest;
            if self.head.len() == PACK_HEADER_BYTES {
                self.begin()?;
            }
        }
        self.deadline.check()?;
        if let Some(check) = &mut self.check {
            let checked = check.take(bytes, &|id| self.bases.header(id).ok().map(|(size, _)| size));
            checked.map_err(|error| match error {
                error @ GitError::TooLarge(_) => FetchFailure::Object(error),
                error => error.into(),
            })?;
        }
        if let Some(spool) = &mut self.spool {
            spool.write_all(bytes).map_err(|error| failure::of_disk(&error))?;
        }
        match &mut self.indexer {
            Some(indexer) => {
                indexer.write_all(bytes).map_err(|error| self.deadline.or(of_write(&error)).into())
            }
            None => Ok(()),
        }
    }

    /// Checks from time to time whether there is room on the disk.
    fn check_room(&mut self, bytes: usize) -> Result<(), GitError> {
        self.unchecked += bytes;
        if self.unchecked < ROOM_CHECKED_EVERY {
            return Ok(());
        }
        self.unchecked = 0;
        self.mirror.check_room()
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
                "a pack of {objects} objects, where git.fetch_max_objects admits {} (each takes some 160 \
                 bytes of memory while the pack is indexed)",
                self.max_objects
            )));
        }
        self.objects = Some(objects);
        self.check = Some(PackCheck::new(self.limits, objects));
        if objects > FEW_OBJECTS {
            let spool = File::options().read(true).write(true).create_new(true).open(self.quarantine.spool());
            let mut spool = spool.map_err(|error| failure::of_disk(&error))?;
            spool.write_all(&self.head).map_err(|error| failure::of_disk(&error))?;
            self.spool = Some(spool);
        } else if objects != EMPTY_PACK_OBJECTS {
            let mut indexer = self.new_indexer()?;
            indexer.write_all(&self.head).map_err(|error| of_write(&error))?;
            self.indexer = Some(indexer);
        }
        Ok(())
    }

    fn new_indexer(&self) -> Result<Indexer<'static>, GitError> {
        let deadline = self.deadline.clone();
        let goes_on = move || deadline.check().is_ok();
        let indexer = self.bases.indexer(&self.quarantine.packs(), goes_on);
        indexer.map_err(|error| failure::of_indexing(&error))
    }

    fn finish(mut self) -> Result<(u64, Quarantine), GitError> {
        let Some(objects) = self.objects else {
            return match self.head.len() {
                0 => Ok((0, self.quarantine)),
                _ => Err(GitError::Protocol("the pack ends within its header".to_owned())),
            };
        };
        let largest_delta = self.check.as_ref().map_or(0, PackCheck::largest_delta);
        let share = share_of(objects, largest_delta).map(|share| self.deadline.share(share)).transpose()?;
        if let Some(spool) = self.spool.take() {
            self.index(spool)?;
        }
        if let Some(indexer) = self.indexer.take() {
            indexer.commit().map_err(|error| self.deadline.or(failure::of_indexing(&error)))?;
        }
        drop(share);
        Ok((u64::from(objects), self.quarantine))
    }

    /// Passes a pack on disk to the indexer.
    fn index(&mut self, mut spool: File) -> Result<(), GitError> {
        let of_disk = |error: std::io::Error| failure::of_disk(&error);
        let mut indexer = self.new_indexer()?;
        let mut piece = vec![0; SPOOL_PIECE_BYTES];
        spool.rewind().map_err(of_disk)?;
        loop {
            let length = spool.read(&mut piece).map_err(of_disk)?;
            if length == 0 {
                break;
            }
            self.check_room(length)?;
            self.deadline.check()?;
            indexer.write_all(&piece[..length]).map_err(|error| self.deadline.or(of_write(&error)))?;
        }
        // Frees the disk space for the following steps.
        spool.set_len(0).map_err(of_disk)?;
        self.indexer = Some(indexer);
        Ok(())
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
