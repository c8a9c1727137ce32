//! Reads on a bounded number of blocking threads, each with its own open handle (a shared handle is slower).
//! Apps take turns at them, so many reads of one app (a hundred registrations at once) delay a read of
//! another app by one. A few idle handles are kept for the next readers; a handle on a mirror whose files
//! were replaced is not used again.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tidings_actors::{limits::turns::Turns, ports::GitError};
use tidings_entity::id::AppId;
use tokio::task::spawn_blocking;

use super::limits::Cancel;
use crate::{
    local,
    mirror::{Mirror, MirrorState},
    objects::Objects,
};

/// Idle handles that stay open.
const HANDLES_KEPT: usize = 16;
/// How long a handle on a local repository is used: its owner may repack the repository at any time.
const LOCAL_KEPT: Duration = Duration::from_secs(1);

/// A read of a mirror that changes all the time is begun so often.
const TRIES_MAX: u32 = 5;

/// The objects that a reader opens: a mirror, or a repository on this machine.
#[derive(Clone)]
pub(crate) enum ObjectStore {
    /// A mirror in the data directory.
    Mirror(Arc<Mirror>),
    /// A repository on this machine that is read in place.
    Local(PathBuf),
}

/// The meaning of a missing object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// Objects were lost: the next fetch checks everything.
    Loss,
    /// In a partial mirror nothing: contents come when they are needed.
    Content,
}

/// Runs reads on blocking threads, with a pool of open handles.
pub(crate) struct Readers {
    turns: Turns,
    idle: Arc<Mutex<Vec<(MirrorState, Objects)>>>,
    idle_local: Arc<Mutex<Vec<Local>>>,
}

/// An idle handle on a repository outside the data directory.
struct Local {
    path: PathBuf,
    opened: Instant,
    objects: Objects,
}

impl Readers {
    pub(crate) fn new(readers: usize) -> Self {
        Self { turns: Turns::new(readers), idle: Arc::default(), idle_local: Arc::default() }
    }

    /// Runs `read` for these apps on a blocking thread. Dropping the future cancels it soon.
    pub(crate) async fn read<T, R>(
        &self,
        apps: &[AppId],
        place: ObjectStore,
        gap: Gap,
        read: R,
    ) -> Result<T, GitError>
    where
        T: Send + 'static,
        R: Fn(&Objects, &Cancel) -> Result<T, GitError> + Send + 'static,
    {
        let (idle, idle_local) = (Arc::clone(&self.idle), Arc::clone(&self.idle_local));
        self.run_for(apps, move |cancel| match place {
            ObjectStore::Mirror(mirror) => read_mirror(&idle, &mirror, gap, &read, cancel),
            ObjectStore::Local(path) => read_local(&idle_local, path, &read, cancel),
        })
        .await
    }

    /// Closes the handles that no read uses now.
    pub(crate) fn close_idle(&self) {
        self.idle.lock().clear();
    }

    /// Runs upkeep on a blocking thread, like a read that serves no app.
    pub(crate) async fn run<T, W>(&self, work: W) -> Result<T, GitError>
    where
        T: Send + 'static,
        W: FnOnce(&Cancel) -> Result<T, GitError> + Send + 'static,
    {
        self.run_for(&[], work).await
    }

    /// Runs `work` for these apps on a blocking thread; counted as a reader. Dropping the future cancels it
    /// soon.
    pub(crate) async fn run_for<T, W>(&self, apps: &[AppId], work: W) -> Result<T, GitError>
    where
        T: Send + 'static,
        W: FnOnce(&Cancel) -> Result<T, GitError> + Send + 'static,
    {
        let permit = self.turns.take_for(apps).await;
        let cancel = Cancel::default();
        let _cancel_on_drop = cancel.on_drop();
        let work = move || {
            let _permit = permit;
            work(&cancel)
        };
        spawn_blocking(work).await.map_err(|_| GitError::Storage("a read panicked".to_owned()))?
    }
}

/// Reads a repository outside the data directory; again with a new handle if an object was missing or broken,
/// because its owner may have repacked it meanwhile.
fn read_local<T>(
    idle: &Mutex<Vec<Local>>,
    path: PathBuf,
    read: &dyn Fn(&Objects, &Cancel) -> Result<T, GitError>,
    cancel: &Cancel,
) -> Result<T, GitError> {
    let kept = {
        let mut idle = idle.lock();
        idle.retain(|local| local.opened.elapsed() < LOCAL_KEPT);
        idle.iter().rposition(|local| local.path == path).map(|at| idle.remove(at))
    };
    if let Some(local) = kept {
        match read(&local.objects, cancel) {
            Err(GitError::Missing(_) | GitError::Corrupt(_)) => {}
            result => {
                keep_local(idle, local);
                return result;
            }
        }
    }
    let objects = Objects::open(&[&local::objects(&path)?])?;
    let result = read(&objects, cancel);
    if result.is_ok() {
        keep_local(idle, Local { path, opened: Instant::now(), objects });
    }
    result
}

fn keep_local(idle: &Mutex<Vec<Local>>, local: Local) {
    let mut idle = idle.lock();
    if idle.len() >= HANDLES_KEPT {
        idle.remove(0);
    }
    idle.push(local);
}

/// Reads a mirror; again with a fresh handle if something was missing or broken, because packs may
/// have been replaced meanwhile.
fn read_mirror<T>(
    idle: &Mutex<Vec<(MirrorState, Objects)>>,
    mirror: &Mirror,
    gap: Gap,
    read: &dyn Fn(&Objects, &Cancel) -> Result<T, GitError>,
    cancel: &Cancel,
) -> Result<T, GitError> {
    let state = mirror.state();
    mirror.check_indexes()?;
    if let Some(objects) = take(idle, &state) {
        match read(&objects, cancel) {
            Err(GitError::Missing(_) | GitError::Corrupt(_)) => {}
            result => {
                keep(idle, mirror, state, objects);
                return result;
            }
        }
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let state = mirror.state();
        // libgit2 shares open packs by their path. A replaced pack must be closed by all handles before it is
        // opened again, or its old content would be read.
        idle.lock().retain(|(kept, _)| kept.is_current_beside(&state));
        let objects = mirror.open()?;
        let result = read(&objects, cancel);
        match &result {
            Err(GitError::Missing(_) | GitError::Corrupt(_)) if mirror.state() != state => {
                if tries < TRIES_MAX {
                    continue;
                }
            }
            Err(GitError::Missing(_)) if gap == Gap::Content && mirror.is_partial() => {}
            Err(GitError::Missing(_)) => mirror.doubt(),
            Err(GitError::Corrupt(_)) => mirror.mark_damaged(),
            _ => keep(idle, mirror, state, objects),
        }
        return result;
    }
}

fn take(idle: &Mutex<Vec<(MirrorState, Objects)>>, state: &MirrorState) -> Option<Objects> {
    let mut idle = idle.lock();
    let at = idle.iter().rposition(|(kept, _)| kept == state)?;
    Some(idle.remove(at).1)
}

fn keep(idle: &Mutex<Vec<(MirrorState, Objects)>>, mirror: &Mirror, state: MirrorState, objects: Objects) {
    if mirror.state() != state {
        return;
    }
    let mut idle = idle.lock();
    if idle.len() >= HANDLES_KEPT {
        idle.remove(0);
    }
    idle.push((state, objects));
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fs::File, time::SystemTime};

    use tidings_entity::id::{ObjectId, RepositoryId};
    use ulid::Ulid;

    use super::*;
    use crate::{
        mirror::{
            space::Space,
            turn::{Sharing, Turn, tests::sharing},
        },
        settings::GitSettings,
    };

    fn mirror(folder: &tempfile::TempDir) -> Mirror {
        mirror_shared(folder, None)
    }

    fn mirror_shared(folder: &tempfile::TempDir, sharing: Option<Arc<Sharing>>) -> Mirror {
        let space = Arc::new(Space::new(folder.path().to_owned(), &GitSettings::default()));
        let mirror = Mirror::new(folder.path(), &RepositoryId::new(Ulid::from_parts(1, 1)), space, sharing);
        mirror.prepare(&Turn::alone()).expect("writable");
        mirror
    }

    /// Loses its files at the first try, and finds them at the next.
    fn assert_begins_again(mirror: &Mirror, lose: impl Fn()) {
        let (idle, tries) = (Mutex::default(), Cell::new(0));
        let read = |_: &Objects, _: &Cancel| {
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                lose();
                return Err(GitError::Missing(ObjectId::new([7; 20])));
            }
            Ok(tries.get())
        };
        assert_eq!(
            read_mirror(&idle, mirror, Gap::Loss, &read, &Cancel::default()).expect("the second try"),
            2
        );
        assert!(!mirror.take_doubt(), "nothing was really missing");
    }

    #[tokio::test]
    async fn many_reads_of_one_app_delay_a_read_of_another_app_by_one() {
        let (readers, order) = (Arc::new(Readers::new(1)), Arc::new(Mutex::new(Vec::new())));
        let held = readers.turns.take_for(&[]).await;
        let mut reads = tokio::task::JoinSet::new();
        for number in [1, 1, 1, 1, 2] {
            let (readers, order) = (Arc::clone(&readers), Arc::clone(&order));
            reads.spawn(async move {
                let note = move |_: &Cancel| {
                    order.lock().push(number);
                    Ok(())
                };
                readers.run_for(&[AppId::new(Ulid::from_parts(1, number))], note).await
            });
            tokio::task::yield_now().await;
        }
        drop(held);
        while let Some(read) = reads.join_next().await {
            read.expect("no panic").expect("it reads nothing");
        }
        assert_eq!(*order.lock(), [1, 2, 1, 1, 1]);
    }

    #[test]
    fn a_read_that_lost_its_files_to_a_compaction_begins_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mirror = mirror(&folder);
        assert_begins_again(&mirror, || mirror.retire(&Turn::alone(), &[]).expect("nothing to remove"));
    }

    #[test]
    fn a_read_that_lost_its_files_to_another_process_begins_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sharing = Arc::new(sharing());
        let mirror = mirror_shared(&folder, Some(sharing));
        assert_begins_again(&mirror, || {
            let packs = File::open(mirror.packs()).expect("a directory");
            packs.set_modified(SystemTime::UNIX_EPOCH).expect("as if it had changed");
        });
    }

    #[test]
    fn handles_on_replaced_files_are_closed_and_others_are_used_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mirror, idle) = (mirror(&folder), Mutex::default());
        let read = || {
            read_mirror(&idle, &mirror, Gap::Loss, &|_, _| Ok(()), &Cancel::default())
                .expect("it reads nothing");
            idle.lock().iter().map(|(state, _)| state.clone()).collect::<Vec<_>>()
        };
        let first = read();
        assert_eq!((first.len(), read()), (1, first.clone()));
        mirror.retire(&Turn::alone(), &[]).expect("nothing to remove");
        let second = read();
        assert_eq!(second.len(), 1);
        assert_ne!(second, first);
    }

    #[test]
    fn a_handle_that_met_damage_or_a_gap_is_not_kept_and_the_mirror_knows() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mirror, idle) = (mirror(&folder), Mutex::default());
        let fail = |error: GitError| {
            read_mirror::<()>(&idle, &mirror, Gap::Loss, &|_, _| Err(error.clone()), &Cancel::default())
                .expect_err("fails");
            idle.lock().len()
        };
        assert_eq!(fail(GitError::Missing(ObjectId::new([7; 20]))), 0);
        assert!(mirror.take_doubt());
        let before = mirror.state();
        assert_eq!(fail(GitError::Corrupt("x".to_owned())), 0);
        mirror.prepare(&Turn::alone()).expect("begun again");
        assert_ne!(mirror.state(), before);
    }

    #[test]
    fn a_content_that_is_not_here_says_something_only_of_a_mirror_that_is_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mirror, idle) = (mirror(&folder), Mutex::default());
        let miss = |gap| {
            let missing = |_: &Objects, _: &Cancel| Err(GitError::Missing(ObjectId::new([7; 20])));
            read_mirror::<()>(&idle, &mirror, gap, &missing, &Cancel::default()).expect_err("missing");
            mirror.take_doubt()
        };
        assert!(miss(Gap::Content) && miss(Gap::Loss), "a whole mirror lacks nothing");
        std::fs::write(mirror.objects().join("pack/pack-1.promisor"), "").expect("writable");
        assert!(!miss(Gap::Content));
        assert!(miss(Gap::Loss), "trees and commits are never left out");
    }
}
