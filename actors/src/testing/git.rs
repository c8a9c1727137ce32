//! [`MemoryGit`]: repositories as maps. Its list of changes is made the plain way, whole and
//! sorted, straight from the rules in [`crate::model::round`]; the real engine, which never holds a list,
//! is tested against the same rules.

mod list;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tidings_entity::{
    id::{ObjectId, RepositoryId, Sha256Hash},
    kind::RoundKind,
};
use tokio::time::Instant;

pub use self::list::{Tree, list, summary};
use crate::{
    limits::hosts::{HostPolicy, Hosts},
    model::round::{Change, Entry, RoundSpec, TreeEnd},
    ports::{GitError, Keep, Location, MirrorFacts, Share},
    signals::growth::Growth,
};

/// How long a poll of a host that hangs takes until its caller abandons it.
pub const HANG: Duration = Duration::from_secs(60);

#[derive(Default)]
struct World {
    trees: HashMap<ObjectId, Tree>,
    parents: HashMap<ObjectId, ObjectId>,
    blobs: HashMap<ObjectId, Bytes>,
    refs: HashMap<Location, BTreeMap<String, ObjectId>>,
    heads: HashMap<Location, String>,
    faults: Vec<GitError>,
    unissued: Option<Duration>,
    fetched: HashSet<ObjectId>,
    unfetched: HashSet<ObjectId>,
    forgetful: bool,
    polls: u64,
    asked: BTreeMap<String, u64>,
    known_answers: u64,
    fetches: u64,
    refusals: u64,
    polling: u32,
    most_polling: u32,
    poll_takes: Duration,
    plan_takes: Duration,
    hangs: HashSet<Location>,
    log: Vec<(Location, Instant)>,
    panics: u32,
    mirrors: BTreeMap<RepositoryId, MirrorFacts>,
    damaged: BTreeSet<RepositoryId>,
    renamed: HashMap<Location, Location>,
    too_large: HashSet<ObjectId>,
    upkeep: Vec<Upkeep>,
    upkeep_faults: VecDeque<UpkeepFault>,
    no_room: Option<String>,
    fetched_objects: u64,
}

/// Work on a mirror that was asked for, as a test sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum Upkeep {
    /// Leftovers of crashes were removed.
    Swept,
    /// The mirror was rebuilt from this [`Keep`].
    Compacted(RepositoryId, Keep),
    /// A share of the mirror's files was checked.
    Scrubbed(RepositoryId, Share),
    /// The mirror was removed from the disk.
    Removed(RepositoryId),
}

/// What happens to one piece of work on a mirror.
#[derive(Clone, Debug)]
pub enum UpkeepFault {
    /// The work fails with this error.
    Fails(GitError),
    /// The work never ends.
    Hangs,
    /// The task of the work panics.
    Panics,
}

/// A [`GitSource`](crate::ports::GitSource) in memory, whose repositories a test writes.
#[derive(Default)]
pub struct MemoryGit(Mutex<World>, Hosts, Growth);

impl MemoryGit {
    /// Creates repositories whose hosts have the limits of `policy`.
    #[must_use]
    pub fn with_hosts(policy: HostPolicy) -> Self {
        Self(Mutex::default(), Hosts::new(policy), Growth::default())
    }

    /// Commits `files` (path, content) onto a branch and returns the commit.
    pub fn commit(&self, location: &Location, branch: &str, files: &[(&str, &str)]) -> ObjectId {
        let files: Vec<_> = files.iter().map(|(path, content)| (*path, *content, 0o100_644)).collect();
        self.commit_modes(location, branch, &files)
    }

    /// Commits files with the Git mode of each; for a symbolic link (`0o120_000`) the content is the target.
    pub fn commit_modes(&self, location: &Location, branch: &str, files: &[(&str, &str, u32)]) -> ObjectId {
        let mut world = self.world();
        let name = format!("refs/heads/{branch}");
        let parent = world.refs.get(location).and_then(|refs| refs.get(&name)).copied();
        let mut tree = Tree::new();
        for (path, content, mode) in files {
            let blob = object_id(content.as_bytes());
            world.blobs.insert(blob, Bytes::copy_from_slice(content.as_bytes()));
            tree.insert(path.as_bytes().to_vec(), Entry { mode: *mode, blob });
        }
        let commit = object_id(format!("{parent:?}{files:?}{}", world.trees.len()).as_bytes());
        world.trees.insert(commit, tree);
        if let Some(parent) = parent {
            world.parents.insert(commit, parent);
        }
        world.refs.entry(location.clone()).or_default().insert(name.clone(), commit);
        world.heads.entry(location.clone()).or_insert(name);
        commit
    }

    /// Removes a branch from the repository at a location.
    pub fn remove_branch(&self, location: &Location, branch: &str) {
        if let Some(refs) = self.world().refs.get_mut(location) {
            refs.remove(&format!("refs/heads/{branch}"));
        }
    }

    /// Renames a repository at its host, which answers requests for the old address with the new one until
    /// another repository is there.
    pub fn rename(&self, old: &Location, new: &Location) {
        let mut world = self.world();
        let (refs, head) = (world.refs.remove(old), world.heads.remove(old));
        world.refs.extend(refs.map(|refs| (new.clone(), refs)));
        world.heads.extend(head.map(|head| (new.clone(), head)));
        world.renamed.insert(old.clone(), new.clone());
    }

    /// The next polls fail, one fault each.
    pub fn fail(&self, faults: Vec<GitError>) {
        self.world().faults.extend(faults);
    }

    /// The next poll gets no token: who issues them asks for patience, of which the host knows nothing.
    pub fn issue_no_token(&self, retry_after: Duration) {
        self.world().unissued = Some(retry_after);
    }

    /// Points a branch at a commit that exists.
    pub fn point(&self, location: &Location, branch: &str, commit: ObjectId) {
        let name = format!("refs/heads/{branch}");
        self.world().refs.entry(location.clone()).or_default().insert(name, commit);
    }

    /// Makes another branch the default one.
    pub fn set_default_branch(&self, location: &Location, branch: &str) {
        self.world().heads.insert(location.clone(), format!("refs/heads/{branch}"));
    }

    /// A commit is gone everywhere, also at its host.
    pub fn lose(&self, commit: ObjectId) {
        self.world().trees.remove(&commit);
    }

    /// The tree of a commit crosses a cap, or does so no more.
    pub fn too_large(&self, commit: ObjectId, is_too_large: bool) {
        let mut world = self.world();
        if is_too_large {
            world.too_large.insert(commit);
        } else {
            world.too_large.remove(&commit);
        }
    }

    /// A blob is gone everywhere, also at its host; what it was.
    ///
    /// # Panics
    /// When there is no such blob.
    pub fn lose_blob(&self, blob: ObjectId) -> Bytes {
        self.world().blobs.remove(&blob).expect("it is there")
    }

    /// A blob lies at its host again; with `present` also in the mirror.
    pub fn restore_blob(&self, content: Bytes, present: bool) {
        let mut world = self.world();
        let blob = object_id(&content);
        world.blobs.insert(blob, content);
        if !present {
            world.unfetched.insert(blob);
        }
    }

    /// The files of a commit.
    pub fn files(&self, commit: ObjectId) -> BTreeMap<Vec<u8>, ObjectId> {
        let world = self.world();
        let tree = world.trees.get(&commit).into_iter().flatten();
        tree.map(|(path, entry)| (path.clone(), entry.blob)).collect()
    }

    /// The next polls panic.
    pub fn panic(&self, polls: u32) {
        self.world().panics = polls;
    }

    /// Makes each poll take this long.
    pub fn poll_takes(&self, span: Duration) {
        self.world().poll_takes = span;
    }

    /// Makes planning a round take this long.
    pub fn plan_takes(&self, span: Duration) {
        self.world().plan_takes = span;
    }

    /// Makes polls of this repository hang, or end again.
    pub fn hang(&self, location: &Location, hangs: bool) {
        let mut world = self.world();
        if hangs {
            world.hangs.insert(location.clone());
        } else {
            world.hangs.remove(location);
        }
    }

    /// Each poll so far: of what, and when it began.
    pub fn poll_log(&self) -> Vec<(Location, Instant)> {
        self.world().log.clone()
    }

    /// The most polls that were in flight at once.
    pub fn most_polls_at_once(&self) -> u32 {
        self.world().most_polling
    }

    /// Makes every object absent until it is fetched.
    pub fn forget_objects(&self) {
        let mut world = self.world();
        world.forgetful = true;
        world.fetched.clear();
    }

    /// The number of polls so far.
    pub fn polls(&self) -> u64 {
        self.world().polls
    }

    /// How many polls asked for this ref, or for refs with this prefix.
    pub fn polls_for(&self, pattern: &str) -> u64 {
        self.world().asked.get(pattern).copied().unwrap_or_default()
    }

    /// The number of polls so far whose answer was known and not read again.
    pub fn known_answers(&self) -> u64 {
        self.world().known_answers
    }

    /// The number of fetches so far.
    pub fn fetches(&self) -> u64 {
        self.world().fetches
    }

    /// Fetches that were refused so far.
    pub fn refusals(&self) -> u64 {
        self.world().refusals
    }

    /// There is a mirror like this.
    pub fn put_mirror(&self, facts: MirrorFacts) {
        self.world().mirrors.insert(facts.repository.clone(), facts);
    }

    /// The mirrors there are.
    pub fn mirrors_now(&self) -> Vec<MirrorFacts> {
        self.world().mirrors.values().cloned().collect()
    }

    /// The next scrub of this mirror finds damage.
    pub fn damage(&self, repository: &RepositoryId) {
        self.world().damaged.insert(repository.clone());
    }

    /// Nothing more may be fetched, or (`None`) there is room again.
    pub fn stop_fetches(&self, reason: Option<&str>) {
        self.world().no_room = reason.map(str::to_owned);
    }

    /// Makes each fetch bring this number of objects.
    pub fn fetch_brings(&self, objects: u64) {
        self.world().fetched_objects = objects;
    }

    /// The next pieces of work on mirrors meet these.
    pub fn fail_upkeep(&self, faults: impl IntoIterator<Item = UpkeepFault>) {
        self.world().upkeep_faults.extend(faults);
    }

    /// The work on mirrors since the last time this was asked.
    pub fn take_upkeep(&self) -> Vec<Upkeep> {
        std::mem::take(&mut self.world().upkeep)
    }

    async fn meet_upkeep(&self, work: Upkeep) -> Result<(), GitError> {
        let fault = self.world().upkeep_faults.pop_front();
        match fault {
            Some(UpkeepFault::Fails(error)) => return Err(error),
            Some(UpkeepFault::Hangs) => std::future::pending().await,
            Some(UpkeepFault::Panics) => panic!("upkeep panics, as asked"),
            None => {}
        }
        self.world().upkeep.push(work);
        Ok(())
    }

    /// The whole list of a spec.
    ///
    /// # Errors
    /// [`GitError::Missing`] for a commit that is not present.
    pub fn list(&self, spec: &RoundSpec) -> Result<Vec<Change>, GitError> {
        let world = self.world();
        let tree = |end: &TreeEnd| world.tree(end.commit);
        let bases = spec.bases.iter().map(tree).collect::<Result<Vec<_>, _>>()?;
        let held = spec.held.as_ref().filter(|_| spec.kind != RoundKind::Resync).map(tree).transpose()?;
        let target = spec.target.as_ref().map(tree).transpose()?;
        Ok(list(spec, held, target, &bases, &world.blobs))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock()
    }
}

impl World {
    fn tree(&self, commit: ObjectId) -> Result<&Tree, GitError> {
        if self.forgetful && !self.fetched.contains(&commit) {
            return Err(GitError::Missing(commit));
        }
        if self.too_large.contains(&commit) {
            return Err(GitError::TooLarge("as asked".to_owned()));
        }
        if self.blobs.contains_key(&commit) {
            return Err(GitError::NotACommit(commit));
        }
        self.trees.get(&commit).ok_or(GitError::Missing(commit))
    }
}

/// Counts a poll in flight, also if its task is aborted.
struct Poll<'g>(&'g MemoryGit);

impl<'g> Poll<'g> {
    fn begin(git: &'g MemoryGit, location: &Location) -> (Self, Duration) {
        let mut world = git.world();
        world.polls += 1;
        world.log.push((location.clone(), Instant::now()));
        if world.panics > 0 {
            world.panics -= 1;
            drop(world);
            panic!("a poll panics, as asked");
        }
        world.polling += 1;
        world.most_polling = world.most_polling.max(world.polling);
        let takes = if world.hangs.contains(location) { HANG } else { world.poll_takes };
        (Self(git), takes)
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.0.world().polling -= 1;
    }
}

fn object_id(bytes: &[u8]) -> ObjectId {
    let hash = Sha256Hash::of(bytes);
    let mut id = [0; 20];
    id.copy_from_slice(&hash.as_bytes()[..20]);
    ObjectId::new(id)
}
