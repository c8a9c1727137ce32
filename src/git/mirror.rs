//! A mirror on disk: a bare, shallow repository in the directory of mirrors, named by its repository. It is a
//! cache: losing it costs a fetch, never a change.
//!
//! New packs are built in a quarantine directory inside the mirror and become visible by renaming, packs
//! before their indexes, all synced to disk. Leftovers of a crash are removed before the next fetch. A
//! damaged mirror is moved aside and replaced by an empty one.
//!
//! Where replicas share the directory of mirrors, replaced files are moved aside as well, and removed after a
//! grace, because another process may be reading them. Writes of other processes are recognised by the
//! modification time of the directory of packs, and by the lock file (see [`crate::mirror::turn`]).
//!
//! A mirror is partial when commits were fetched without their contents: then a missing blob is no damage,
//! and is fetched when needed. Such packs have a `.promisor` file beside them, as git itself marks them, so
//! that git can read a partial mirror too.

mod aside;
pub(crate) mod compact;
mod measure;
mod quarantine;
pub(crate) mod scrub;
pub(crate) mod space;
pub(crate) mod turn;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tidings_actors::ports::{Extent, GitError};
use tidings_entity::id::{ObjectId, RepositoryId};

pub(super) use self::{aside::sweep_damaged, quarantine::Quarantine};
use super::{failure, objects::Objects};
use crate::{
    acquire::faults::Faults,
    mirror::{
        scrub::Proofs,
        space::Space,
        turn::{Sharing, Turn, Turns},
    },
};

/// Above this many commits, only the most recently wanted ones are remembered as complete.
const COMPLETE_KEPT: usize = 100_000;
const QUARANTINE: &str = "quarantine-";
const DAMAGED: &str = ".damaged-";
/// Packs that were replaced and may still be read by another process.
const LEAVING: &str = "leaving-";
/// The suffix of the lock file, beside the mirror.
const LOCK: &str = ".lock";
/// The extension of the file that marks a pack without contents.
const PROMISOR: &str = "promisor";
/// The configuration file, which only git reads. It names no remote: only Tidings fetches into a mirror.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\
    [remote \"origin\"]\n\tpromisor = true\n\tpartialclonefilter = blob:none\n";

/// The mirror of one repository. Reading needs no turn; a writer holds [`Mirror::turn`].
pub(super) struct Mirror {
    directory: PathBuf,
    turns: Turns,
    sharing: Option<Arc<Sharing>>,
    generation: AtomicU64,
    damaged: AtomicBool,
    doubted: AtomicBool,
    complete: Mutex<HashMap<ObjectId, Extent>>,
    /// The directory of packs as it was when it was last looked at: inode and time of change.
    seen: Mutex<Option<(u64, i64, i64)>>,
    wanted: Mutex<Vec<ObjectId>>,
    /// The content that the host refused last.
    refused: Mutex<Option<ObjectId>>,
    faults: Faults,
    proofs: Arc<Proofs>,
    space: Arc<Space>,
}

/// Identifies one state of a mirror's files: a handle that was opened on another state is not used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MirrorState {
    directory: PathBuf,
    generation: u64,
    inode: u64,
    /// When the directory of packs last changed, to notice writes of another process; zeros where the mirror
    /// is not shared.
    changed: (i64, i64),
}

impl MirrorState {
    /// Whether this state may still be current when `newest` was just seen.
    pub(super) fn is_current_beside(&self, newest: &Self) -> bool {
        self.directory != newest.directory || self == newest
    }
}

impl Mirror {
    pub(super) fn new(
        mirrors: &Path,
        repository: &RepositoryId,
        space: Arc<Space>,
        sharing: Option<Arc<Sharing>>,
    ) -> Self {
        let directory = mirrors.join(repository.as_str());
        Self {
            turns: Turns::new(mirrors.join(format!("{repository}{LOCK}")), sharing.clone()),
            sharing,
            proofs: Arc::new(Proofs::new(directory.join("objects/pack"))),
            directory,
            space,
            wanted: Mutex::default(),
            refused: Mutex::default(),
            faults: Faults::default(),
            generation: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            complete: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// Waits for the right to write.
    ///
    /// # Errors
    /// [`GitError::Storage`] where it is shared and cannot be locked.
    pub(super) async fn turn(&self) -> Result<Turn, GitError> {
        // Only with a turn can changes by other processes be seen.
        self.turns.take().await.inspect(|turn| self.follow(turn)).inspect_err(|_| self.forget_complete())
    }

    /// The right to write, if it is free.
    ///
    /// # Errors
    /// [`GitError::Storage`] where the mirror is shared and cannot be locked.
    pub(super) async fn free_turn(&self) -> Result<Option<Turn>, GitError> {
        Ok(self.turns.take_free().await?.inspect(|turn| self.follow(turn)))
    }

    /// Forgets what is known about the files, if another process wrote into the mirror.
    fn follow(&self, turn: &Turn) {
        if turn.is_after_another() {
            self.forget_complete();
            self.damaged.store(false, Ordering::Release);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The state of the mirror's files, which changes whenever they are replaced.
    pub(super) fn state(&self) -> MirrorState {
        let generation = self.generation.load(Ordering::Acquire);
        let packs = fs::metadata(self.packs()).ok();
        let inode = packs.as_ref().map_or(0, MetadataExt::ino);
        let seen = packs.filter(|_| self.sharing.is_some());
        let changed = seen.map_or((0, 0), |packs| (packs.mtime(), packs.mtime_nsec()));
        MirrorState { directory: self.directory.clone(), generation, inode, changed }
    }

    /// Opens the present files; a mirror that does not exist is empty.
    pub(super) fn open(&self) -> Result<Objects, GitError> {
        self.check_indexes()?;
        Ok(Objects::open(&[&self.objects()])?.proved_by(Arc::clone(&self.proofs)))
    }

    /// Checks that the indexes are unchanged since their last check.
    ///
    /// # Errors
    /// [`GitError::Corrupt`]: the next fetch replaces the mirror.
    pub(super) fn check_indexes(&self) -> Result<(), GitError> {
        let proved = self.proofs.prove_indexes();
        proved.inspect_err(|error| {
            if let GitError::Corrupt(_) = error {
                self.mark_damaged();
            }
        })
    }

    /// Whether other processes write into it too.
    pub(super) fn is_shared(&self) -> bool {
        self.sharing.is_some()
    }

    /// The path of the mirror's directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of its objects.
    pub(super) fn objects(&self) -> PathBuf {
        self.directory.join("objects")
    }

    /// The directory of its packs.
    pub(super) fn packs(&self) -> PathBuf {
        self.directory.join("objects/pack")
    }

    /// Records that a read found damage: the next fetch makes a new mirror.
    pub(super) fn mark_damaged(&self) {
        self.damaged.store(true, Ordering::Release);
    }

    /// The commits of the repository that could not be fetched recently.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whether this extent of a commit was found complete.
    pub(super) fn is_complete(&self, commit: ObjectId, extent: Extent) -> bool {
        let complete = self.complete.lock();
        complete.get(&commit).is_some_and(|seen| *seen >= extent)
    }

    /// Records that this extent of a commit is complete.
    pub(super) fn mark_complete(&self, commit: ObjectId, extent: Extent) {
        let mut complete = self.complete.lock();
        if complete.len() >= COMPLETE_KEPT {
            let wanted = self.wanted.lock();
            let wanted: HashSet<_> = wanted.iter().collect();
            complete.retain(|commit, _| wanted.contains(commit));
        }
        let seen = complete.entry(commit).or_insert(extent);
        *seen = (*seen).max(extent);
    }

    /// Whether all objects that these commits need were found present, and the mirror has not changed since.
    /// Costs one look at a directory and no write; an unchanged poll ends with this.
    pub(super) fn still_holds(&self, commits: &[ObjectId], extent: Extent) -> bool {
        // A new or removed pack changes the modification time of the directory.
        let packs =
            fs::metadata(self.packs()).ok().map(|packs| (packs.ino(), packs.mtime(), packs.mtime_nsec()));
        let is_sound = !self.damaged.load(Ordering::Acquire) && !self.doubted.load(Ordering::Acquire);
        let seen = std::mem::replace(&mut *self.seen.lock(), packs);
        let is_here = |commit: &ObjectId| self.is_complete(*commit, extent);
        is_sound && packs.is_some() && seen == packs && commits.iter().all(is_here)
    }

    /// Remembers that a read missed something: nothing counts as complete until it is checked.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Release);
        self.forget_complete();
    }

    /// Whether a read missed an object, and no check has followed since.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Acquire)
    }

    /// Whether a read missed something since the last time this was asked.
    pub(super) fn take_doubt(&self) -> bool {
        self.doubted.swap(false, Ordering::AcqRel)
    }

    fn forget_complete(&self) {
        self.complete.lock().clear();
    }

    /// Prepares the directory for a fetch: moves a damaged mirror aside, removes leftovers of a crash, and
    /// creates missing files.
    pub(super) fn prepare(&self, turn: &Turn) -> Result<(), GitError> {
        turn.check()?;
        if self.damaged.swap(false, Ordering::AcqRel) {
            let mirror = self.directory.display();
            tracing::warn!(%mirror, "mirror {mirror} is damaged and is fetched again");
            self.move_aside().map_err(|error| failure::of_disk(&error))?;
        }
        self.lay_out().and_then(|()| self.sweep()).map_err(|error| failure::of_disk(&error))
    }

    /// Removes the mirror with all its files, and the file of its lock.
    pub(super) fn erase(&self, turn: &Turn) -> Result<(), GitError> {
        turn.check()?;
        // Waiters for the lock open another file.
        let erased = self.move_aside().and_then(|()| remove(self.turns.file()));
        self.space.measured(&self.directory, None);
        erased.map_err(|error| failure::of_disk(&error))
    }

    /// Removes leftovers of a crash, if the mirror exists.
    pub(super) fn clean(&self, turn: &Turn) -> Result<(), GitError> {
        turn.check()?;
        match self.sweep() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            swept => swept.map_err(|error| failure::of_disk(&error)),
        }
    }

    fn move_aside(&self) -> io::Result<()> {
        let name = self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = free_name(&self.directory.with_file_name(self.dated(&format!("{name}{DAMAGED}"))));
        match fs::rename(&self.directory, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.forget_complete();
        self.generation.fetch_add(1, Ordering::AcqRel);
        if self.sharing.is_some() { Ok(()) } else { remove(&aside) }
    }

    fn lay_out(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for directory in ["objects/info", "objects/pack", "refs/heads"] {
            builder.create(self.directory.join(directory))?;
        }
        for (file, text) in [("HEAD", "ref: refs/heads/main\n"), ("config", CONFIG)] {
            let path = self.directory.join(file);
            if !path.exists() {
                fs::write(path, text)?;
            }
        }
        Ok(())
    }

    fn sweep(&self) -> io::Result<()> {
        remove(&self.directory.join("objects/info/alternates"))?;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let has_left = name.strip_prefix(LEAVING).is_some_and(|since| self.is_long_ago(since));
            if has_left || name.starts_with(QUARANTINE) || name.ends_with(".lock") || name == "shallow.new" {
                self.remove(&entry.path())?;
            }
        }
        for entry in fs::read_dir(self.packs())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let lacks = |extension: &str| !path.with_extension(extension).exists();
            let half = name.ends_with(".pack") && lacks("idx")
                || name.ends_with(".idx") && lacks("pack")
                || name.ends_with(".promisor") && (lacks("pack") || lacks("idx"));
            if half || name.starts_with("pack_git2_") || name.starts_with("tmp_") || name.ends_with(".lock") {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// The shallow commits, whose parents are absent on purpose.
    ///
    /// # Errors
    /// [`GitError::Storage`] if the list cannot be read, [`GitError::Corrupt`] if it is malformed: a shallow
    /// commit missing from the list would seem to have parents.
    pub(super) fn shallow(&self) -> Result<BTreeSet<ObjectId>, GitError> {
        let bytes = match fs::read(self.directory.join("shallow")) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(failure::of_disk(&error)),
        };
        let corrupt = || GitError::Corrupt("the list of commits without parents is damaged".to_owned());
        let text = String::from_utf8(bytes).map_err(|_| corrupt())?;
        text.lines().map(|line| line.parse().map_err(|_| corrupt())).collect()
    }

    /// Replaces the list of shallow commits.
    pub(super) fn set_shallow(&self, turn: &Turn, shallow: &BTreeSet<ObjectId>) -> Result<(), GitError> {
        turn.check()?;
        self.write_shallow(shallow).map_err(|error| failure::of_disk(&error))
    }

    fn write_shallow(&self, shallow: &BTreeSet<ObjectId>) -> io::Result<()> {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(shallow.len() * 41);
        for commit in shallow {
            writeln!(text, "{commit}").map_err(io::Error::other)?;
        }
        let fresh = self.directory.join("shallow.new");
        fs::write(&fresh, text)?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, self.directory.join("shallow"))?;
        fs::File::open(&self.directory)?.sync_all()
    }

    /// The names of its packs.
    pub(super) fn pack_names(&self) -> Vec<PathBuf> {
        self.files("pack").collect()
    }

    /// Whether something was fetched without its contents.
    pub(super) fn is_partial(&self) -> bool {
        self.files(PROMISOR).next().is_some()
    }

    fn files(&self, extension: &'static str) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(self.packs()).into_iter().flatten().filter_map(Result::ok);
        entries
            .map(|entry| entry.path())
            .filter(move |path| path.extension().is_some_and(|found| found == extension))
    }

    /// Removes packs whose objects are in other packs now, or moves them aside if other processes may read
    /// them. Handles that were opened before are not used again.
    pub(super) fn retire(&self, turn: &Turn, packs: &[PathBuf]) -> Result<(), GitError> {
        turn.check()?;
        self.generation.fetch_add(1, Ordering::AcqRel);
        let files = packs
            .iter()
            .flat_map(|pack| [pack.with_extension("idx"), pack.clone(), pack.with_extension(PROMISOR)]);
        let retired = match &self.sharing {
            None => files.into_iter().try_for_each(|file| remove(&file)),
            Some(_) => self.let_leave(files),
        };
        self.generation.fetch_add(1, Ordering::AcqRel);
        retired.map_err(|error| failure::of_disk(&error))
    }
}

/// `base` with the first number that gives an unused name.
fn free_name(base: &Path) -> PathBuf {
    let base = base.to_string_lossy().into_owned();
    let mut names = (0_u64..).map(|number| PathBuf::from(format!("{base}{number}")));
    names.find(|path| path.symlink_metadata().is_err()).expect("numbers do not run out")
}

/// The repositories that have a mirror below this directory.
pub(super) fn all(mirrors: &Path) -> io::Result<Vec<RepositoryId>> {
    let names = fs::read_dir(mirrors)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
