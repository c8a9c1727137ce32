//! Objects in a bucket of an S3-compatible server, by the guarded client. Requests are signed by their query
//! (SigV4, `rusty-s3`): the secret itself never travels, and no address of a request is logged or shown.
//!
//! An object has the key `<prefix>objects/<id>`. An upload of known length is streamed with one `PUT`, or in
//! parts if it is larger than `artifacts.s3_part_bytes`. Its last bytes are held back until the end, so that
//! no object becomes visible before. A crash leaves parts that nobody sees; they are dropped when they are a
//! day old. Calls that can be repeated are repeated a few times; an upload is repeated by its client.

mod calls;
mod reading;
mod upload;
mod uploads;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rusty_s3::{Credentials, S3Action, UrlStyle, actions::ListObjectsV2};
use tidings_actors::{
    ports::{ObjectBody, ObjectError, ObjectWriter, Objects},
    time::Timestamp,
};
use tidings_entity::id::ArtifactId;

use self::{calls::SIGNED_FOR, upload::Upload};
use super::{ForeignObjects, OwnerFault};
use crate::{egress::Egress, settings::Settings};

/// The folder of objects below the prefix.
const OBJECTS: &str = "objects/";
/// The key of the mark below the prefix.
const MARK: &str = "database";
/// Most bytes of the mark.
const MARK_MAX: usize = 1_024;
/// Most pages that one list reads to find an object.
const PAGES_MAX: usize = 100;

/// Objects in a bucket. Clones share it.
#[derive(Clone)]
pub struct Bucket(Arc<Inner>);

struct Inner {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    prefix: String,
    part_bytes: u64,
    egress: Egress,
    /// The identity of the database.
    database: String,
    is_owned: AtomicBool,
}

impl Bucket {
    /// The bucket of the settings; `None`: they name none. `database`: the identity of the database.
    #[must_use]
    pub fn of(settings: &Settings, egress: Egress, database: &str) -> Option<Self> {
        let settings = &settings.artifacts;
        let endpoint = settings.s3_endpoint.clone()?;
        let style = if settings.s3_path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let name = settings.s3_bucket.clone()?;
        // The settings were validated: an endpoint that makes no bucket was refused.
        let bucket = rusty_s3::Bucket::new(endpoint, style, name, settings.s3_region.clone()).ok()?;
        let secret = settings.s3_secret_key.as_ref()?;
        let credentials = Credentials::new(settings.s3_access_key.clone()?, secret.expose());
        Some(Self(Arc::new(Inner {
            bucket,
            credentials,
            prefix: settings.s3_prefix.clone(),
            part_bytes: settings.s3_part_bytes,
            egress,
            database: database.to_owned(),
            is_owned: AtomicBool::new(false),
        })))
    }

    /// The bucket, for people.
    #[must_use]
    pub(crate) fn place(&self) -> String {
        let Inner { bucket, prefix, .. } = &*self.0;
        let host = bucket.base_url().host_str().unwrap_or_default();
        format!("the bucket {} at {host} (prefix {prefix:?})", bucket.name())
    }

    fn key(&self, id: &ArtifactId) -> String {
        format!("{}{OBJECTS}{id}", self.0.prefix)
    }

    fn id(&self, key: &str) -> Option<ArtifactId> {
        key.strip_prefix(&self.0.prefix)?.strip_prefix(OBJECTS)?.parse().ok()
    }

    /// Checks that the objects belong to this database; marks them if they belong to none.
    ///
    /// # Errors
    /// [`OwnerFault`]
    pub(super) async fn check_owner(&self) -> Result<(), OwnerFault> {
        if self.0.is_owned.load(Ordering::Acquire) {
            return Ok(());
        }
        let found = match self.owner().await? {
            Some(found) => found,
            None => {
                self.put_mark().await?;
                // Another database may have written its mark at the same moment: the last one counts.
                self.owner().await?.unwrap_or_default()
            }
        };
        let wanted = &self.0.database;
        if found != *wanted {
            return Err(OwnerFault::Foreign(ForeignObjects {
                place: self.place(),
                found,
                wanted: wanted.clone(),
                setting: "artifacts.s3_prefix",
                mark: format!("{}{MARK} of the bucket", self.0.prefix),
            }));
        }
        self.0.is_owned.store(true, Ordering::Release);
        Ok(())
    }

    /// The identity in the mark; `None`: there is no mark. Reads only.
    ///
    /// # Errors
    /// [`ObjectError::Unavailable`]
    pub(crate) async fn owner(&self) -> Result<Option<String>, ObjectError> {
        let Inner { bucket, credentials, prefix, .. } = &*self.0;
        let key = format!("{prefix}{MARK}");
        let signed = || bucket.get_object(Some(credentials), &key).sign(SIGNED_FOR);
        match self.call("GetObject", reqwest::Method::GET, signed, None).await {
            Ok(answer) => {
                let text = self.text("GetObject", answer, MARK_MAX).await?;
                Ok(Some(text.lines().next().unwrap_or_default().trim().to_owned()))
            }
            Err(ObjectError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn put_mark(&self) -> Result<(), ObjectError> {
        let Inner { bucket, credentials, prefix, database, .. } = &*self.0;
        let key = format!("{prefix}{MARK}");
        let text = format!(
            "{database}\nThe objects of this prefix belong to the Tidings database of this identity.\n"
        );
        let signed = || bucket.put_object(Some(credentials), &key).sign(SIGNED_FOR);
        self.call("PutObject", reqwest::Method::PUT, signed, Some(text.into())).await.map(drop)
    }

    /// Whether the bucket answers and may be listed; for `tidings doctor`, which changes nothing.
    ///
    /// # Errors
    /// [`ObjectError::Unavailable`]
    pub(crate) async fn look(&self) -> Result<Option<String>, ObjectError> {
        self.page(&format!("{}{OBJECTS}", self.0.prefix), 1).await?;
        self.owner().await
    }

    /// The keys of objects after this key.
    async fn page(&self, after: &str, limit: usize) -> Result<Vec<String>, ObjectError> {
        let Inner { bucket, credentials, prefix, .. } = &*self.0;
        let signed = || {
            let mut list = bucket.list_objects_v2(Some(credentials));
            list.with_prefix(format!("{prefix}{OBJECTS}"));
            list.with_start_after(after);
            list.with_max_keys(limit);
            list.sign(SIGNED_FOR)
        };
        let answer = self.call("ListObjectsV2", reqwest::Method::GET, signed, None).await?;
        let text = self.text("ListObjectsV2", answer, calls::XML_MAX).await?;
        let listed = ListObjectsV2::parse_response(&text);
        let listed = listed.map_err(|_| self.unreadable("ListObjectsV2"))?;
        Ok(listed.contents.into_iter().map(|object| object.key).collect())
    }
}

#[async_trait]
impl Objects for Bucket {
    async fn begin(&self, id: &ArtifactId, bytes: u64) -> Result<Box<dyn ObjectWriter>, ObjectError> {
        self.check_owner().await?;
        Ok(Box::new(Upload::begin(self.clone(), self.key(id), bytes).await?))
    }

    async fn open(&self, id: &ArtifactId, range: Range<u64>) -> Result<ObjectBody, ObjectError> {
        let key = self.key(id);
        if range.is_empty() {
            self.head(&key).await?;
            return Ok(stream::empty::<Result<Bytes, ObjectError>>().boxed());
        }
        reading::open(self.clone(), key, range).await
    }

    async fn remove(&self, id: &ArtifactId) -> Result<(), ObjectError> {
        let Inner { bucket, credentials, .. } = &*self.0;
        let key = self.key(id);
        let signed = || bucket.delete_object(Some(credentials), &key).sign(SIGNED_FOR);
        match self.call("DeleteObject", reqwest::Method::DELETE, signed, None).await {
            Ok(_) | Err(ObjectError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, after: Option<&ArtifactId>, limit: usize) -> Result<Vec<ArtifactId>, ObjectError> {
        self.check_owner().await?;
        let mut last = after.map_or_else(|| format!("{}{OBJECTS}", self.0.prefix), |id| self.key(id));
        for _ in 0..PAGES_MAX {
            let keys = self.page(&last, limit).await?;
            let Some(end) = keys.last() else { break };
            let found: Vec<ArtifactId> = keys.iter().filter_map(|key| self.id(key)).collect();
            if !found.is_empty() {
                return Ok(found);
            }
            // A page of keys that are no objects does not end the list.
            last.clone_from(end);
        }
        Ok(Vec::new())
    }

    async fn drop_unfinished(&self, before: Timestamp, limit: usize) -> Result<usize, ObjectError> {
        self.check_owner().await?;
        self.drop_uploads(before, limit).await
    }
}
