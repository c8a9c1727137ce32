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

use std::sync::Arc;

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
}

impl Host {
    /// The refs that match; if the repository was renamed meanwhile, the host is asked a second time.
    pub(super) async fn list(
        &self,
        url: &Url,
        requester: Requester<'_>,
        patterns: &RefPatterns,
    ) -> Result<RefListing, GitError> {
        let was_known = self.known.knows(url);
        match self.list_once(url, requester, patterns).await {
            // The repository was renamed since the capabilities were read; they are forgotten now.
            Err(GitError::Moved(_)) if was_known => self.list_once(url, requester, patterns).await,
            other => other,
        }
    }

    async fn list_once(
        &self,
        url: &Url,
        requester: Requester<'_>,
        patterns: &RefPatterns,
    ) -> Result<RefListing, GitError> {
        let capabilities = match self.known.get(url) {
            Some(known @ Capabilities { protocol: Protocol::Two { .. }, .. }) => known,
            known => {
                let base = known.map_or_else(|| url.clone(), |known| known.base);
                // In a box: an unchanged poll never asks this, and moves a smaller future.
                let asked = Box::pin(discover(&self.client, &self.settings, &base, requester, patterns));
                let found = asked.await.inspect_err(|error| self.doubt(url, error))?;
                self.known.put(url, &found.capabilities);
                if let Some(listing) = found.listing {
                    return Ok(RefListing { moved_to: moved_to(url, &found.capabilities.base), ..listing });
                }
                found.capabilities
            }
        };
        let Protocol::Two { unborn, object_format, .. } = capabilities.protocol else {
            return Err(GitError::Protocol("the host changed its protocol".to_owned()));
        };
        let features = (unborn, object_format);
        let listed = list(&self.client, &self.settings, &capabilities, features, requester, patterns).await;
        let listing = listed.inspect_err(|error| self.doubt(url, error))?;
        Ok(RefListing { moved_to: moved_to(url, &capabilities.base), ..listing })
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
