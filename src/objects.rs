//! Where the bytes of artifacts are kept: the object stores behind the port
//! [`Objects`]. A folder is the default; the settings may name a bucket of an
//! S3-compatible server.
//!
//! **One database.** The replica that leads removes objects that no row knows. Two databases with one store
//! would remove each other's objects. So the store holds a mark with the identity of its database. A start
//! with the store of another database is refused (`check_owner`). A store without a mark gets one before
//! anything in it is written or removed.

mod bucket;
mod folder;

use std::sync::Arc;

use thiserror::Error;
use tidings_actors::ports::{ObjectError, Objects};
use tokio::time::{Duration, timeout};
use tracing::warn;

pub use bucket::Bucket;
pub use folder::Folder;

use crate::{egress::Egress, settings::Settings};

/// How long a start waits for the mark of an object store.
const OWNER_WAIT: Duration = Duration::from_secs(10);

/// The object store belongs to another database.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{place} holds artifacts of another database ({found}; this one is {wanted}): each database needs a \
     place of its own, because files that its rows do not know are removed. Set {setting} to another place; \
     if the other database is gone for good, remove the mark {mark}"
)]
pub struct ForeignObjects {
    /// The store, for people.
    pub place: String,
    /// The identity of the other database.
    pub found: String,
    /// The identity of this database.
    pub wanted: String,
    /// The setting that names the store.
    pub setting: &'static str,
    /// The name of the mark.
    pub mark: String,
}

/// Why the mark of a store was not found to be right.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OwnerFault {
    /// The store belongs to another database.
    #[error(transparent)]
    Foreign(#[from] ForeignObjects),
    /// The mark could not be read or written.
    #[error(transparent)]
    Unknown(#[from] ObjectError),
}

impl From<OwnerFault> for ObjectError {
    fn from(fault: OwnerFault) -> Self {
        match fault {
            OwnerFault::Foreign(foreign) => Self::Unavailable(foreign.to_string()),
            OwnerFault::Unknown(error) => error,
        }
    }
}

/// The object store of the settings, for the database with this identity.
///
/// # Errors
/// [`ForeignObjects`] if the store belongs to another database.
pub async fn open(
    settings: &Settings,
    egress: &Egress,
    database: &str,
) -> Result<Arc<dyn Objects>, ForeignObjects> {
    if let Some(bucket) = Bucket::of(settings, egress.clone(), database) {
        check_owner(bucket.check_owner()).await?;
        return Ok(Arc::new(bucket));
    }
    let folder = Folder::new(settings.artifacts_dir(), settings.git.free_min_bytes).owned_by(database);
    check_owner(folder.check_owner()).await?;
    Ok(Arc::new(folder))
}

/// Refuses the store of another database. A store that does not answer now is checked when it is used.
async fn check_owner(check: impl Future<Output = Result<(), OwnerFault>>) -> Result<(), ForeignObjects> {
    match timeout(OWNER_WAIT, check).await {
        Ok(Ok(())) => {}
        Ok(Err(OwnerFault::Foreign(foreign))) => return Err(foreign),
        Ok(Err(OwnerFault::Unknown(error))) => {
            warn!(%error, "the object store of artifacts does not answer: {error}");
        }
        Err(_late) => warn!("the object store of artifacts does not answer within {OWNER_WAIT:?}"),
    }
    Ok(())
}
