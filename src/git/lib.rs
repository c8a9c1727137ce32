//! The Git engine: asks hosts which commits their refs name, keeps bare shallow mirrors of fetched objects,
//! and reads trees, commits and contents from them.
//!
//! The network side is a small client of protocol version 2 over the guarded HTTP client; libgit2 only
//! indexes packs and reads objects. Mirrors are a cache. Blocking work runs on a bounded number of blocking
//! threads; dropping a future ends its work soon.

mod acquire;
pub mod address;
pub mod branches;
pub mod credential;
pub mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod list;
mod local;
mod mirror;
mod objects;
pub mod settings;
pub mod text_diff;

pub use host::status::status_host;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    num::NonZeroU64,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use foldhash::quality::FixedState;
use parking_lot::Mutex;
use tidings_actors::{
    limits::hosts::Hosts,
    model::round::{Change, Letter, Plan, RoundSpec, TreeEnd},
    ports::{
        BlobWanted, BlobsReport, Clock, CommitFacts, Content, FetchOrder, FetchOutcome, FetchReport,
        GitError, GitSource, Keep, Location, MirrorFacts, Random, RefListing, RefPatterns, Remote, Seek,
        Share, Storage, Walk,
    },
    signals::growth::Growth,
};
use tidings_egress::Egress;
use tidings_entity::id::{ObjectId, RepositoryId};
use tokio::task::coop::consume_budget;
use url::Url;

use self::{
    acquire::{Acquire, blobs},
    address::InvalidAddress,
    credential::scrubbed,
    host::{
        Host,
        capabilities::CapabilityCache,
        client::{Client, Requester},
    },
    list::{Lister, Lists, Made, SMALL},
    mirror::{Mirror, compact, scrub, space::Space, turn::Sharing},
    objects::{
        Objects,
        history::{Chain, chain},
        limits::{Cancel, Limits},
        readers::{Gap, ObjectStore, Readers},
        recent::Recent,
        search,
    },
    settings::GitSettings,
};

/// Fetches of blobs that one list may need before it can be computed: enough for the largest tree.
const FILLINGS_MAX: usize = 32;

/// The Git engine: hosts, mirrors and local repositories.
pub struct Git {
    settings: Arc<GitSettings>,
    mirrors: PathBuf,
    space: Arc<Space>,
    host: Host,
    readers: Readers,
    recent: Recent,
    lists: Arc<Lists>,
    open: Mutex<HashMap<RepositoryId, Arc<Mirror>>>,
    sharing: Option<Arc<Sharing>>,
    growth: Growth,
}

impl Git {
    /// Opens the mirrors below `data_dir`, or in `git.mirrors_dir`, which other processes may share; a
    /// missing directory is created with mode 0700.
    ///
    /// # Errors
    /// [`GitError::Storage`] if the directory cannot be used.
    pub fn new(
        mut settings: GitSettings,
        data_dir: &Path,
        egress: Egress,
        clock: Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, GitError> {
        objects::set_up_library();
        let mirrors = settings.mirrors_dir.clone().unwrap_or_else(|| data_dir.join("mirrors"));
        let shown = mirrors.display().to_string();
        let storage = |error: std::io::Error| GitError::Storage(format!("{shown}: {error}"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&mirrors).map_err(storage)?;
        let mirrors = mirrors.canonicalize().map_err(storage)?;
        let sharing = match settings.mirrors_dir {
            Some(_) => {
                let sharing = Sharing::new(Arc::clone(&clock), random);
                sharing.check(&mirrors).map_err(|error| {
                    GitError::Storage(format!("{shown}: files cannot be locked there: {error}"))
                })?;
                Some(Arc::new(sharing))
            }
            None => {
                // Upkeep sweeps shared mirrors, because other processes may be reading them.
                mirror::sweep_damaged(&mirrors, None).map_err(storage)?;
                None
            }
        };
        if settings.mirror_max_bytes > 0 {
            settings.fetch_max_bytes = settings.fetch_max_bytes.min(settings.mirror_max_bytes);
        }
        let space = Arc::new(Space::new(mirrors.clone(), &settings));
        let settings = Arc::new(settings);
        let client = Client::new(egress, Arc::clone(&settings), clock);
        let (known, hashing) = (CapabilityCache::default(), FixedState::with_seed(random.below(u64::MAX)));
        Ok(Self {
            host: Host { settings: Arc::clone(&settings), client, known, hashing },
            readers: Readers::new(settings.readers as usize),
            recent: Recent::new(settings.content_cache_bytes),
            lists: Arc::default(),
            open: Mutex::default(),
            growth: Growth::default(),
            sharing,
            space,
            mirrors,
            settings,
        })
    }

    fn mirror(&self, repository: &RepositoryId) -> Arc<Mirror> {
        let mut open = self.open.lock();
        let fresh = || {
            let (space, sharing) = (Arc::clone(&self.space), self.sharing.clone());
            Arc::new(Mirror::new(&self.mirrors, repository, space, sharing))
        };
        Arc::clone(open.entry(repository.clone()).or_insert_with(fresh))
    }

    /// The repositories that have a mirror.
    async fn names(&self) -> Result<Vec<RepositoryId>, GitError> {
        let mirrors = self.mirrors.clone();
        self.readers.run(move |_| mirror::all(&mirrors).map_err(|error| failure::of_disk(&error))).await
    }

    fn place(&self, remote: &Remote) -> Result<ObjectStore, GitError> {
        match &remote.location {
            Location::Http(_) => Ok(ObjectStore::Mirror(self.mirror(&remote.repository))),
            Location::Local(path) => self.local(path).map(|path| ObjectStore::Local(path.to_owned())),
        }
    }

    fn local<'p>(&self, path: &'p Path) -> Result<&'p Path, GitError> {
        if self.settings.allow_local {
            return Ok(path);
        }
        Err(GitError::Refused(InvalidAddress::Local.to_string()))
    }

    async fn read<T, R>(&self, remote: &Remote, read: R) -> Result<T, GitError>
    where
        T: Send + 'static,
        R: Fn(&Objects, &Cancel) -> Result<T, GitError> + Send + 'static,
    {
        self.readers.read(&remote.apps, self.place(remote)?, Gap::Loss, read).await
    }

    /// Computes a result from trees, and fetches the blobs that the result turns out to depend on.
    async fn make<T, R>(&self, remote: &Remote, make: R) -> Result<T, GitError>
    where
        T: Send + 'static,
        R: Fn(&Objects, &Cancel) -> Result<Made<T>, GitError> + Send + Sync + 'static,
    {
        let (make, is_local) = (Arc::new(make), matches!(remote.location, Location::Local(_)));
        let mut lacking = None;
        for _ in 0..FILLINGS_MAX {
            let make = Arc::clone(&make);
            let read = move |objects: &Objects, cancel: &Cancel| match make(objects, cancel)? {
                // Nothing can be fetched into a local repository: at most it was repacked just now.
                Made::Lacks(blobs) if is_local => Err(GitError::Missing(blobs[0])),
                made => Ok(made),
            };
            let blobs = match self.read(remote, read).await? {
                Made::Whole(made) => return Ok(made),
                Made::Lacks(blobs) => blobs,
            };
            if let Some(refused) = self.fetch_blobs(remote, &blobs).await?.refused.first() {
                return Err(GitError::Unobtainable(*refused));
            }
            lacking = blobs.first().copied();
        }
        Err(lacking.map_or(GitError::Cancelled, GitError::Missing))
    }

    /// The refs that match; `None`: the host's answer is the one that `last` is the digest of.
    async fn listed(
        &self,
        remote: &Remote,
        patterns: &RefPatterns,
        last: Option<NonZeroU64>,
    ) -> Result<Option<RefListing>, GitError> {
        let listed = match &remote.location {
            Location::Http(url) => {
                let listed = self.host.list(url, Requester::of(remote), patterns, last).await;
                listed.map_err(|error| scrubbed(error, remote.credential.as_ref(), url))?
            }
            Location::Local(path) => {
                let (path, patterns) = (self.local(path)?.to_owned(), patterns.clone());
                Some(self.readers.run_for(&remote.apps, move |_| local::list(&path, &patterns)).await?)
            }
        };
        let pattern_refs_max = Some(self.settings.pattern_refs_max as usize);
        Ok(listed.map(|listing| RefListing { pattern_refs_max, ..listing }))
    }

    fn acquire<'a>(&'a self, remote: &'a Remote, url: &'a Url, mirror: &'a Arc<Mirror>) -> Acquire<'a> {
        let (host, settings, credential) = (&self.host, &self.settings, remote.credential.as_ref());
        Acquire {
            host,
            settings,
            url,
            credential,
            mirror,
            repository: &remote.repository,
            apps: &remote.apps,
            growth: &self.growth,
        }
    }
}

#[async_trait]
impl GitSource for Git {
    async fn list_refs(&self, remote: &Remote, patterns: &RefPatterns) -> Result<RefListing, GitError> {
        let listed = self.listed(remote, patterns, None).await?;
        listed.ok_or_else(|| {
            GitError::Protocol("an answer that was never read was taken for the last one".to_owned())
        })
    }

    async fn list_refs_unless(
        &self,
        remote: &Remote,
        patterns: &RefPatterns,
        last: NonZeroU64,
    ) -> Result<Option<RefListing>, GitError> {
        self.listed(remote, patterns, Some(last)).await
    }

    async fn fetch_each(&self, remote: &Remote, order: &FetchOrder) -> Result<FetchOutcome, GitError> {
        match &remote.location {
            Location::Http(url) => {
                let mirror = self.mirror(&remote.repository);
                let fetched = self.acquire(remote, url, &mirror).fetch_each(order).await;
                fetched.map_err(|error| scrubbed(error, remote.credential.as_ref(), url))
            }
            Location::Local(path) => {
                let path = self.local(path)?.to_owned();
                let (settings, order) = (Arc::clone(&self.settings), order.clone());
                let verify = move |cancel: &Cancel| local::verify(&path, &settings, &order, cancel);
                self.readers.run_for(&remote.apps, verify).await
            }
        }
    }

    async fn fetch(&self, remote: &Remote, order: &FetchOrder) -> Result<FetchReport, GitError> {
        let Location::Http(url) = &remote.location else {
            return self.fetch_each(remote, order).await?.whole();
        };
        let mirror = self.mirror(&remote.repository);
        let fetched = self.acquire(remote, url, &mirror).fetch(order, &BTreeSet::new()).await;
        fetched
            .and_then(FetchOutcome::whole)
            .map_err(|error| scrubbed(error, remote.credential.as_ref(), url))
    }

    fn asked_again_in(&self, repository: &RepositoryId, commit: ObjectId) -> Option<Duration> {
        let open = self.open.lock();
        open.get(repository)?.faults().again_in(commit)
    }

    async fn absent_blobs(&self, remote: &Remote, blobs: &[ObjectId]) -> Result<Vec<ObjectId>, GitError> {
        match self.place(remote)? {
            ObjectStore::Mirror(mirror) => {
                let blobs = blobs.to_vec();
                self.readers.run_for(&remote.apps, move |_| blobs::absent(&mirror, &blobs)).await
            }
            ObjectStore::Local(_) => Ok(Vec::new()),
        }
    }

    async fn fetch_blobs(&self, remote: &Remote, blobs: &[ObjectId]) -> Result<BlobsReport, GitError> {
        match &remote.location {
            Location::Http(url) => {
                let mirror = self.mirror(&remote.repository);
                let fetched = self.acquire(remote, url, &mirror).fetch_blobs(blobs).await;
                fetched.map_err(|error| scrubbed(error, remote.credential.as_ref(), url))
            }
            Location::Local(path) => self.local(path).map(|_| BlobsReport::default()),
        }
    }

    async fn commit(&self, remote: &Remote, commit: ObjectId) -> Result<CommitFacts, GitError> {
        self.read(remote, move |objects, _| objects.commit(commit).map(|commit| commit.facts)).await
    }

    async fn walk(
        &self,
        remote: &Remote,
        head: ObjectId,
        held: ObjectId,
        limit: u32,
    ) -> Result<Walk, GitError> {
        if let Location::Http(url) = &remote.location {
            let mirror = self.mirror(&remote.repository);
            let walked = self.acquire(remote, url, &mirror).walk(head, held, limit).await;
            return walked.map_err(|error| scrubbed(error, remote.credential.as_ref(), url));
        }
        self.read(remote, move |objects, _| {
            Ok(match chain(objects, head, held, limit)? {
                Chain::Done(walk) => walk,
                Chain::Ends { reached: 0, .. } => return Err(GitError::Missing(head)),
                // A shallow clone: the known end of its history.
                Chain::Ends { .. } => Walk::Rewritten,
            })
        })
        .await
    }

    async fn plan(&self, remote: &Remote, spec: &RoundSpec, candidates: &[Letter]) -> Result<Plan, GitError> {
        let (settings, lists) = (Arc::clone(&self.settings), Arc::clone(&self.lists));
        let (spec, candidates) = (spec.clone(), candidates.to_vec());
        self.make(remote, move |objects, cancel| {
            Lister { objects, settings: &settings, lists: &lists, cancel, small: SMALL }
                .plan(&spec, &candidates)
        })
        .await
    }

    async fn window(
        &self,
        remote: &Remote,
        spec: &RoundSpec,
        seek: &Seek,
        limit: usize,
    ) -> Result<Vec<Change>, GitError> {
        let (settings, lists) = (Arc::clone(&self.settings), Arc::clone(&self.lists));
        let (spec, seek) = (spec.clone(), seek.clone());
        self.make(remote, move |objects, cancel| {
            Lister { objects, settings: &settings, lists: &lists, cancel, small: SMALL }
                .window(&spec, &seek, limit)
        })
        .await
    }

    async fn holds(&self, remote: &Remote, ends: &[TreeEnd], blob: ObjectId) -> Result<bool, GitError> {
        let (settings, ends) = (Arc::clone(&self.settings), ends.to_vec());
        let search = move |objects: &Objects, cancel: &Cancel| {
            search::holds(objects, &Limits::new(&settings, cancel.clone()), &ends, blob)
        };
        self.read(remote, search).await
    }

    async fn contents(
        &self,
        remote: &Remote,
        wanted: &[BlobWanted],
        budget: u64,
    ) -> Result<Vec<Content>, GitError> {
        let recent = self.recent.of(&remote.repository);
        if let Some(contents) = recent.all(wanted, budget) {
            // Without a wait for the network, other work of this task must get a turn here.
            consume_budget().await;
            return Ok(contents);
        }
        let wanted = wanted.to_vec();
        let first = wanted.first().map(|wanted| wanted.blob);
        let read = move |objects: &Objects, cancel: &Cancel| objects.blobs(&wanted, budget, &recent, cancel);
        let is_local = matches!(remote.location, Location::Local(_));
        let read = self.readers.read(&remote.apps, self.place(remote)?, Gap::Content, read).await;
        read.map_err(|error| match (error, first) {
            // No host has the object until the repository is repaired.
            (GitError::Broken(_), Some(first)) => GitError::Unobtainable(first),
            (GitError::Corrupt(_), Some(first)) if is_local => GitError::Unobtainable(first),
            (error, _) => error,
        })
    }

    async fn mirrors(&self) -> Result<Vec<MirrorFacts>, GitError> {
        let mut found = Vec::new();
        let names = self.names().await?;
        self.space.only(&names.iter().map(|name| self.mirrors.join(name.as_str())).collect());
        for repository in names {
            found.extend(GitSource::mirror(self, &repository).await?);
        }
        Ok(found)
    }

    async fn mirror(&self, repository: &RepositoryId) -> Result<Option<MirrorFacts>, GitError> {
        let mirror = self.mirror(repository);
        self.readers.run(move |_| mirror.measure()).await
    }

    async fn storage(&self) -> Result<Storage, GitError> {
        let space = Arc::clone(&self.space);
        self.readers.run(move |_| Ok(space.storage())).await
    }

    async fn sweep(&self, of: Option<&RepositoryId>) -> Result<(), GitError> {
        let swept = match of {
            Some(repository) => vec![repository.clone()],
            // The process that works on a repository sweeps its mirror.
            None if self.sharing.is_some() => Vec::new(),
            None => self.names().await?,
        };
        if let Some(sharing) = self.sharing.clone().filter(|_| of.is_none()) {
            // Open handles of this process would block the removal on some file systems.
            self.readers.close_idle();
            let mirrors = self.mirrors.clone();
            let sweep = move |_: &Cancel| mirror::sweep_damaged(&mirrors, Some(&sharing));
            self.readers.run(move |cancel| sweep(cancel).map_err(|error| failure::of_disk(&error))).await?;
        }
        for repository in swept {
            let mirror = self.mirror(&repository);
            // The writer of the mirror swept it before it began.
            let turn = mirror.free_turn().await?;
            let work = move |_: &Cancel| {
                if let Some(turn) = turn {
                    mirror.clean(&turn)?;
                }
                mirror.measure().map(drop)
            };
            self.readers.run(work).await?;
        }
        Ok(())
    }

    async fn compact(&self, repository: &RepositoryId, keep: &Keep) -> Result<MirrorFacts, GitError> {
        let mirror = self.mirror(repository);
        let turn = mirror.turn().await?;
        let (keep, chain_max) = (keep.clone(), self.settings.every_max);
        let work = move |cancel: &Cancel| {
            let compacted = compact::compact(&mirror, &turn, &keep, chain_max, cancel);
            match &compacted {
                Err(GitError::Corrupt(_)) => mirror.mark_damaged(),
                Err(GitError::Missing(_)) => mirror.doubt(),
                _ => {}
            }
            compacted
        };
        self.readers.run(work).await
    }

    async fn scrub(&self, repository: &RepositoryId, share: Share) -> Result<bool, GitError> {
        let mirror = self.mirror(repository);
        let read = Arc::clone(&mirror);
        if self.readers.run(move |cancel| scrub::scrub(&read.packs(), share, cancel)).await? {
            return Ok(true);
        }
        let turn = mirror.turn().await?;
        let work = move |_: &Cancel| {
            mirror.mark_damaged();
            mirror.prepare(&turn)
        };
        self.readers.run(work).await.map(|()| false)
    }

    fn hosts(&self) -> Hosts {
        self.host.client.hosts().clone()
    }

    fn growth(&self) -> Growth {
        self.growth.clone()
    }

    async fn remove_mirror(&self, repository: &RepositoryId) -> Result<(), GitError> {
        let mirror = self.mirror(repository);
        let turn = mirror.turn().await?;
        let work = move |_: &Cancel| mirror.erase(&turn);
        let erased = self.readers.run(work).await;
        self.open.lock().remove(repository);
        erased
    }
}
