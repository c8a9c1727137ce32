//! Requests to Git hosts, and the knowledge about their capabilities.

pub(crate) mod capabilities;
pub(crate) mod client;
pub(crate) mod fetch;
pub(crate) mod indexing;
pub(crate) mod listing;
pub(crate) mod pack_check;
pub(crate) mod packet;
pub(crate) mod receive;
pub(crate) mod status;

use std::{hash::BuildHasher, num::NonZeroU64, sync::Arc};

use foldhash::quality::FixedState;
use tidings_actors::ports::{GitError, RefListing, RefPatterns};
use url::Url;

use crate::host::{
    capabilities::{Capabilities, CapabilityCache, Protocol, discover, moved_to},
    client::{Client, Requester},
    listing::list,
};
use crate::settings::GitSettings;

/// Sends requests to hosts, and remembers their capabilities.
pub(super) struct Host {
    pub(super) settings: Arc<GitSettings>,
    pub(super) client: Client,
    pub(super) known: CapabilityCache,
    /// Hashes answers. Its seed is random: nobody who names the refs of a repository knows two answers of one
    /// digest.
    pub(super) hashing: FixedState,
}

impl Host {
    /// The refs that match; if the repository was renamed meanwhile, the host is asked a second time. `None`:
    /// the answer is the one that `last` is the digest of.
    pub(super) async fn list(
        &self,
        url: &Url,
        requester: Requester<'_>,
        patterns: &RefPatterns,
        last: Option<NonZeroU64>,
    ) -> Result<Option<RefListing>, GitError> {
        let was_known = self.known.knows(url);
        match self.list_once(url, requester, patterns, last).await {
            // The repository was renamed since the capabilities were read; they are forgotten now.
            Err(GitError::Moved(_)) if was_known => self.list_once(url, requester, patterns, last).await,
            other => other,
        }
    }

    async fn list_once(
        &self,
        url: &Url,
        requester: Requester<'_>,
        patterns: &RefPatterns,
        last: Option<NonZeroU64>,
    ) -> Result<Option<RefListing>, GitError> {
        let capabilities = match self.known.get(url) {
            Some(known @ Capabilities { protocol: Protocol::Two { .. }, .. }) => known,
            known => {
                let base = known.map_or_else(|| url.clone(), |known| known.base);
                // In a box: an unchanged poll never asks this, and moves a smaller future.
                let asked = Box::pin(discover(&self.client, &self.settings, &base, requester, patterns));
                let found = asked.await.inspect_err(|error| self.doubt(url, error))?;
                self.known.put(url, &found.capabilities);
                if let Some(listing) = found.listing {
                    let moved_to = moved_to(url, &found.capabilities.base);
                    return Ok(Some(RefListing { moved_to, ..listing }));
                }
                found.capabilities
            }
        };
        let listed = list(self, &capabilities, requester, patterns, last).await;
        let listing = listed.inspect_err(|error| self.doubt(url, error))?;
        Ok(listing.map(|listing| RefListing { moved_to: moved_to(url, &capabilities.base), ..listing }))
    }

    /// A digest of an answer that came from this form of a repository's address: another form may say that
    /// the repository moved. Only this process computes the same digest again.
    pub(super) fn digest(&self, base: &Url, answer: &[u8]) -> Option<NonZeroU64> {
        NonZeroU64::new(self.hashing.hash_one((base.as_str(), answer)))
    }

    /// The capabilities of the host; asks for them if they are not known.
    pub(super) async fn capabilities(
        &self,
        url: &Url,
        requester: Requester<'_>,
    ) -> Result<Capabilities, GitError> {
        if let Some(known) = self.known.get(url) {
            return Ok(known);
        }
        let found = discover(&self.client, &self.settings, url, requester, &RefPatterns::new()).await?;
        self.known.put(url, &found.capabilities);
        Ok(found.capabilities)
    }

    /// Forgets the capabilities of a host whose answers do not fit them.
    pub(super) fn doubt(&self, url: &Url, error: &GitError) {
        if matches!(
            error,
            GitError::Protocol(_)
                | GitError::Moved(_)
                | GitError::Redirected
                | GitError::NotFound
                | GitError::Status(_)
        ) {
            self.known.forget(url);
        }
    }
}
