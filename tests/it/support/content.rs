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
    ports::{
        CommitFacts, Content, FetchOrder, FetchReport, GitError, GitSource, RefListing, RefPatterns, Remote,
        Seek, Walk,
    },
    round::{Change, Letter, Plan, RoundSpec},
};
use tidings_entity::id::{ObjectId, RepositoryId};

/// Blobs in memory. Every verb but `content` is refused.
#[derive(Default)]
pub(crate) struct Blobs {
    blobs: Mutex<HashMap<ObjectId, Bytes>>,
    reads: AtomicUsize,
}

impl Blobs {
    /// Holds a blob.
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
    async fn content(&self, _: &Remote, blob: ObjectId, limit: u64) -> Result<Content, GitError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match self.blobs.lock().expect("unpoisoned").get(&blob) {
            None => Err(GitError::Missing(blob)),
            Some(bytes) if bytes.len() as u64 > limit => Ok(Content::TooLarge { size: bytes.len() as u64 }),
            Some(bytes) => Ok(Content::Whole(bytes.clone())),
        }
    }

    async fn list_refs(&self, _: &Remote, _: &RefPatterns) -> Result<RefListing, GitError> {
        Err(GitError::NotFound)
    }

    async fn fetch(&self, _: &Remote, _: &FetchOrder) -> Result<FetchReport, GitError> {
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

    async fn mirrors(&self) -> Result<Vec<RepositoryId>, GitError> {
        Err(GitError::NotFound)
    }

    async fn compact(&self, _: &RepositoryId, _: &[ObjectId]) -> Result<bool, GitError> {
        Err(GitError::NotFound)
    }

    async fn remove_mirror(&self, _: &RepositoryId) -> Result<(), GitError> {
        Err(GitError::NotFound)
    }
}
