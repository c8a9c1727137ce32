//! The Git engine: asks hosts which commits their refs name, keeps bare shallow mirrors of what
//! was fetched, and reads trees, commits and contents from them.
//!
//! The network is our own small client of protocol version 2 over the one guarded HTTP client;
//! libgit2 only indexes packs and reads objects. Mirrors are a cache. All blocking work happens on
//! blocking threads, so many at a time; dropping a future ends its work soon.

mod acquire;
pub mod address;
mod capabilities;
mod client;
mod closure;
mod compact;
mod difference;
mod failure;
mod fetch;
mod history;
mod hosts;
mod limits;
mod list;
mod listing;
mod local;
mod mirror;
mod objects;
mod packet;
mod readers;
mod receive;
mod rules;
mod tree;
mod tree_join;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once, PoisonError},
};

use async_trait::async_trait;
use tidings_actors::{
    ports::{
        Clock, CommitFacts, Content, FetchOrder, FetchReport, GitError, GitSource, Location, RefListing,
        RefPatterns, Remote, Seek, Walk,
    },
    round::{Change, Letter, Plan, RoundSpec},
    secret::Secret,
};
use tidings_entity::id::{ObjectId, RepositoryId};
use url::Url;

use self::{
    acquire::Acquire,
    capabilities::{Capabilities, CapabilityCache, Protocol, discover},
    client::Client,
    history::{Chain, chain},
    limits::Cancel,
    list::{Lister, Lists, SMALL},
    mirror::Mirror,
    objects::Objects,
    readers::{Place, Readers},
};
use crate::{egress::Egress, settings::git::GitSettings};

/// Git hosts, mirrors and local repositories behind one door.
pub struct Git {
    settings: Arc<GitSettings>,
    mirrors: PathBuf,
    host: Host,
    readers: Readers,
    lists: Arc<Lists>,
    open: Mutex<HashMap<RepositoryId, Arc<Mirror>>>,
}

/// Asking hosts, and what is known of them.
struct Host {
    settings: Arc<GitSettings>,
    client: Client,
    known: CapabilityCache,
}

impl Git {
    /// Opens the mirrors below `data_dir` (made with mode 0700 where it is lacking).
    ///
    /// # Errors
    /// [`GitError::Storage`] if the directory cannot be used.
    pub fn new(
        settings: GitSettings,
        data_dir: &Path,
        egress: Egress,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, GitError> {
        set_up_library();
        let mirrors = data_dir.join("mirrors");
        let storage = |error: std::io::Error| failure::of_disk(&error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&mirrors).map_err(storage)?;
        let mirrors = mirrors.canonicalize().map_err(storage)?;
        mirror::sweep_damaged(&mirrors).map_err(storage)?;
        let settings = Arc::new(settings);
        let client = Client::new(egress, Arc::clone(&settings), clock);
        Ok(Self {
            host: Host { settings: Arc::clone(&settings), client, known: CapabilityCache::default() },
            readers: Readers::new(settings.readers as usize),
            lists: Arc::default(),
            open: Mutex::default(),
            mirrors,
            settings,
        })
    }

    /// Whether compacting a repository's mirror would gain something: it has more than 50 packs, or
    /// more than 50 commits without parents.
    ///
    /// # Errors
    /// [`GitError::Cancelled`] when the process is stopping.
    pub async fn is_worth_compacting(&self, repository: &RepositoryId) -> Result<bool, GitError> {
        let mirror = self.mirror(repository);
        self.readers.run(move |_| Ok(compact::is_worth_it(&mirror))).await
    }

    /// Compacts a repository's mirror down to what `pins` (commits) need. Waits for a fetch that is
    /// under way; readers go on meanwhile.
    ///
    /// # Errors
    /// [`GitError::Missing`] if a pinned commit lacks something: nothing has changed then.
    /// [`GitError::Corrupt`] and [`GitError::Storage`].
    pub async fn compact(&self, repository: &RepositoryId, pins: &[ObjectId]) -> Result<(), GitError> {
        let mirror = self.mirror(repository);
        let turn = mirror.turn().await;
        let (pins, name) = (pins.to_vec(), repository.clone());
        let work = move |_: &Cancel| {
            let _turn = turn;
            let (before, after) = compact::compact(&mirror, &pins)?;
            tracing::info!(repository.id = %name, before, after, "compacted {before} bytes to {after}");
            Ok(())
        };
        self.readers.run(work).await
    }

    /// Removes a repository's mirror, because nobody watches it any more.
    ///
    /// # Errors
    /// [`GitError::Storage`].
    pub async fn forget(&self, repository: &RepositoryId) -> Result<(), GitError> {
        let mirror = self.mirror(repository);
        let turn = mirror.turn().await;
        let erased = self
            .readers
            .run(move |_| {
                let _turn = turn;
                mirror.erase()
            })
            .await;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(repository);
        erased
    }

    fn mirror(&self, repository: &RepositoryId) -> Arc<Mirror> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Mirror::new(&self.mirrors, repository));
        Arc::clone(open.entry(repository.clone()).or_insert_with(fresh))
    }

    fn place(&self, remote: &Remote) -> Result<Place, GitError> {
        match &remote.location {
            Location::Http(_) => Ok(Place::Mirror(self.mirror(&remote.repository))),
            Location::Local(path) => self.local(path).map(|path| Place::Local(path.to_owned())),
        }
    }

    fn local<'p>(&self, path: &'p Path) -> Result<&'p Path, GitError> {
        if self.settings.allow_local { Ok(path) } else { Err(GitError::Refused) }
    }

    async fn read<T, R>(&self, remote: &Remote, read: R) -> Result<T, GitError>
    where
        T: Send + 'static,
        R: Fn(&Objects, &Cancel) -> Result<T, GitError> + Send + 'static,
    {
        self.readers.read(self.place(remote)?, read).await
    }

    fn acquire<'a>(&'a self, remote: &'a Remote, url: &'a Url, mirror: &'a Arc<Mirror>) -> Acquire<'a> {
        let (host, settings, credential) = (&self.host, &self.settings, remote.credential.as_ref());
        Acquire { host, settings, url, credential, mirror }
    }
}

impl Host {
    async fn list(
        &self,
        url: &Url,
        credential: Option<&Secret>,
        patterns: &RefPatterns,
    ) -> Result<RefListing, GitError> {
        let capabilities = match self.known.get(url) {
            Some(known @ Capabilities { protocol: Protocol::Two { .. }, .. }) => known,
            known => {
                let base = known.map_or_else(|| url.clone(), |known| known.base);
                let found = discover(&self.client, &self.settings, &base, credential, patterns).await?;
                self.known.put(url, &found.capabilities);
                if let Some(listing) = found.listing {
                    return Ok(listing);
                }
                found.capabilities
            }
        };
        let Protocol::Two { unborn, object_format } = capabilities.protocol else {
            return Err(GitError::Protocol("the host changed its protocol".to_owned()));
        };
        let features = (unborn, object_format);
        let listed =
            listing::list(&self.client, &self.settings, &capabilities, features, credential, patterns).await;
        listed.inspect_err(|error| self.doubt(url, error))
    }

    async fn capabilities(&self, url: &Url, credential: Option<&Secret>) -> Result<Capabilities, GitError> {
        if let Some(known) = self.known.get(url) {
            return Ok(known);
        }
        let found = discover(&self.client, &self.settings, url, credential, &RefPatterns::new()).await?;
        self.known.put(url, &found.capabilities);
        Ok(found.capabilities)
    }

    /// Forgets what is known of a host whose answers no longer fit it.
    fn doubt(&self, url: &Url, error: &GitError) {
        if matches!(
            error,
            GitError::Protocol(_) | GitError::Redirected | GitError::NotFound | GitError::Status(_)
        ) {
            self.known.forget(url);
        }
    }
}

#[async_trait]
impl GitSource for Git {
    async fn list_refs(&self, remote: &Remote, patterns: &RefPatterns) -> Result<RefListing, GitError> {
        match &remote.location {
            Location::Http(url) => self.host.list(url, remote.credential.as_ref(), patterns).await,
            Location::Local(path) => {
                let (path, patterns) = (self.local(path)?.to_owned(), patterns.clone());
                self.readers.run(move |_| local::list(&path, &patterns)).await
            }
        }
    }

    async fn fetch(&self, remote: &Remote, order: &FetchOrder) -> Result<FetchReport, GitError> {
        match &remote.location {
            Location::Http(url) => {
                let mirror = self.mirror(&remote.repository);
                self.acquire(remote, url, &mirror).fetch(order).await
            }
            Location::Local(path) => {
                let path = self.local(path)?.to_owned();
                let (settings, order) = (Arc::clone(&self.settings), order.clone());
                self.readers.run(move |cancel| local::verify(&path, &settings, &order, cancel)).await
            }
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
            return self.acquire(remote, url, &mirror).walk(head, held, limit).await;
        }
        self.read(remote, move |objects, _| {
            Ok(match chain(objects, head, held, limit)? {
                Chain::Done(walk) => walk,
                Chain::Ends { reached: 0 } => return Err(GitError::Missing(head)),
                // A shallow clone: the known end of its history.
                Chain::Ends { .. } => Walk::Rewritten,
            })
        })
        .await
    }

    async fn plan(&self, remote: &Remote, spec: &RoundSpec, candidates: &[Letter]) -> Result<Plan, GitError> {
        let (settings, lists) = (Arc::clone(&self.settings), Arc::clone(&self.lists));
        let (spec, candidates) = (spec.clone(), candidates.to_vec());
        self.read(remote, move |objects, cancel| {
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
        self.read(remote, move |objects, cancel| {
            Lister { objects, settings: &settings, lists: &lists, cancel, small: SMALL }
                .window(&spec, &seek, limit)
        })
        .await
    }

    async fn content(&self, remote: &Remote, blob: ObjectId, limit: u64) -> Result<Content, GitError> {
        self.read(remote, move |objects, _| objects.blob(blob, limit)).await
    }

    async fn mirrors(&self) -> Result<Vec<RepositoryId>, GitError> {
        let mirrors = self.mirrors.clone();
        self.readers.run(move |_| mirror::all(&mirrors).map_err(|error| failure::of_disk(&error))).await
    }

    async fn compact(&self, repository: &RepositoryId, pins: &[ObjectId]) -> Result<bool, GitError> {
        let grown = self.is_worth_compacting(repository).await?;
        if grown {
            Self::compact(self, repository, pins).await?;
        }
        Ok(grown)
    }

    async fn remove_mirror(&self, repository: &RepositoryId) -> Result<(), GitError> {
        self.forget(repository).await
    }
}

/// What libgit2 needs to be told once. Objects were hashed when their pack was indexed; hashing
/// them at every read again would halve the speed. Its object cache is off because it has no
/// bound per repository. It is given no configuration to read: objects are opened by directory.
fn set_up_library() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        git2::opts::strict_hash_verification(false);
        git2::opts::enable_caching(false);
    });
}
