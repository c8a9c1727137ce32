//! What a scan and a request hold at their host: the turn of a scan, which lists refs and then may fetch, and
//! the place of a request that is under way.

use std::{fmt, sync::Arc};

use tidings_entity::id::AppId;
use tokio::time::Instant;

use super::{
    Hosts,
    slow_addresses::{AddressNumber, SLOW_AFTER},
};
use crate::limits::shares::Share;

/// The right of one scan to ask its host; ends when dropped.
#[derive(Default)]
pub struct Turn {
    held: Option<TurnAtHost>,
}

struct TurnAtHost {
    hosts: Hosts,
    name: String,
    apps: Arc<[AppId]>,
    is_fetching: bool,
    /// Held while a slow address is listed.
    slow: Option<Share>,
}

impl Turn {
    pub(super) fn at(hosts: Hosts, name: String, apps: Arc<[AppId]>, slow: Option<Share>) -> Self {
        Self { held: Some(TurnAtHost { hosts, name, apps, is_fetching: false, slow }) }
    }

    /// The listing is done and a fetch follows: another scan may list meanwhile, because a fetch
    /// may take long.
    pub fn fetches(&mut self) {
        let Some(held) = self.held.as_mut().filter(|held| !held.is_fetching) else { return };
        held.is_fetching = true;
        held.slow = None;
        held.hosts.with(&held.name, |host| {
            host.listings.end(&held.apps);
            host.fetching += 1;
            host.wake();
        });
    }

    /// Records how the scan ended: whether the host answered. A host that does not answer is asked by one
    /// scan of each app at a time until it answers.
    pub fn ended(&self, is_answered: bool) {
        let Some(held) = &self.held else { return };
        held.hosts.with(&held.name, |host| {
            host.listings.set_silent(!is_answered);
            host.wake();
        });
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Turn").field(&self.held.as_ref().map(|held| &held.name)).finish()
    }
}

impl Drop for TurnAtHost {
    fn drop(&mut self) {
        self.hosts.with(&self.name, |host| {
            if self.is_fetching {
                host.fetching = host.fetching.saturating_sub(1);
            } else {
                host.listings.end(&self.apps);
            }
            host.wake();
        });
    }
}

/// A request is under way while this lives.
pub struct RequestPermit {
    hosts: Hosts,
    name: String,
    /// The address that a request with a short answer asks; `None`: the answer may take long.
    address: Option<AddressNumber>,
    began: Instant,
    _held: (Option<Share>, Share),
}

impl RequestPermit {
    /// A request begins that holds these shares: a permit for long requests, if it needs one, and its place.
    pub(super) fn at(
        hosts: Hosts,
        name: String,
        address: Option<AddressNumber>,
        held: (Option<Share>, Share),
    ) -> Self {
        Self { hosts, name, address, began: Instant::now(), _held: held }
    }
}

impl fmt::Debug for RequestPermit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RequestPermit").field("host", &self.name).finish_non_exhaustive()
    }
}

impl Drop for RequestPermit {
    /// Notes an address whose short answer took long.
    fn drop(&mut self) {
        let now = Instant::now();
        if let Some(address) = self.address.filter(|_| now - self.began >= SLOW_AFTER) {
            self.hosts.with(&self.name, |host| host.slow.note(address, now));
        }
    }
}
