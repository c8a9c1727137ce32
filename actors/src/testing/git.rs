//! [`MemoryGit`]: repositories as maps. Its list of changes is made the plain way, whole and
//! sorted, straight from the rules in [`crate::round`]; the real engine, which never holds a list,
//! is tested against the same rules.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tidings_entity::{
    id::{ObjectId, RepositoryId, Sha256Hash},
    kind::{ContentRule, Operation, RoundKind},
};
use tokio::time::Instant;

use crate::{
    growth::Growth,
    hosts::{HostPolicy, Hosts},
    ports::{
        BlobWanted, CommitFacts, Content, FetchOrder, FetchOutcome, FetchReport, GitError, GitSource, Keep,
        Location, MirrorFacts, Ref, RefListing, RefPatterns, Remote, Seek, Share, Storage, Walk,
    },
    round::{Change, Entry, Letter, ListDigest, Plan, RoundSpec, Summary, TreeEnd},
};

/// How long a poll of a host that hangs takes until it is given up.
pub const HANG: Duration = Duration::from_secs(60);

/// A tree: entries by path.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

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

/// Work on a mirror that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Upkeep {
    /// Leftovers of crashes.
    Swept,
    /// Rebuilt from this.
    Compacted(RepositoryId, Keep),
    /// Read again.
    Scrubbed(RepositoryId, Share),
    /// Gone.
    Removed(RepositoryId),
}

/// What befalls one piece of work on a mirror.
#[derive(Clone, Debug)]
pub enum UpkeepFault {
    /// It fails.
    Fails(GitError),
    /// It never comes back.
    Hangs,
    /// It panics.
    Panics,
}

/// Git in memory.
#[derive(Default)]
pub struct MemoryGit(Mutex<World>, Hosts, Growth);

impl MemoryGit {
    /// Whose hosts may be pressed as `policy` says.
    #[must_use]
    pub fn with_hosts(policy: HostPolicy) -> Self {
        Self(Mutex::default(), Hosts::new(policy), Growth::default())
    }

    /// Commits `files` (path, content) onto a branch and returns the commit.
    pub fn commit(&self, location: &Location, branch: &str, files: &[(&str, &str)]) -> ObjectId {
        let files: Vec<_> = files.iter().map(|(path, content)| (*path, *content, 0o100_644)).collect();
        self.commit_modes(location, branch, &files)
    }

    /// The same with the Git mode of each file; of a symbolic link (`0o120_000`) the content is the target.
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

    /// Removes a branch.
    pub fn remove_branch(&self, location: &Location, branch: &str) {
        if let Some(refs) = self.world().refs.get_mut(location) {
            refs.remove(&format!("refs/heads/{branch}"));
        }
    }

    /// A repository gets another name at its host, which says so to whoever asks for the old one until
    /// something else is there.
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

    /// From now on each poll takes this long.
    pub fn poll_takes(&self, span: Duration) {
        self.world().poll_takes = span;
    }

    /// From now on to plan a round takes this long.
    pub fn plan_takes(&self, span: Duration) {
        self.world().plan_takes = span;
    }

    /// From now on polls of this repository never end, or do so again.
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

    /// The most polls that ever were on their way at once.
    pub fn most_polls_at_once(&self) -> u32 {
        self.world().most_polling
    }

    /// From now on nothing is present until it is fetched.
    pub fn forget_objects(&self) {
        let mut world = self.world();
        world.forgetful = true;
        world.fetched.clear();
    }

    /// Polls so far.
    pub fn polls(&self) -> u64 {
        self.world().polls
    }

    /// Fetches so far.
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

    /// From now on each fetch brings so many objects.
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

/// A poll on its way, also if its task is aborted.
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

fn filtered(tree: Option<&Tree>, end: Option<&TreeEnd>) -> Tree {
    let (Some(tree), Some(end)) = (tree, end) else { return Tree::new() };
    let filter = end.view.filter().expect("a view's globs compile");
    tree.iter()
        .filter(|(path, entry)| filter.admits(path, entry.mode))
        .map(|(path, entry)| (path.clone(), *entry))
        .collect()
}

/// Puts what letters say in the place of what the held tree says; the paths that count as
/// different whatever the target has.
fn lay_letters_over(spec: &RoundSpec, before: &mut Tree) -> BTreeSet<Vec<u8>> {
    let mut never_equal: BTreeSet<Vec<u8>> = BTreeSet::new();
    for letter in &spec.letters {
        never_equal.insert(letter.path.clone());
        match (spec.kind, letter.before) {
            (RoundKind::Resync, Some(entry)) => {
                before.entry(letter.path.clone()).or_insert(entry);
            }
            (RoundKind::Resync, None) => {}
            (_, Some(entry)) => {
                before.insert(letter.path.clone(), entry);
            }
            (_, None) => {
                before.remove(&letter.path);
            }
        }
    }
    never_equal
}

/// The list of a round, made the plain way.
#[must_use]
pub fn list(
    spec: &RoundSpec,
    held: Option<&Tree>,
    target: Option<&Tree>,
    bases: &[&Tree],
    blobs: &HashMap<ObjectId, Bytes>,
) -> Vec<Change> {
    let after = filtered(target, spec.target.as_ref());
    let mut before = match spec.kind {
        RoundKind::Sync | RoundKind::Replay => filtered(held, spec.held.as_ref()),
        RoundKind::Redrive => Tree::new(),
        RoundKind::Resync => {
            let mut all = Tree::new();
            for (base, end) in bases.iter().zip(&spec.bases) {
                for (path, entry) in filtered(Some(base), Some(end)) {
                    all.entry(path).or_insert(entry);
                }
            }
            all
        }
    };
    let never_equal = lay_letters_over(spec, &mut before);
    let touched = |path: &Vec<u8>| {
        spec.kind != RoundKind::Redrive || spec.letters.iter().any(|letter| letter.path == *path)
    };
    let replay_of = |path: &Vec<u8>| {
        let letter = spec.letters.iter().find(|letter| letter.path == *path);
        letter.filter(|_| spec.kind == RoundKind::Redrive).map(|letter| letter.delivery.clone())
    };
    let mut paths: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    paths.extend(&never_equal);
    let mut changes = [Vec::new(), Vec::new(), Vec::new()];
    for path in paths.into_iter().filter(|path| touched(path)) {
        let (old, new) = (before.get(path).copied(), after.get(path).copied());
        let mut push = |phase: usize, operation, old, new| {
            changes[phase].push(Change {
                operation,
                path: path.clone(),
                old,
                new,
                replay_of: replay_of(path),
            });
        };
        match (old, new) {
            (old, None) if old.is_some() || never_equal.contains(path) => {
                push(0, Operation::Delete, old, None)
            }
            (_, None) => {}
            (_, Some(_)) if spec.kind == RoundKind::Resync => push(1, Operation::Create, None, new),
            (None, Some(_)) => push(1, Operation::Create, None, new),
            (Some(one), Some(other)) if one.mode & 0o170_000 != other.mode & 0o170_000 => {
                push(0, Operation::Delete, old, None);
                push(1, Operation::Create, None, new);
            }
            (Some(one), Some(other))
                if one != other || never_equal.contains(path) || gives_more(spec, other, blobs) =>
            {
                push(2, Operation::Update, old, new);
            }
            _ => {}
        }
    }
    changes.concat()
}

/// Whether the target's view gives content of an entry that the held view did not.
fn gives_more(spec: &RoundSpec, entry: Entry, blobs: &HashMap<ObjectId, Bytes>) -> bool {
    let (Some(held), Some(target)) = (&spec.held, &spec.target) else { return false };
    let size = blobs.get(&entry.blob).map_or(0, |blob| blob.len() as u64);
    let gives = |end: &TreeEnd| end.view.content() == ContentRule::Inline && size <= end.view.max_size();
    gives(target) && !gives(held)
}

/// Counts and digest of a list.
#[must_use]
pub fn summary(changes: &[Change]) -> Summary {
    let count = |operation| changes.iter().filter(|change| change.operation == operation).count() as u64;
    let mut digest = ListDigest::default();
    changes.iter().for_each(|change| digest.add(change));
    Summary {
        deletes: count(Operation::Delete),
        creates: count(Operation::Create),
        updates: count(Operation::Update),
        digest: digest.finish(),
    }
}

#[async_trait]
impl GitSource for MemoryGit {
    async fn list_refs(&self, remote: &Remote, patterns: &RefPatterns) -> Result<RefListing, GitError> {
        let (_poll, takes) = Poll::begin(self, &remote.location);
        tokio::time::sleep(takes).await;
        let mut world = self.world();
        if takes == HANG {
            return Err(GitError::Timeout("the host hangs, as asked".to_owned()));
        }
        if let Some(retry_after) = world.unissued.take() {
            return Err(GitError::RateLimited { retry_after: Some(retry_after) });
        }
        if !world.faults.is_empty() {
            let fault = world.faults.remove(0);
            if let (GitError::RateLimited { retry_after }, Location::Http(url)) = (&fault, &remote.location) {
                self.1.grant_patience(url, remote.credential.as_ref(), *retry_after);
            }
            return Err(fault);
        }
        let is_there = world.refs.contains_key(&remote.location);
        let renamed = world.renamed.get(&remote.location).filter(|_| !is_there).cloned();
        let moved_to = renamed.as_ref().and_then(|place| match place {
            Location::Http(url) => Some(url.to_string()),
            Location::Local(_) => None,
        });
        let place = renamed.as_ref().unwrap_or(&remote.location);
        let refs = world.refs.get(place).ok_or(GitError::NotFound)?;
        let head = world.heads.get(place).cloned();
        let wanted = |name: &String| {
            head.as_ref() == Some(name)
                || patterns.iter().any(|pattern| {
                    if pattern.ends_with('/') { name.starts_with(pattern) } else { name == pattern }
                })
        };
        let found = refs.iter().filter(|(name, _)| wanted(name));
        Ok(RefListing {
            refs: found.map(|(name, commit)| Ref { name: name.clone(), commit: *commit }).collect(),
            has_refs: !refs.is_empty(),
            head: head.clone(),
            moved_to,
            ..RefListing::default()
        })
    }

    async fn fetch_each(&self, remote: &Remote, order: &FetchOrder) -> Result<FetchOutcome, GitError> {
        let mut world = self.world();
        world.fetches += 1;
        let mut refused = Vec::new();
        for want in &order.wants {
            if !world.trees.contains_key(want) && !world.blobs.contains_key(want) {
                world.refusals += 1;
                refused.push((*want, GitError::Unobtainable(*want)));
                continue;
            }
            world.fetched.insert(*want);
            world.unfetched.remove(want);
        }
        if world.fetched_objects > 0 {
            self.2.note(&remote.repository);
        }
        let cost = FetchReport { objects: world.fetched_objects, ..FetchReport::default() };
        Ok(FetchOutcome { cost, refused, untried: Vec::new() })
    }

    async fn commit(&self, _remote: &Remote, commit: ObjectId) -> Result<CommitFacts, GitError> {
        let world = self.world();
        world.tree(commit)?;
        Ok(CommitFacts {
            author: "A <a@example.org>".to_owned(),
            time: 0,
            subject: commit.to_string(),
            first_parent: world.parents.get(&commit).copied(),
        })
    }

    async fn walk(
        &self,
        _remote: &Remote,
        head: ObjectId,
        held: ObjectId,
        limit: u32,
    ) -> Result<Walk, GitError> {
        let world = self.world();
        let mut commits = vec![head];
        let mut at = head;
        while let Some(parent) = world.parents.get(&at) {
            if *parent == held {
                commits.reverse();
                return Ok(Walk::Reached(commits));
            }
            if commits.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                return Ok(Walk::LimitReached);
            }
            commits.push(*parent);
            at = *parent;
        }
        Ok(Walk::Rewritten)
    }

    async fn plan(
        &self,
        _remote: &Remote,
        spec: &RoundSpec,
        candidates: &[Letter],
    ) -> Result<Plan, GitError> {
        let takes = self.world().plan_takes;
        // A sleep of no time is a step of the clock as well.
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let plain = self.list(spec)?;
        let binds = |letter: &&Letter| match spec.kind {
            RoundKind::Sync => plain.iter().any(|change| change.path == letter.path),
            RoundKind::Replay | RoundKind::Resync | RoundKind::Redrive => true,
        };
        let mut letters: Vec<Letter> = candidates.iter().filter(binds).cloned().collect();
        letters.sort_by(|one, other| one.path.cmp(&other.path));
        let bound = RoundSpec { letters: letters.clone(), ..spec.clone() };
        Ok(Plan { letters, summary: summary(&self.list(&bound)?) })
    }

    async fn window(
        &self,
        _remote: &Remote,
        spec: &RoundSpec,
        seek: &Seek,
        limit: usize,
    ) -> Result<Vec<Change>, GitError> {
        let list = self.list(spec)?;
        let start = match seek {
            Seek::Position(position) => usize::try_from(*position).unwrap_or(usize::MAX),
            Seek::After(change) => {
                list.iter().position(|listed| listed == change).map_or(list.len(), |at| at + 1)
            }
        };
        Ok(list.into_iter().skip(start).take(limit).collect())
    }

    async fn holds(&self, _remote: &Remote, ends: &[TreeEnd], blob: ObjectId) -> Result<bool, GitError> {
        let world = self.world();
        for end in ends {
            let seen = filtered(Some(world.tree(end.commit)?), Some(end));
            if seen.values().any(|entry| entry.blob == blob) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn contents(
        &self,
        _remote: &Remote,
        wanted: &[BlobWanted],
        budget: u64,
    ) -> Result<Vec<Content>, GitError> {
        let world = self.world();
        let (mut contents, mut read) = (Vec::new(), 0);
        for BlobWanted { blob, limit } in wanted {
            let present = world.blobs.get(blob).filter(|_| !world.unfetched.contains(blob));
            let Some(content) = present else {
                if contents.is_empty() {
                    return Err(GitError::Missing(*blob));
                }
                break;
            };
            let size = content.len() as u64;
            if size > *limit {
                contents.push(Content::TooLarge { size });
                continue;
            }
            read += size;
            if read > budget && !contents.is_empty() {
                break;
            }
            contents.push(Content::Whole(content.clone()));
        }
        Ok(contents)
    }

    async fn mirrors(&self) -> Result<Vec<MirrorFacts>, GitError> {
        Ok(self.mirrors_now())
    }

    async fn mirror(&self, repository: &RepositoryId) -> Result<Option<MirrorFacts>, GitError> {
        Ok(self.world().mirrors.get(repository).cloned())
    }

    fn hosts(&self) -> Hosts {
        self.1.clone()
    }

    fn growth(&self) -> Growth {
        self.2.clone()
    }

    async fn storage(&self) -> Result<Storage, GitError> {
        let world = self.world();
        Ok(Storage {
            mirrors: world.mirrors.len() as u64,
            mirror_bytes: world.mirrors.values().map(|facts| facts.bytes).sum(),
            free_bytes: 1,
            fetches_stopped: world.no_room.clone(),
        })
    }

    async fn sweep(&self, _of: Option<&RepositoryId>) -> Result<(), GitError> {
        self.meet_upkeep(Upkeep::Swept).await
    }

    /// A tenth of the bytes of a mirror are commits and trees.
    async fn compact(&self, repository: &RepositoryId, keep: &Keep) -> Result<MirrorFacts, GitError> {
        self.meet_upkeep(Upkeep::Compacted(repository.clone(), keep.clone())).await?;
        let mut world = self.world();
        let facts = world.mirrors.get_mut(repository).ok_or(GitError::NotFound)?;
        (facts.packs, facts.shallow) = (1, keep.commits.len() as u64);
        if !keep.blobs {
            facts.bytes /= 10;
            facts.evicted_to = Some(facts.bytes);
        }
        Ok(facts.clone())
    }

    async fn scrub(&self, repository: &RepositoryId, share: Share) -> Result<bool, GitError> {
        self.meet_upkeep(Upkeep::Scrubbed(repository.clone(), share)).await?;
        Ok(!self.world().damaged.remove(repository))
    }

    async fn remove_mirror(&self, repository: &RepositoryId) -> Result<(), GitError> {
        self.meet_upkeep(Upkeep::Removed(repository.clone())).await?;
        self.world().mirrors.remove(repository);
        Ok(())
    }
}
