//! The right to write into a mirror, which one writer has at a time. Within a process that is a mutex. Where
//! replicas share the directory of mirrors, it is a lock on a file beside the mirror as well.
//!
//! The operating system releases the lock of a process that dies. It does not for a frozen process, or for a
//! lost machine that a network file system still waits for. So the holder of the lock writes into the file
//! every [`BEAT`], and a waiter that has read the same content for [`SILENCE`] moves the file away and
//! creates another. No clocks are compared. A holder that was frozen finds the new file before it makes
//! anything visible ([`Turn::check`]).
//!
//! Between that check and the renaming the process may freeze again, so the lock is no fence. It need not be
//! one: packs are named by their content, and every object is checked by its id. Two writers at once may lose
//! a pack that the other relied on, which the next fetch repairs, or a line of the list of shallow commits,
//! which a later walk writes again.
//!
//! Each write is synced, because a client of a network file system would buffer it for longer than others
//! wait. Its content is never the same twice, so that a file with changing holders is not taken for a silent
//! one.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidings_actors::ports::{Clock, GitError, Random};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedMutexGuard},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

use crate::failure;

/// How often a holder says that it lives.
const BEAT: Duration = Duration::from_secs(3);
/// A holder that has not shown life for this long has lost its turn: five beats.
const SILENCE: Duration = Duration::from_secs(15);
/// The wait between two tries.
const AGAIN: Duration = Duration::from_millis(50);
/// How long replaced files stay readable: another replica may be reading them, and over a network file system
/// the deletion of a mapped file ends the process that reads it.
pub(crate) const GRACE: Duration = Duration::from_mins(10);
/// The size of the content of a lock file, in bytes.
const SAYING_BYTES: usize = 100;
/// The longest name of a machine in a lock, in characters.
const MACHINE_CHARS: usize = 50;
/// Prefix of temporary files; the rest of the name is the creation time. A file that is left behind is
/// removed after the grace.
pub(crate) const PROBE: &str = "probe-";

/// The settings of a process that shares its directory of mirrors with others.
pub(crate) struct Sharing {
    /// Identifies this process in lock files: its machine, and a number.
    token: String,
    pub(crate) clock: Arc<dyn Clock>,
    beat: Duration,
    /// How often something was said.
    said: AtomicU64,
}

impl Sharing {
    pub(crate) fn new(clock: Arc<dyn Clock>, random: &dyn Random) -> Self {
        let mut token = [0; 8];
        random.fill(&mut token);
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let machine: String = machine.chars().filter(char::is_ascii_graphic).take(MACHINE_CHARS).collect();
        let token = format!("{machine}-{:016x}", u64::from_be_bytes(token));
        Self { token, clock, beat: BEAT, said: AtomicU64::new(0) }
    }

    /// Whether files can be locked in a directory.
    pub(crate) fn check(&self, mirrors: &Path) -> io::Result<()> {
        let path = mirrors.join(self.probe(Path::new("")));
        let tried = self.try_lock(&path);
        let removed = remove(&path);
        match tried? {
            Tried::Held { .. } => removed,
            Tried::Busy(_) => Err(io::Error::other("a lock that nobody has was refused")),
        }
    }

    /// A name that only this process uses, for a moment, over a lock.
    fn probe(&self, lock: &Path) -> String {
        let lock = lock.file_name().unwrap_or_default().to_string_lossy();
        format!("{PROBE}{}-{}{lock}", self.clock.now().0, self.token)
    }

    /// Locks a file, which is created if it does not exist, and writes the holder into it.
    fn try_lock(&self, path: &Path) -> io::Result<Tried> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Tried::Busy(saying(&file)?)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let before = saying(&file)?;
        self.say(&file)?;
        // The file may have been moved away since it was opened.
        if !self.is_named_in(path)? {
            return Ok(Tried::Busy(Vec::new()));
        }
        Ok(Tried::Held { file, after_another: !before.starts_with(self.token.as_bytes()) })
    }

    fn say(&self, file: &File) -> io::Result<()> {
        let number = self.said.fetch_add(1, Ordering::Relaxed);
        // Padded to the full size, to overwrite the content of any earlier holder.
        let saying = format!("{} {number}", self.token);
        file.write_all_at(format!("{saying:<width$}\n", width = SAYING_BYTES - 1).as_bytes(), 0)?;
        file.sync_data()
    }

    /// Whether the present file names this process.
    fn is_named_in(&self, path: &Path) -> io::Result<bool> {
        Ok(read(path)?.is_some_and(|said| said.starts_with(self.token.as_bytes())))
    }
}

/// The turns at one mirror.
pub(crate) struct Turns {
    within: Arc<Mutex<()>>,
    file: PathBuf,
    sharing: Option<Arc<Sharing>>,
}

/// The right to write, until the last clone is dropped. It may be moved to a blocking thread.
#[derive(Clone)]
pub(crate) struct Turn(Arc<Having>);

struct Having {
    hold: Option<LockHold>,
    within: Option<OwnedMutexGuard<()>>,
}

impl Drop for Having {
    fn drop(&mut self) {
        let (hold, within) = (self.hold.take(), self.within.take());
        if hold.is_none() {
            return;
        }
        // The file is released first, so that the next writer of this process need not wait for it. Closing
        // it may take long on a network file system.
        let give_back = move || drop((hold, within));
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(give_back)),
            Err(_) => give_back(),
        }
    }
}

/// A locked file, until it is given back.
type Lent = Arc<parking_lot::Mutex<Option<File>>>;

/// The lock between processes.
struct LockHold {
    path: PathBuf,
    sharing: Arc<Sharing>,
    file: Lent,
    _beating: JoinSet<()>,
    /// Whether another process wrote since this one did.
    after_another: bool,
}

impl Turns {
    /// The turns of the mirror whose lock is this file.
    pub(crate) fn new(file: PathBuf, sharing: Option<Arc<Sharing>>) -> Self {
        Self { within: Arc::default(), file, sharing }
    }

    /// The file of the lock among processes.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`GitError::Storage`] where files cannot be locked.
    pub(crate) async fn take(&self) -> Result<Turn, GitError> {
        let within = Arc::clone(&self.within).lock_owned().await;
        let Some(sharing) = &self.sharing else { return Ok(Turn::of(None, within)) };
        let (mut said, mut since) = (None, Instant::now());
        loop {
            match self.try_hold(sharing).await? {
                Ok(hold) => return Ok(Turn::of(Some(hold), within)),
                Err(saying) if said.as_ref() == Some(&saying) => {
                    if since.elapsed() >= SILENCE {
                        self.take_away(sharing, &saying).await?;
                        (said, since) = (None, Instant::now());
                        continue;
                    }
                }
                Err(saying) => (said, since) = (Some(saying), Instant::now()),
            }
            sleep(AGAIN).await;
        }
    }

    /// Takes the turn if it is free.
    ///
    /// # Errors
    /// [`GitError::Storage`] where files cannot be locked.
    pub(crate) async fn take_free(&self) -> Result<Option<Turn>, GitError> {
        let Ok(within) = Arc::clone(&self.within).try_lock_owned() else { return Ok(None) };
        let Some(sharing) = &self.sharing else { return Ok(Some(Turn::of(None, within))) };
        let hold = self.try_hold(sharing).await?;
        Ok(hold.ok().map(|hold| Turn::of(Some(hold), within)))
    }

    /// Takes the lock between processes, or returns the content that its holder wrote.
    async fn try_hold(&self, sharing: &Arc<Sharing>) -> Result<Result<LockHold, Vec<u8>>, GitError> {
        let (path, who) = (self.file.clone(), Arc::clone(sharing));
        let (file, after_another) = match blocking(move || who.try_lock(&path)).await? {
            Tried::Held { file, after_another } => (Lent::new(Some(file).into()), after_another),
            Tried::Busy(saying) => return Ok(Err(saying)),
        };
        let mut beating = JoinSet::new();
        beating.spawn(beat(Arc::clone(&file), Arc::clone(sharing)));
        let (path, sharing) = (self.file.clone(), Arc::clone(sharing));
        Ok(Ok(LockHold { path, sharing, file, _beating: beating, after_another }))
    }

    /// Takes the file of a silent holder away, unless it is another's by now.
    async fn take_away(&self, sharing: &Sharing, saying: &[u8]) -> Result<(), GitError> {
        let (path, saying) = (self.file.clone(), saying.to_owned());
        let aside = path.with_file_name(sharing.probe(&path));
        let lock = path.display().to_string();
        let taken = blocking(move || {
            // Other waiters do the same: the file that was moved aside is checked, because `path` may be a
            // new file by now.
            match fs::rename(&path, &aside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                renamed => renamed?,
            }
            let is_same = read(&aside)?.is_some_and(|said| said == saying);
            if !is_same && let Err(error) = fs::hard_link(&aside, &path) {
                tracing::debug!(%error, "a lock that changed hands is lost to its holder");
            }
            remove(&aside).map(|()| is_same)
        });
        if taken.await? {
            tracing::warn!(%lock, "the holder of {lock} was silent for too long and has lost the lock");
        }
        Ok(())
    }
}

impl Turn {
    fn of(hold: Option<LockHold>, within: OwnedMutexGuard<()>) -> Self {
        Self(Arc::new(Having { hold, within: Some(within) }))
    }

    /// Whether another process wrote into the mirror since this process did.
    pub(crate) fn is_after_another(&self) -> bool {
        self.0.hold.as_ref().is_some_and(|hold| hold.after_another)
    }

    /// Checks that this process still has the turn, before anything becomes visible. Blocks.
    ///
    /// # Errors
    /// [`GitError::Storage`]: another process has the turn now.
    pub(crate) fn check(&self) -> Result<(), GitError> {
        let Some(hold) = &self.0.hold else { return Ok(()) };
        match hold.sharing.is_named_in(&hold.path) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let lock = hold.path.display();
                Err(GitError::Storage(format!("this process was silent for too long and lost {lock}")))
            }
            Err(error) => Err(failure::of_disk(&error)),
        }
    }
}

impl Drop for LockHold {
    fn drop(&mut self) {
        // Closing unlocks the file. A concurrent beat has ended, or finds the file closed, so the content of
        // the next holder is not overwritten.
        drop(self.file.lock().take());
    }
}

/// The result of an attempt to lock.
enum Tried {
    Held {
        file: File,
        after_another: bool,
    },
    /// Another process holds the lock, with this text.
    Busy(Vec<u8>),
}

/// Says again and again that the holder lives.
async fn beat(file: Lent, sharing: Arc<Sharing>) {
    loop {
        sleep(sharing.beat).await;
        let (file, sharing) = (Arc::clone(&file), Arc::clone(&sharing));
        let say = move || match &*file.lock() {
            Some(file) => sharing.say(file),
            None => Ok(()),
        };
        if let Err(error) = blocking(say).await {
            tracing::warn!(%error, "the file of a lock could not be written");
        }
    }
}

/// The content of a lock file, as far as it is written.
fn saying(file: &File) -> io::Result<Vec<u8>> {
    let mut said = vec![0; SAYING_BYTES];
    let length = file.read_at(&mut said, 0)?;
    said.truncate(length);
    Ok(said)
}

/// The present content of the file; `None` if it does not exist.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => saying(&file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, GitError> {
    let done = spawn_blocking(work).await;
    let done = done.map_err(|_| GitError::Storage("work on the file of a lock panicked".to_owned()))?;
    done.map_err(|error| failure::of_disk(&error))
}

#[cfg(test)]
impl Turn {
    /// A turn for tests, at a mirror of its own.
    pub(crate) fn alone() -> Self {
        Self::of(None, Arc::new(Mutex::new(())).try_lock_owned().expect("nobody has it"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering::Relaxed},
        time::Instant as RealInstant,
    };

    use tempfile::TempDir;
    use tidings_actors::{testing::SeededRandom, time::Timestamp};

    use super::*;

    /// A clock that runs with the real time.
    struct RunningClock(RealInstant);

    impl Clock for RunningClock {
        fn now(&self) -> Timestamp {
            Timestamp(1_700_000_000_000).after(self.0.elapsed())
        }
    }

    /// The shared settings of a process; each call is another process.
    pub(crate) fn sharing() -> Sharing {
        static PROCESSES: AtomicU64 = AtomicU64::new(0);
        let began = RealInstant::now();
        let random = SeededRandom::new(PROCESSES.fetch_add(1, Relaxed));
        Sharing::new(Arc::new(RunningClock(began)), &random)
    }

    struct Process(Turns);

    impl Process {
        fn new(folder: &TempDir, beat: Duration) -> Self {
            let sharing = sharing();
            let sharing = Sharing { beat, ..sharing };
            Self(Turns::new(folder.path().join("m.lock"), Some(Arc::new(sharing))))
        }

        async fn take(&self) -> Turn {
            self.0.take().await.expect("a turn")
        }

        async fn take_free(&self) -> Option<Turn> {
            self.0.take_free().await.expect("files can be locked")
        }
    }

    fn folder() -> TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[tokio::test(start_paused = true)]
    async fn one_process_at_a_time_has_the_turn_and_the_next_knows_who_had_it() {
        let folder = folder();
        let (one, other) = (Process::new(&folder, BEAT), Process::new(&folder, BEAT));
        let first = one.take().await;
        assert!(first.is_after_another(), "who wrote before is not known");
        assert!(one.take_free().await.is_none() && other.take_free().await.is_none());
        // A live holder keeps the lock for longer than a silent one could.
        let waiting = tokio::time::timeout(SILENCE * 4, other.take()).await;
        assert!(waiting.is_err());
        first.check().expect("it stands");
        let clone = first.clone();
        drop(first);
        assert!(other.take_free().await.is_none(), "a clone has it");
        drop(clone);
        let again = one.take().await;
        assert!(!again.is_after_another());
        drop(again);
        assert!(other.take().await.is_after_another());
        assert!(one.take().await.is_after_another());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_holder_loses_its_turn_and_finds_out() {
        let folder = folder();
        let silent = Process::new(&folder, Duration::from_hours(1));
        let other = Process::new(&folder, BEAT);
        let lost = silent.take().await;
        let won = other.take().await;
        won.check().expect("it stands");
        let error = lost.check().expect_err("another has it");
        assert!(matches!(&error, GitError::Storage(text) if text.contains("m.lock")), "{error}");
        // Dropping the lost turn must not release the lock of the other holder.
        drop(lost);
        assert!(Process::new(&folder, BEAT).take_free().await.is_none());
        won.check().expect("it stands");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_was_removed_with_its_mirror_is_made_anew() {
        let folder = folder();
        let (one, other) = (Process::new(&folder, BEAT), Process::new(&folder, BEAT));
        let first = one.take().await;
        fs::remove_file(one.0.file()).expect("there");
        assert!(first.check().is_err());
        let second = other.take_free().await.expect("nobody has the new one");
        drop(first);
        second.check().expect("it stands");
        assert!(Process::new(&folder, BEAT).take_free().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_shares_with_nobody_needs_no_file() {
        let folder = folder();
        let turns = Turns::new(folder.path().join("m.lock"), None);
        let turn = turns.take().await.expect("a turn");
        assert!(turns.take_free().await.expect("no file").is_none());
        turn.check().expect("it stands");
        assert!(!turn.is_after_another() && !turns.file().exists());
    }

    #[test]
    fn a_directory_in_which_files_cannot_be_locked_is_known_at_once() {
        let folder = folder();
        let sharing = sharing();
        sharing.check(folder.path()).expect("files can be locked");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is left");
        sharing.check(&folder.path().join("lacking")).expect_err("no such directory");
    }
}
