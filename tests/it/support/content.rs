//! A Git source that holds blobs and nothing else.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tidings_actors::{
    model::round::{Change, Letter, Plan, RoundSpec, TreeEnd},
    ports::{
        BlobWanted, CommitFacts, Content, FetchOrder, FetchOutcome, GitError, GitSource, Keep, MirrorFacts,
        RefListing, RefPatterns, Remote, Seek, Share, Storage, Walk,
    },
};
use tidings_entity::id::{ObjectId, RepositoryId};

/// Blobs in memory. Every verb but `contents` is refused.
#[derive(Default)]
pub(crate) struct Blobs {
    blobs: Mutex<HashMap<ObjectId, Bytes>>,
    reads: AtomicUsize,
}

impl Blobs {
    /// Adds a blob with its content.
    pub(crate) fn put(&self, blob: ObjectId, content: impl Into<Bytes>) {
        self.blobs.lock().expect("unpoisoned").insert(blob, content.into());
    }

    /// How often content was asked for.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl GitSource for Blobs {
    async fn contents(
        &self,
        _: &Remote,
        wanted: &[BlobWanted],
        budget: u64,
    ) -> Result<Vec<Content>, GitError> {
        let blobs = self.blobs.lock().expect("unpoisoned");
        let (mut contents, mut read) = (Vec::new(), 0);
        for BlobWanted { blob, limit } in wanted {
            self.reads.fetch_add(1, Ordering::SeqCst);
            let Some(bytes) = blobs.get(blob) else {
                if contents.is_empty() {
                    return Err(GitError::Missing(*blob));
                }
                break;
            };
            let size = bytes.len() as u64;
            if size > *limit {
                contents.push(Content::TooLarge { size });
                continue;
            }
            read += size;
            if read > budget && !contents.is_empty() {
                break;
            }
            contents.push(Content::Whole(bytes.clone()));
        }
        Ok(contents)
    }

    async fn list_refs(&self, _: &Remote, _: &RefPatterns) -> Result<RefListing, GitError> {
        Err(GitError::NotFound)
    }

    async fn fetch_each(&self, _: &Remote, _: &FetchOrder) -> Result<FetchOutcome, GitError> {
        Err(GitError::NotFound)
    }

    async fn commit(&self, _: &Remote, _: ObjectId) -> Result<CommitFacts, GitError> {
        Err(GitError::NotFound)
    }

    async fn walk(&self, _: &Remote, _: ObjectId, _: ObjectId, _: u32) -> Result<Walk, GitError> {
        Err(GitError::NotFound)
    }

    async fn plan(&self, _: &Remote, _: &RoundSpec, _: &[Letter]) -> Result<Plan, GitError> {
        Err(GitError::NotFound)
    }

    async fn window(&self, _: &Remote, _: &RoundSpec, _: &Seek, _: usize) -> Result<Vec<Change>, GitError> {
        Err(GitError::NotFound)
    }

    async fn holds(&self, _: &Remote, _: &[TreeEnd], _: ObjectId) -> Result<bool, GitError> {
        Err(GitError::NotFound)
    }

    async fn mirrors(&self) -> Result<Vec<MirrorFacts>, GitError> {
        Err(GitError::NotFound)
    }

    async fn mirror(&self, _: &RepositoryId) -> Result<Option<MirrorFacts>, GitError> {
        Err(GitError::NotFound)
    }

    async fn storage(&self) -> Result<Storage, GitError> {
        Err(GitError::NotFound)
    }

    async fn sweep(&self, _: Option<&RepositoryId>) -> Result<(), GitError> {
        Err(GitError::NotFound)
    }

    async fn compact(&self, _: &RepositoryId, _: &Keep) -> Result<MirrorFacts, GitError> {
        Err(GitError::NotFound)
    }

    async fn scrub(&self, _: &RepositoryId, _: Share) -> Result<bool, GitError> {
        Err(GitError::NotFound)
    }

    async fn remove_mirror(&self, _: &RepositoryId) -> Result<(), GitError> {
        Err(GitError::NotFound)
    }
}
