//! The limits of previews, and the cached listings of files: a preview reads the trees of a repository that
//! is not watched yet, from a mirror that is removed at once.
//!
//! An app has one cached listing, of one commit, so that another preview with other globs asks the Git host
//! only for refs. The listing is dropped when the app previews another commit, or when other apps need the
//! room.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tidings_actors::ports::Location;
use tidings_entity::id::{AppId, ObjectId};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::http::bodies::problem::{Kind, Problem};

/// Previews at once, over all apps.
const AT_ONCE: usize = 2;
/// The number of apps whose listings are cached.
const KEPT_MAX: usize = 4;
/// The most files of a cached listing.
pub(in crate::http::repositories) const FILES_MAX: usize = 50_000;
/// The most bytes of all paths of a cached listing (8 MiB).
const PATH_BYTES_MAX: usize = 8 << 20;
/// The seconds that a client should wait while other previews run.
const RETRY_AFTER_SECONDS: u64 = 2;

/// The running previews and cached listings of one process.
pub struct Previews {
    all: Arc<Semaphore>,
    apps: Mutex<HashMap<AppId, Arc<tokio::sync::Mutex<()>>>>,
    kept: Mutex<Vec<(AppId, Arc<Listing>)>>,
}

impl Default for Previews {
    fn default() -> Self {
        let all = Arc::new(Semaphore::new(AT_ONCE));
        Self { all, apps: Mutex::default(), kept: Mutex::default() }
    }
}

/// All files of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http::repositories) struct Listing {
    pub(in crate::http::repositories) location: Location,
    pub(in crate::http::repositories) commit: ObjectId,
    /// Path and mode of each, in the order of the paths' bytes.
    pub(in crate::http::repositories) files: Vec<(Vec<u8>, u32)>,
}

/// The turn of an app, until it is dropped.
pub(in crate::http::repositories) struct PreviewTurn {
    _all: OwnedSemaphorePermit,
    _own: OwnedMutexGuard<()>,
}

impl Previews {
    /// Begins a preview of an app, which has one at a time.
    ///
    /// # Errors
    /// 429 while the app has a preview already, or the limit of previews is reached.
    pub(in crate::http::repositories) fn begin(&self, app: &AppId) -> Result<PreviewTurn, Problem> {
        let own = {
            let mut apps = self.apps.lock();
            apps.retain(|_, own| Arc::strong_count(own) > 1);
            Arc::clone(apps.entry(app.clone()).or_default())
        };
        let busy = |what: &str| {
            Problem::new(Kind::TOO_MANY).with_detail(what.to_owned()).retry_after(RETRY_AFTER_SECONDS)
        };
        let own = own.try_lock_owned().map_err(|_| busy("an app has one preview at a time"))?;
        let all = Arc::clone(&self.all).try_acquire_owned();
        let all = all.map_err(|_| busy("two previews of other apps are running"))?;
        Ok(PreviewTurn { _all: all, _own: own })
    }

    /// The files of this commit, if the app's cached listing is of that commit.
    pub(in crate::http::repositories) fn known(
        &self,
        app: &AppId,
        location: &Location,
        commit: ObjectId,
    ) -> Option<Arc<Listing>> {
        let kept = self.kept.lock();
        let is_it = |listing: &Listing| listing.location == *location && listing.commit == commit;
        kept.iter().find(|(of, listing)| of == app && is_it(listing)).map(|(_, listing)| Arc::clone(listing))
    }

    /// Keeps a listing at hand, unless its paths are too long.
    pub(in crate::http::repositories) fn keep(&self, app: &AppId, listing: &Arc<Listing>) {
        let bytes: usize = listing.files.iter().map(|(path, _)| path.len()).sum();
        let mut kept = self.kept.lock();
        kept.retain(|(of, _)| of != app);
        if bytes <= PATH_BYTES_MAX {
            kept.push((app.clone(), Arc::clone(listing)));
        }
        let too_many = kept.len().saturating_sub(KEPT_MAX);
        kept.drain(..too_many);
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn app(number: u128) -> AppId {
        AppId::new(Ulid::from_parts(1, number))
    }

    fn listing(commit: u8, files: usize, length: usize) -> Arc<Listing> {
        let files = vec![(vec![b'a'; length], 0o100_644); files];
        let location = Location::Local("/repository".into());
        Arc::new(Listing { location, commit: ObjectId::new([commit; 20]), files })
    }

    #[test]
    fn an_app_has_one_listing_at_hand_and_so_many_apps_theirs() {
        let previews = Previews::default();
        let (one, other) = (listing(1, 1, 1), listing(2, 1, 1));
        let known = |of, listing: &Listing| previews.known(&app(of), &listing.location, listing.commit);
        previews.keep(&app(1), &one);
        assert_eq!(known(1, &one), Some(one.clone()));
        assert_eq!(known(2, &one), None, "another app proves its own way");
        previews.keep(&app(1), &other);
        assert_eq!((known(1, &one), known(1, &other)), (None, Some(other.clone())));
        (2..=5).for_each(|of| previews.keep(&app(of), &one));
        assert_eq!((known(1, &other), known(5, &one)), (None, Some(one.clone())), "the oldest goes");
        previews.keep(&app(5), &listing(1, 9, 1 << 20));
        assert_eq!(known(5, &one), None, "9 MiB of paths are too many");
    }

    #[test]
    fn an_app_looks_once_at_a_time_and_two_apps_together() {
        let previews = Previews::default();
        let first = previews.begin(&app(1)).unwrap_or_else(|_| panic!("free"));
        assert!(previews.begin(&app(1)).is_err());
        let second = previews.begin(&app(2));
        assert!(second.is_ok() && previews.begin(&app(3)).is_err());
        drop((first, second));
        assert!(previews.begin(&app(1)).is_ok());
    }
}
