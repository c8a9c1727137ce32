//! Files below one folder, and nothing outside of it.
//!
//! Every step is taken from an open directory and never through a symbolic link, so no name and no link leads
//! outside, even if the link is created in between. Files appear whole: written under another name, synced,
//! then renamed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fchmod, fsync, mkdirat, open, openat, renameat, statat, unlinkat},
    io::Errno,
};
use thiserror::Error;

/// The folder inside the mirror that holds its state.
pub const STATE_FOLDER: &str = ".tidings-mirror";
/// Longest admitted path in bytes.
const PATH_MAX: usize = 4096;

/// Why a file was not written or removed.
#[derive(Debug, Error)]
pub enum FolderError {
    /// A path that has no place in a mirror.
    #[error("the path is refused: {0}")]
    Refused(&'static str),
    /// The path is taken by something other than a file of this mirror.
    #[error("{0}")]
    Conflict(&'static str),
    /// The file system failed, for example because the disk is full.
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
}

impl From<Errno> for FolderError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL => {
                Self::Refused("the file system of this folder refuses the name")
            }
            errno => Self::Disk(errno.into()),
        }
    }
}

/// An open mirror folder.
pub struct Folder {
    root: OwnedFd,
    staging: OwnedFd,
    /// Names files that are being written.
    serial: u64,
}

/// A file that is being written aside.
pub struct Staged {
    name: String,
    /// The open file that its content is written to.
    pub file: File,
}

impl Folder {
    /// Opens `root`, creates it if it does not exist, and removes files that a crash left half-written.
    ///
    /// # Errors
    /// When the folder cannot be created or opened.
    pub fn open(root: &Path) -> io::Result<Self> {
        let staging = root.join(STATE_FOLDER).join("staging");
        fs::create_dir_all(root.join(STATE_FOLDER))?;
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&staging)?,
        }
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let staging = open(&staging, directory | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self { root: open(root, directory, Mode::empty())?, staging, serial: 0 })
    }

    /// Begins a file aside.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn stage(&mut self) -> Result<Staged, FolderError> {
        self.serial += 1;
        let name = format!("{}", self.serial);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.staging, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Staged { name, file: file.into() })
    }

    /// The same, with all of its content; nothing is left when the disk fails.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn stage_with(&mut self, content: &[u8]) -> Result<Staged, FolderError> {
        let mut staged = self.stage()?;
        if let Err(error) = staged.file.write_all(content) {
            self.discard(&staged)?;
            return Err(error.into());
        }
        Ok(staged)
    }

    /// Throws a staged file away.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn discard(&self, staged: &Staged) -> Result<(), FolderError> {
        Ok(unlinkat(&self.staging, &staged.name, AtFlags::empty())?)
    }

    /// Puts a staged file at `path`, synced to disk.
    ///
    /// # Errors
    /// A refused path, a directory or a file in the way, or the disk.
    pub fn publish(&self, staged: &Staged, path: &[u8], executable: bool) -> Result<(), FolderError> {
        let parts = components(path)?;
        let (name, folders) = parts.split_last().ok_or(FolderError::Refused("it is empty"))?;
        let ancestors = self.descend(folders, true)?;
        let parent = ancestors.last().unwrap_or(&self.root);
        let mode = if executable { 0o755 } else { 0o644 };
        fchmod(&staged.file, Mode::from_raw_mode(mode))?;
        staged.file.sync_all()?;
        let name = OsStr::from_bytes(name);
        match renameat(&self.staging, &staged.name, parent, name) {
            // An empty directory is removed for the file; a directory with files is not.
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                unlinkat(parent, name, AtFlags::REMOVEDIR)
                    .map_err(|_| FolderError::Conflict("a directory with files stands at this path"))?;
                renameat(&self.staging, &staged.name, parent, name)?;
            }
            result => result?,
        }
        Ok(fsync(parent)?)
    }

    /// Removes the file at `path`, and the directories above it that this leaves empty. Nothing
    /// there is fine.
    ///
    /// # Errors
    /// A refused path, a directory in its place, or the disk.
    pub fn remove(&self, path: &[u8]) -> Result<(), FolderError> {
        let parts = components(path)?;
        let (name, folders) = parts.split_last().ok_or(FolderError::Refused("it is empty"))?;
        let ancestors = match self.descend(folders, false) {
            Ok(ancestors) if ancestors.len() == folders.len() => ancestors,
            // A parent of the path is a file or does not exist: the path is already gone.
            Ok(_) | Err(FolderError::Conflict(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        match unlinkat(ancestors.last().unwrap_or(&self.root), OsStr::from_bytes(name), AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                return Err(FolderError::Conflict("a directory stands at this path"));
            }
            result => result?,
        }
        for depth in (0..folders.len()).rev() {
            let above = if depth == 0 { &self.root } else { &ancestors[depth - 1] };
            fsync(&ancestors[depth])?;
            if unlinkat(above, OsStr::from_bytes(folders[depth]), AtFlags::REMOVEDIR).is_err() {
                return Ok(());
            }
        }
        Ok(fsync(&self.root)?)
    }

    /// Opens the directories one below the other; returns fewer if one does not exist.
    fn descend(&self, folders: &[&[u8]], create: bool) -> Result<Vec<OwnedFd>, FolderError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut opened: Vec<OwnedFd> = Vec::with_capacity(folders.len());
        for folder in folders {
            let above = opened.last().unwrap_or(&self.root);
            let name = OsStr::from_bytes(folder);
            let next = match openat(above, name, flags, Mode::empty()) {
                Err(Errno::NOENT) if !create => return Ok(opened),
                Err(Errno::NOENT) => {
                    mkdirat(above, name, Mode::from_raw_mode(0o755))?;
                    fsync(above)?;
                    openat(above, name, flags, Mode::empty())?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let stat = statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    return Err(match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Symlink => FolderError::Refused("it leads through a symbolic link"),
                        _ => FolderError::Conflict("a file stands where a directory is needed"),
                    });
                }
                result => result?,
            };
            opened.push(next);
        }
        Ok(opened)
    }
}

/// The components of a path that is allowed in a mirror.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, FolderError> {
    if path.len() > PATH_MAX {
        return Err(FolderError::Refused("it is too long"));
    }
    if path.contains(&0) {
        return Err(FolderError::Refused("it contains NUL"));
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    for part in &parts {
        match *part {
            b"" => return Err(FolderError::Refused("it is absolute or has an empty component")),
            b"." | b".." => return Err(FolderError::Refused("it has the component . or ..")),
            part if part.eq_ignore_ascii_case(b".git") || part.eq_ignore_ascii_case(b"git~1") => {
                return Err(FolderError::Refused("it belongs to Git itself"));
            }
            _ => {}
        }
    }
    if parts.first().is_some_and(|first| first.eq_ignore_ascii_case(STATE_FOLDER.as_bytes())) {
        return Err(FolderError::Refused("it belongs to the mirror's own state"));
    }
    Ok(parts)
}
