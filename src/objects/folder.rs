//! Objects as files of a folder, named by their ids and spread over folders by the last two characters of the
//! id, which are random.
//!
//! An object is written to `unfinished/<id>`, synced, renamed to `<two characters>/<id>`, and its folder is
//! synced: a crash leaves the whole object or a file in `unfinished`, which is removed later. Nothing ever
//! changes a file after its rename, so a reader that has it open reads it to its end, also after its removal.
//!
//! The file `.database` is the mark of the database that the folder belongs to.

use std::{
    collections::BTreeSet,
    fs, io,
    ops::Range,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tidings_actors::{
    ports::{ObjectBody, ObjectError, ObjectWriter, Objects},
    time::Timestamp,
};
use tidings_entity::id::ArtifactId;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{ForeignObjects, OwnerFault};

/// The folder of objects that are being written.
const UNFINISHED: &str = "unfinished";
/// The file that names the database.
const MARK: &str = ".database";
/// Characters of the name of a folder of objects.
const SHARD_CHARACTERS: usize = 2;
/// The bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Objects in a folder.
pub struct Folder {
    root: PathBuf,
    /// The bytes that must stay free on its disk.
    free_min: u64,
    /// The identity of the database that it belongs to; `None`: nobody asks.
    database: Option<String>,
    is_owned: Arc<AtomicBool>,
}

impl Folder {
    /// The objects below `root`, which is created by the first object. Nothing is written that would leave
    /// less than `free_min` bytes free.
    #[must_use]
    pub fn new(root: PathBuf, free_min: u64) -> Self {
        Self { root, free_min, database: None, is_owned: Arc::default() }
    }

    /// The same folder, which must belong to the database with this identity.
    #[must_use]
    pub fn owned_by(self, database: &str) -> Self {
        Self { database: Some(database.to_owned()), ..self }
    }

    /// The identity of the database that a folder belongs to; `None`: the folder is not there, or belongs to
    /// none. Reads only.
    pub(crate) fn owner_of(root: &Path) -> io::Result<Option<String>> {
        match fs::read_to_string(root.join(MARK)) {
            Ok(text) => Ok(Some(text.lines().next().unwrap_or_default().trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks that the folder belongs to this database; marks it if it belongs to none. A folder that is not
    /// there belongs to nobody yet.
    ///
    /// # Errors
    /// [`OwnerFault`]
    pub(super) async fn check_owner(&self) -> Result<(), OwnerFault> {
        let Some(wanted) = self.database.clone().filter(|_| !self.is_owned.load(Ordering::Acquire)) else {
            return Ok(());
        };
        let (root, is_owned) = (self.root.clone(), self.is_owned.clone());
        let checked = tokio::task::spawn_blocking(move || {
            if !root.is_dir() {
                return Ok(());
            }
            owner(&root, &wanted)?;
            is_owned.store(true, Ordering::Release);
            Ok(())
        });
        let unknown = |ended: tokio::task::JoinError| ObjectError::Unavailable(ended.to_string());
        checked.await.map_err(unknown)?
    }

    fn shard(&self, id: &ArtifactId) -> PathBuf {
        self.root.join(shard_of(id))
    }

    fn path(&self, id: &ArtifactId) -> PathBuf {
        self.shard(id).join(id.as_str())
    }

    fn check_room(&self, bytes: u64) -> Result<(), ObjectError> {
        // A system that does not say how much is free refuses the write when nothing is.
        let Ok(facts) = rustix::fs::statvfs(&self.root) else { return Ok(()) };
        let free = facts.f_bavail.saturating_mul(facts.f_frsize);
        let least = self.free_min;
        if free.saturating_sub(bytes) < least { Err(ObjectError::Full { free, least }) } else { Ok(()) }
    }
}

/// Checks the mark of a folder, or makes it.
fn owner(root: &Path, wanted: &str) -> Result<(), OwnerFault> {
    let unknown = |error: io::Error| ObjectError::Unavailable(error.to_string());
    let mark = root.join(MARK);
    let found = match Folder::owner_of(root).map_err(unknown)? {
        Some(found) => found,
        None => {
            // Written under a name of its own, so that no other replica reads half a mark.
            let fresh = tempfile::NamedTempFile::new_in(root).map_err(unknown)?;
            let text = format!(
                "{wanted}\nThe files of this folder belong to the Tidings database of this identity.\n"
            );
            fs::write(fresh.path(), text).map_err(unknown)?;
            fresh.as_file().sync_all().map_err(unknown)?;
            // Does not replace the mark that another replica or database makes at this moment.
            match fresh.persist_noclobber(&mark) {
                Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(unknown(error.error).into());
                }
                Ok(_) | Err(_) => sync_folder(root).map_err(unknown)?,
            }
            Folder::owner_of(root).map_err(unknown)?.unwrap_or_default()
        }
    };
    if found == wanted {
        return Ok(());
    }
    Err(OwnerFault::Foreign(ForeignObjects {
        place: format!("the folder {}", root.display()),
        found,
        wanted: wanted.to_owned(),
        setting: "artifacts.dir",
        mark: mark.display().to_string(),
    }))
}

/// The last two characters of an id.
fn shard_of(id: &ArtifactId) -> &str {
    let text = id.as_str();
    &text[text.len() - SHARD_CHARACTERS..]
}

fn failed(error: &io::Error) -> ObjectError {
    match error.kind() {
        io::ErrorKind::NotFound => ObjectError::Missing,
        _ => ObjectError::Unavailable(error.to_string()),
    }
}

/// Work with files on a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ObjectError> + Send + 'static,
) -> Result<T, ObjectError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|ended| Err(ObjectError::Unavailable(ended.to_string())))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Creates a folder that only this user may enter, and makes its name durable.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Creates a file that only this user may read.
fn new_file(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A file that becomes an object. Dropped before its end, it is removed.
struct Writing {
    file: tokio::fs::File,
    unfinished: PathBuf,
    shard: PathBuf,
    name: String,
    is_finished: bool,
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be removed now is removed by age.
            let _removed = fs::remove_file(&self.unfinished);
        }
    }
}

#[async_trait]
impl ObjectWriter for Writing {
    async fn write(&mut self, part: Bytes) -> Result<(), ObjectError> {
        self.file.write_all(&part).await.map_err(|error| failed(&error))
    }

    async fn finish(mut self: Box<Self>) -> Result<(), ObjectError> {
        self.file.flush().await.map_err(|error| failed(&error))?;
        self.file.sync_all().await.map_err(|error| failed(&error))?;
        let (from, shard) = (self.unfinished.clone(), self.shard.clone());
        let to = shard.join(&self.name);
        on_disk(move || {
            make_folder(&shard)
                .and_then(|()| fs::rename(&from, &to))
                .and_then(|()| sync_folder(&shard))
                .map_err(|error| ObjectError::Unavailable(error.to_string()))
        })
        .await?;
        self.is_finished = true;
        Ok(())
    }
}

#[async_trait]
impl Objects for Folder {
    async fn begin(&self, id: &ArtifactId, bytes: u64) -> Result<Box<dyn ObjectWriter>, ObjectError> {
        let unavailable = |error: io::Error| ObjectError::Unavailable(error.to_string());
        let root = self.root.clone();
        on_disk(move || make_folder(&root).map_err(unavailable)).await?;
        self.check_owner().await?;
        let folder = self.root.join(UNFINISHED);
        let unfinished = folder.join(id.as_str());
        let path = unfinished.clone();
        let file =
            on_disk(move || make_folder(&folder).and_then(|()| new_file(&path)).map_err(unavailable)).await?;
        let (shard, name) = (self.shard(id), id.to_string());
        let file = tokio::fs::File::from_std(file);
        let writing = Writing { file, unfinished, shard, name, is_finished: false };
        self.check_room(bytes)?;
        Ok(Box::new(writing))
    }

    async fn open(&self, id: &ArtifactId, range: Range<u64>) -> Result<ObjectBody, ObjectError> {
        let mut file = tokio::fs::File::open(self.path(id)).await.map_err(|error| failed(&error))?;
        let length = file.metadata().await.map_err(|error| failed(&error))?.len();
        if length < range.end {
            return Err(ObjectError::Missing);
        }
        file.seek(io::SeekFrom::Start(range.start)).await.map_err(|error| failed(&error))?;
        let left = range.end.saturating_sub(range.start);
        let parts = stream::try_unfold((file, left), |(mut file, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let mut part = BytesMut::zeroed(most);
            let count = file.read(&mut part).await.map_err(|error| failed(&error))?;
            if count == 0 {
                return Err(ObjectError::Unavailable("the object ended before its end".to_owned()));
            }
            part.truncate(count);
            Ok(Some((part.freeze(), (file, left - count as u64))))
        });
        Ok(parts.boxed())
    }

    async fn remove(&self, id: &ArtifactId) -> Result<(), ObjectError> {
        match tokio::fs::remove_file(self.path(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn list(&self, after: Option<&ArtifactId>, limit: usize) -> Result<Vec<ArtifactId>, ObjectError> {
        self.check_owner().await?;
        let (root, after) = (self.root.clone(), after.cloned());
        on_disk(move || {
            let mut found = Vec::new();
            let first = after.as_ref().map_or("", |after| shard_of(after));
            for shard in names(&root)?.into_iter().filter(|name| is_shard(name) && name.as_str() >= first) {
                let is_first = shard == first;
                let ids = names(&root.join(&shard))?.into_iter().filter_map(|name| name.parse().ok());
                let ids = ids.filter(|id: &ArtifactId| shard_of(id) == shard);
                found.extend(ids.filter(|id| !is_first || after.as_ref().is_none_or(|after| id > after)));
                if found.len() >= limit {
                    found.truncate(limit);
                    break;
                }
            }
            Ok(found)
        })
        .await
    }

    async fn drop_unfinished(&self, before: Timestamp, limit: usize) -> Result<usize, ObjectError> {
        self.check_owner().await?;
        let folder = self.root.join(UNFINISHED);
        on_disk(move || {
            let mut gone = 0;
            for name in names(&folder)? {
                let Ok(id) = name.parse::<ArtifactId>() else { continue };
                let began = i64::try_from(id.ulid().timestamp_ms()).unwrap_or(i64::MAX);
                if began < before.0 && gone < limit {
                    fs::remove_file(folder.join(&name)).map_err(|error| failed(&error))?;
                    gone += 1;
                }
            }
            Ok(gone)
        })
        .await
    }
}

fn is_shard(name: &str) -> bool {
    name.len() == SHARD_CHARACTERS && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The names in a folder, in order; none if it is not there.
fn names(folder: &Path) -> Result<BTreeSet<String>, ObjectError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(failed(&error)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        names.extend(entry.map_err(|error| failed(&error))?.file_name().into_string().ok());
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
