//! The client for other replicas of this server. Their addresses are in the database, where each replica
//! wrote its own: they are not judged, unlike those that apps and Git hosts name. The other rules are the
//! same: the same roots, no redirects, no proxies, no repeated requests.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, redirect, retry};
use url::Url;

use super::{EgressError, tls};
use crate::settings::EgressSettings;

/// Longest wait for a connection: a replica that does not answer is dead, and another takes over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A client for other replicas. Clones share connections.
#[derive(Clone)]
pub struct ToReplicas(Client);

impl ToReplicas {
    /// Builds it.
    ///
    /// # Errors
    /// [`EgressError::Tls`] for a bad `ca_file`.
    #[expect(
        clippy::disallowed_methods,
        reason = "what is sent to replicas is not judged as other requests are"
    )]
    pub fn new(settings: &EgressSettings) -> Result<Self, EgressError> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls::config(tls::roots(settings)?, None)?)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .build();
        client.map(Self).map_err(|error| EgressError::Settings(error.without_url().to_string()))
    }

    /// Begins a request to another replica.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.0.request(method, url)
    }
}
