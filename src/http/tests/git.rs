//! A Git host whose behaviour is named by the path of the repository.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tidings_actors::{
    limits::hosts::Hosts,
    model::round::{Change, Entry, Letter, Plan, RoundSpec, TreeEnd},
    ports::*,
};
use tidings_entity::{id::*, kind::Operation};
use tokio::sync::Notify;
use ulid::Ulid;

/// A Git host that does what the path of a repository says.
#[derive(Default)]
pub(crate) struct GitDouble {
    /// It panicked once, and does not again.
    panicked: AtomicBool,
    /// Somebody asked for the refs of a repository called `slow`.
    pub(crate) asked: Notify,
    /// The one who asked is answered.
    pub(crate) answers: Notify,
}

/// The head of every repository of [`GitDouble`].
pub(crate) const HEAD: [u8; 20] = [7; 20];

#[async_trait]
impl GitSource for GitDouble {
    async fn list_refs(&self, remote: &Remote, patterns: &RefPatterns) -> Result<RefListing, GitError> {
        let Location::Http(url) = &remote.location else { return Err(GitError::NotFound) };
        let good = remote.credential.as_ref().is_some_and(|secret| secret.expose() == "good");
        match url.path().rsplit('/').next().unwrap_or("") {
            "missing" => return Err(GitError::NotFound),
            "panics" if !self.panicked.swap(true, Ordering::Relaxed) => panic!("planted panic"),
            "slow" => {
                self.asked.notify_one();
                self.answers.notified().await;
            }
            "private" if !good => return Err(GitError::Unauthorized),
            "down" => return Err(GitError::Unreachable("planted: connection refused".into())),
            "busy" => return Err(GitError::RateLimited { retry_after: Some(Duration::from_secs(77)) }),
            "moved" => return Err(GitError::Redirected),
            "html" => return Err(GitError::Protocol("planted".into())),
            "forbidden" => {
                return Err(GitError::Refused(
                    crate::egress::refused::Refused::Name("github.com".into()).to_string(),
                ));
            }
            "empty" => {
                let head = Some("refs/heads/main".to_owned());
                return Ok(RefListing { refs: Vec::new(), head, has_refs: false, ..RefListing::default() });
            }
            _ => {}
        }
        let main = "refs/heads/main".to_owned();
        let asked = patterns.is_empty() || patterns.iter().any(|pattern| main.starts_with(pattern));
        let refs =
            if asked { vec![Ref { name: main.clone(), commit: ObjectId::new(HEAD) }] } else { Vec::new() };
        Ok(RefListing { refs, head: Some(main), has_refs: true, ..RefListing::default() })
    }

    /// One host asked for patience.
    fn hosts(&self) -> Hosts {
        let hosts = Hosts::default();
        let url = url::Url::parse("https://busy.example/o/r").expect("an address");
        hosts.grant_patience(&url, None, Some(Duration::from_secs(3_600)));
        hosts
    }

    async fn fetch_each(&self, _: &Remote, _: &FetchOrder) -> Result<FetchOutcome, GitError> {
        unreachable!("the front door fetches nothing")
    }

    async fn commit(&self, _: &Remote, _: ObjectId) -> Result<CommitFacts, GitError> {
        unreachable!("the front door reads no commit")
    }

    async fn walk(&self, _: &Remote, _: ObjectId, _: ObjectId, _: u32) -> Result<Walk, GitError> {
        unreachable!("the front door walks nowhere")
    }

    /// A list has one change more than there are letters.
    async fn plan(&self, remote: &Remote, _: &RoundSpec, letters: &[Letter]) -> Result<Plan, GitError> {
        match &remote.location {
            Location::Http(url) if url.path().ends_with("broken") => {
                Err(GitError::Missing(ObjectId::new(HEAD)))
            }
            _ => Ok(Plan {
                letters: letters.to_vec(),
                summary: super::histories::summary(letters.len() as u64 + 1),
            }),
        }
    }

    /// Five files; the fourth has a name that is no text.
    async fn window(
        &self,
        _: &Remote,
        spec: &RoundSpec,
        seek: &Seek,
        limit: usize,
    ) -> Result<Vec<Change>, GitError> {
        assert!(spec.held.is_none() && spec.target.is_some(), "the front door lists whole trees");
        let after = if let Seek::After(last) = seek { last.path.as_slice() } else { b"" };
        let paths: [&[u8]; 5] = [b"a", b"b/a", b"c", b"d\xff", b"e"];
        let change = |path: &[u8]| Change {
            operation: Operation::Create,
            path: path.to_vec(),
            old: None,
            new: Some(Entry { mode: 0o100_644, blob: ObjectId::new([path[0]; 20]) }),
            replay_of: None,
        };
        Ok(paths.into_iter().filter(|path| *path > after).take(limit).map(change).collect())
    }

    async fn mirrors(&self) -> Result<Vec<MirrorFacts>, GitError> {
        let facts = |number: u64| MirrorFacts {
            repository: RepositoryId::new(Ulid::from(u128::from(number))),
            bytes: 10 * number,
            packs: 1,
            shallow: 1,
            evicted_to: None,
        };
        Ok(vec![facts(1), facts(2)])
    }

    async fn mirror(&self, _: &RepositoryId) -> Result<Option<MirrorFacts>, GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    async fn storage(&self) -> Result<Storage, GitError> {
        Ok(Storage { mirrors: 2, mirror_bytes: 30, free_bytes: 1_000, fetches_stopped: None })
    }

    async fn sweep(&self, _: Option<&RepositoryId>) -> Result<(), GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    async fn compact(&self, _: &RepositoryId, _: &Keep) -> Result<MirrorFacts, GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    async fn scrub(&self, _: &RepositoryId, _: Share) -> Result<bool, GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    async fn remove_mirror(&self, _: &RepositoryId) -> Result<(), GitError> {
        unreachable!("the front door keeps no mirrors")
    }

    /// Trees have the blobs whose first byte is not 0.
    async fn holds(&self, _: &Remote, ends: &[TreeEnd], blob: ObjectId) -> Result<bool, GitError> {
        match blob.as_bytes()[1] {
            0xbb => Err(GitError::TooLarge("planted".into())),
            _ => Ok(!ends.is_empty() && blob.as_bytes()[0] != 0),
        }
    }

    async fn fetch_blobs(&self, _: &Remote, blobs: &[ObjectId]) -> Result<BlobsReport, GitError> {
        match blobs[0].as_bytes()[0] {
            0x02 => Ok(BlobsReport { refused: blobs.to_vec(), ..BlobsReport::default() }),
            0x03 => Err(GitError::RateLimited { retry_after: Some(Duration::from_secs(77)) }),
            _ => Err(GitError::Unreachable("planted: connection refused".into())),
        }
    }

    /// The first byte of a blob says what becomes of it, the second what it has.
    async fn contents(&self, _: &Remote, wanted: &[BlobWanted], _: u64) -> Result<Vec<Content>, GitError> {
        let BlobWanted { blob, limit } = wanted[0];
        let size = match blob.as_bytes()[0] {
            0x01 => 5,
            0x02..=0x04 => return Err(GitError::Missing(blob)),
            0x05 => 2 << 20,
            0x06 => (256 << 20) + 1,
            0x07 => return Err(GitError::Storage("planted: /var/lib".into())),
            _ => 0,
        };
        if size > limit {
            return Ok(vec![Content::TooLarge { size }]);
        }
        let size = usize::try_from(size).expect("small");
        Ok(vec![Content::Whole(vec![b'x'; size].into())])
    }
}
