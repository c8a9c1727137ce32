//! [`GitSource`] over the maps.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
};

use async_trait::async_trait;
use tidings_entity::{
    id::{ObjectId, RepositoryId},
    kind::RoundKind,
};

use super::{HANG, MemoryGit, Poll, Upkeep, list::filtered, summary};
use crate::{
    limits::hosts::Hosts,
    model::round::{Change, Letter, Plan, RoundSpec, TreeEnd},
    ports::{
        BlobWanted, CommitFacts, Content, FetchOrder, FetchOutcome, FetchReport, GitError, GitSource, Keep,
        Location, MirrorFacts, Ref, RefListing, RefPatterns, Remote, Seek, Share, Storage, Walk,
    },
    signals::growth::Growth,
};

#[async_trait]
impl GitSource for MemoryGit {
    async fn list_refs(&self, remote: &Remote, patterns: &RefPatterns) -> Result<RefListing, GitError> {
        let (_poll, takes) = Poll::begin(self, &remote.location);
        for pattern in patterns {
            *self.world().asked.entry(pattern.clone()).or_default() += 1;
        }
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
        // Hosts also answer with refs that nobody asked for, and from another place after a move.
        let mut hasher = DefaultHasher::new();
        (place, refs, &head).hash(&mut hasher);
        Ok(RefListing {
            answer: NonZeroU64::new(hasher.finish()),
            refs: found.map(|(name, commit)| Ref { name: name.clone(), commit: *commit }).collect(),
            has_refs: !refs.is_empty(),
            head: head.clone(),
            moved_to,
            ..RefListing::default()
        })
    }

    async fn list_refs_unless(
        &self,
        remote: &Remote,
        patterns: &RefPatterns,
        last: NonZeroU64,
    ) -> Result<Option<RefListing>, GitError> {
        let listing = self.list_refs(remote, patterns).await?;
        if listing.answer == Some(last) {
            self.world().known_answers += 1;
            return Ok(None);
        }
        Ok(Some(listing))
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
