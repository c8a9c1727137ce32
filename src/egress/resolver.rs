//! Resolves names to addresses and judges every address. Connections use the judged answer: the client does
//! not resolve again, so a name cannot change its addresses in between.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::{refused::Refused, rules::Rules};

/// Lookups that may wait for the system resolver at the same time. Each holds a blocking thread until the
/// system gives up, so many slow names must not take all of them.
const LOOKUPS_MAX: usize = 128;

/// Asks for the addresses of a name.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The system's resolver, on blocking threads.
#[must_use]
pub fn system_lookup() -> Lookup {
    let permits = Arc::new(Semaphore::new(LOOKUPS_MAX));
    Arc::new(move |name| {
        let permits = Arc::clone(&permits);
        Box::pin(async move {
            let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
            // The permit is held by the thread: a caller that gives up does not free it early.
            let lookup = tokio::task::spawn_blocking(move || {
                let answer = (name.as_str(), 0).to_socket_addrs();
                drop(permit);
                answer.map(|addresses| addresses.map(|address| address.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        })
    })
}

/// A name of which no address is known; the text says why.
#[derive(Debug, thiserror::Error)]
#[error("the name of the host was not resolved: {0}")]
pub struct Unresolved(String);

/// A resolver that refuses an answer as a whole when one address in it is refused.
#[derive(Clone)]
pub struct Guard {
    /// The rules that each address must pass.
    pub rules: Arc<Rules>,
    /// The port that all requests of this client go to; `None`: a port that no rule names.
    pub port: Option<u16>,
    /// Resolves names to addresses.
    pub lookup: Lookup,
}

impl Guard {
    /// The addresses of a name, at least one; the rules permit all of them.
    ///
    /// # Errors
    /// [`Refused`], or the error of the lookup.
    pub async fn addresses(
        &self,
        name: &str,
    ) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found = (self.lookup)(name.to_owned()).await;
        let addresses = found.map_err(|error| Unresolved(error.to_string()))?;
        if addresses.is_empty() {
            return Err(Box::new(Unresolved("it has no address".to_owned())));
        }
        if addresses.iter().any(|address| self.rules.is_own(*address, self.port)) {
            return Err(Box::new(Refused::Own(name.to_owned())));
        }
        let named = self.rules.names(name, self.port);
        if !named && !addresses.iter().all(|address| self.rules.admit(*address, self.port)) {
            return Err(Box::new(self.rules.refused_name(name, self.port)));
        }
        Ok(addresses)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = guard.addresses(name.as_str()).await?;
            // Port 0 is replaced by the port of the request.
            let dialled: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(dialled)
        })
    }
}
