//! `--mirror`: a folder that applies the received changes, with exactly-once effect.
//!
//! A change is applied if its (round, position) is higher than the highest that was applied to the same path
//! of the same cursor; any other change is a repeat or comes late, and is acknowledged without effect. First
//! the file is on disk, then the journal's line, then the answer is sent: after a crash in between the change
//! is applied a second time, with the same result.
//!
//! A change whose content was left out (too large, or a view without content) removes the file, because an
//! outdated file would be worse. Symbolic links are written as files that hold the link's text. One folder
//! serves one branch of one watch: two branches in it would overwrite each other's files. So the journal
//! stores the watch and the cursor of the folder. Changes of another watch or cursor are refused with 404,
//! and a folder that holds other files is refused, unless a flag allows both.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use thiserror::Error;
use tidings_entity::id::Sha256Hash;

use super::{
    assembly::{Assemblies, decode},
    folder::{Folder, FolderError, STATE_FOLDER},
    journal::{Applied, Journal, JournalPosition},
    message::{Event, File, Message, Verb},
};

/// The effect of a message on the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The file is as the message says.
    Applied,
    /// The content was left out, so the path has no file.
    Omitted,
    /// The same event was applied before.
    Repeat,
    /// A later change of the path was applied before.
    Late,
    /// A chunk was stored, and more chunks follow.
    Stored,
    /// The number of files that a complete resync did not name, and that were deleted.
    Dropped(usize),
    /// The message changes no file of the mirror.
    Noted,
}

/// The flag that allows a mirror among other files, or of a second watch.
const FLAG: &str = "--mirror-into-existing";

/// Why a folder is not mirrored into.
#[derive(Debug, Error)]
pub enum OpenMirrorError {
    /// The folder holds files that no mirror wrote.
    #[error("it holds other files ({0}), which the mirror would write over; {FLAG} allows it")]
    Used(String),
    /// The disk failed, the state is damaged or another process mirrors into the folder.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// Why a message was not applied.
#[derive(Debug, Error)]
pub enum MirrorError {
    /// The body lacks something that its verb needs.
    #[error("the body is not usable: {0}")]
    Body(&'static str),
    /// The content does not hash to `sha`.
    #[error("the SHA-256 of the content is not the sha of the body")]
    Hash,
    /// A change of a watch that the folder is no mirror of.
    #[error(
        "the folder is the mirror of {kept}, and this is a change of {sent}: give each watch a listener and \
         a folder of its own, or allow both in one with {FLAG}"
    )]
    OtherWatch {
        /// The watch that the folder mirrors.
        kept: String,
        /// The watch of the change.
        sent: String,
    },
    /// A change of a cursor that the folder is no mirror of.
    #[error(
        "the folder is the mirror of the branch with the cursor {kept}, and this is a change of {sent}: \
         watch each branch with a watch of its own, and give each a listener and a folder of its own, or \
         allow several in one with {FLAG}"
    )]
    OtherCursor {
        /// The cursor that the folder mirrors.
        kept: String,
        /// The cursor of the change, and its branch.
        sent: String,
    },
    /// The path or the disk.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl From<std::io::Error> for MirrorError {
    fn from(error: std::io::Error) -> Self {
        Self::Folder(error.into())
    }
}

impl MirrorError {
    /// The status for the sender: 422 refuses for good, 409 asks for another order of changes, 404 for
    /// another receiver, 503 to be asked again later.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Body(_) => 400,
            Self::OtherWatch { .. } | Self::OtherCursor { .. } => 404,
            Self::Hash | Self::Folder(FolderError::Refused(_)) => 422,
            Self::Folder(FolderError::Conflict(_)) => 409,
            Self::Folder(FolderError::Disk(_)) => 503,
        }
    }
}

/// The folder, and the journal of its changes.
pub struct Mirror {
    folder: Folder,
    journal: Journal,
    assemblies: Assemblies,
    /// Whether other watches and branches may be mirrored into the folder as well.
    takes_others: bool,
    root: PathBuf,
    /// Whether the folder, and the state in it, were created when it was opened.
    is_new: [bool; 2],
}

/// The key of a change, as the journal compares and stores it.
struct MirrorKey<'a> {
    cursor: &'a str,
    path: Vec<u8>,
    place: Option<JournalPosition>,
    event: &'a str,
}

impl Mirror {
    /// Opens a mirror. A folder that holds other files, and changes of a second watch or branch, are refused
    /// unless `into_existing`.
    ///
    /// # Errors
    /// [`OpenMirrorError`].
    pub fn open(root: &Path, into_existing: bool) -> Result<Self, OpenMirrorError> {
        let state = root.join(STATE_FOLDER);
        if !into_existing
            && !Journal::is_in(&state)
            && let Some(found) = other_file(root)?
        {
            return Err(OpenMirrorError::Used(found));
        }
        let is_new = [!root.exists(), !state.exists()];
        fs::create_dir_all(&state)?;
        let journal = Journal::open(&state)?;
        // Half-written files of another process may be removed only under the lock of the journal.
        let (folder, assemblies) = (Folder::open(root)?, Assemblies::default());
        Ok(Self { folder, journal, assemblies, takes_others: into_existing, root: root.to_owned(), is_new })
    }

    /// Records that the folder is the mirror of this watch, and of this cursor of it; a failure names
    /// `branch` to the user.
    ///
    /// # Errors
    /// [`MirrorError::OtherWatch`] or [`MirrorError::OtherCursor`] if the folder belongs to another one. Also
    /// when the disk fails.
    pub fn claim(
        &mut self,
        watch: &str,
        cursor: Option<&str>,
        branch: Option<&str>,
    ) -> Result<(), MirrorError> {
        let knows_watch = self.journal.watches().any(|kept| kept == watch);
        let knows_cursor = cursor.is_none_or(|cursor| self.journal.cursors().any(|kept| kept == cursor));
        if knows_watch && knows_cursor {
            return Ok(());
        }
        let takes_others = self.takes_others;
        if let Some(kept) = self.journal.watches().next().filter(|_| !knows_watch && !takes_others) {
            return Err(MirrorError::OtherWatch { kept: kept.to_owned(), sent: watch.to_owned() });
        }
        let kept = self.journal.cursors().next().filter(|_| !knows_cursor && !takes_others);
        if let (Some(kept), Some(cursor)) = (kept, cursor) {
            let of_branch = branch.map(|branch| format!(" ({branch})")).unwrap_or_default();
            return Err(MirrorError::OtherCursor {
                kept: kept.to_owned(),
                sent: format!("{cursor}{of_branch}"),
            });
        }
        Ok(self.journal.record_watch(watch, cursor)?)
    }

    /// Removes the folder and state that opening the mirror created, if nothing was ever applied to it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn take_back(&self) -> io::Result<()> {
        let [root_is_new, state_is_new] = self.is_new;
        if !state_is_new || !self.journal.is_unused() {
            return Ok(());
        }
        fs::remove_dir_all(self.root.join(STATE_FOLDER))?;
        if root_is_new { fs::remove_dir(&self.root) } else { Ok(()) }
    }

    /// Applies a message; on `Ok` its effect is on disk.
    ///
    /// # Errors
    /// [`MirrorError`]; then nothing is recorded.
    pub fn apply(&mut self, verb: Verb, message: &Message) -> Result<Effect, MirrorError> {
        if matches!(verb, Verb::News | Verb::Test) {
            return Ok(Effect::Noted);
        }
        let (cursor, branch) = match &message.event {
            Some(event) => (event.cursor.as_deref(), event.branch.as_deref()),
            None => (None, None),
        };
        self.claim(&message.repository.repository_id, cursor, branch)?;
        let (file, event) = match (verb, &message.file, &message.event) {
            (Verb::Resync | Verb::Synced, _, Some(event)) => return self.notice(verb, event),
            (Verb::Put | Verb::Delete, Some(file), event) => (file, event.as_ref()),
            _ => return Err(MirrorError::Body("a change has a file, a notice has an event")),
        };
        let path = file.path_bytes().map_err(|_| MirrorError::Body("path_base64 is no base64"))?;
        // A message without an event has no order to compare: the last one to arrive counts.
        let key = MirrorKey {
            cursor: event
                .and_then(|event| event.cursor.as_deref())
                .unwrap_or(&message.repository.repository_id),
            path,
            place: event.and_then(|event| event.round.zip(event.position)),
            event: event.map_or("", |event| &event.id),
        };
        if let Some(effect) = self.outdated(&key) {
            return Ok(effect);
        }
        if verb == Verb::Delete {
            self.folder.remove(&key.path)?;
            return self.record(&key, false, Effect::Applied);
        }
        self.put(&key, file)
    }

    fn outdated(&self, key: &MirrorKey<'_>) -> Option<Effect> {
        let applied = self.journal.applied(key.cursor, &key.path)?;
        let place = key.place?;
        if !key.event.is_empty() && applied.event == key.event {
            return Some(Effect::Repeat);
        }
        (place <= applied.place).then_some(Effect::Late)
    }

    fn put(&mut self, key: &MirrorKey<'_>, file: &File) -> Result<Effect, MirrorError> {
        let sha = file.sha.as_deref().map(str::parse::<Sha256Hash>).transpose();
        let sha = sha.map_err(|_| MirrorError::Body("sha is no SHA-256"))?;
        let encoded = file.content_encoding.as_deref() == Some("base64");
        let Some(content) = &file.content else {
            self.folder.remove(&key.path)?;
            return self.record(key, false, Effect::Omitted);
        };
        let (staged, hash) = if let Some(chunk) = &file.chunk {
            let whole = self.assemblies.add(&mut self.folder, (key.cursor, &key.path), chunk, content)?;
            let Some(mut text) = whole else { return Ok(Effect::Stored) };
            let decoded = decode(&mut self.folder, &mut text);
            self.folder.discard(&text)?;
            decoded?.ok_or(MirrorError::Body("content is no base64"))?
        } else {
            let bytes =
                if encoded { BASE64_STANDARD.decode(content) } else { Ok(content.clone().into_bytes()) };
            let bytes = bytes.map_err(|_| MirrorError::Body("content is no base64"))?;
            (self.folder.stage_with(&bytes)?, Sha256Hash::of(&bytes))
        };
        // A message without an event shows text that may have lost bytes, so its hash need not match.
        let faithful = encoded || key.place.is_some();
        if faithful && sha.is_some_and(|sha| sha != hash) {
            self.folder.discard(&staged)?;
            return Err(MirrorError::Hash);
        }
        let executable = file.mode.as_deref() == Some("100755");
        let mut published = self.folder.publish(&staged, &key.path, executable);
        if let Err(FolderError::Conflict(_)) = published
            && self.clear_way(key)?
        {
            published = self.folder.publish(&staged, &key.path, executable);
        }
        if let Err(error) = published {
            self.folder.discard(&staged)?;
            return Err(error.into());
        }
        self.record(key, true, Effect::Applied)
    }

    /// In a complete round, removes files of earlier rounds that block this path: a file where a directory is
    /// needed, or files below a directory where a file is needed. No tree has both. The server may not know
    /// of such files, so it sent no delete for them, and `/synced` comes only after this change. Returns
    /// whether there were any.
    fn clear_way(&mut self, key: &MirrorKey<'_>) -> Result<bool, MirrorError> {
        let is_complete = |round: &i64| self.journal.is_complete(key.cursor, *round);
        let Some(round) = key.place.map(|(round, _)| round).filter(is_complete) else { return Ok(false) };
        let is_below =
            |path: &[u8], above: &[u8]| path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"));
        let mut old = self.journal.live_before(key.cursor, round);
        old.retain(|path| is_below(path, &key.path) || is_below(&key.path, path));
        for path in &old {
            self.folder.remove(path)?;
            // Below every place of this round, which may still name it.
            let dropped = Applied { place: (round - 1, u64::MAX), event: key.event.to_owned(), live: false };
            self.journal.record(key.cursor, path, &dropped)?;
        }
        Ok(!old.is_empty())
    }

    fn record(&mut self, key: &MirrorKey<'_>, live: bool, effect: Effect) -> Result<Effect, MirrorError> {
        if let Some(place) = key.place {
            let applied = Applied { place, event: key.event.to_owned(), live };
            self.journal.record(key.cursor, &key.path, &applied)?;
        }
        Ok(effect)
    }

    /// `/resync` may say that its round names everything; `/synced` of that round drops the rest.
    fn notice(&mut self, verb: Verb, event: &Event) -> Result<Effect, MirrorError> {
        let (Some(cursor), Some(round)) = (event.cursor.as_deref(), event.round) else {
            return Err(MirrorError::Body("a notice names its cursor and round"));
        };
        if verb == Verb::Resync {
            if event.complete {
                self.journal.record_complete(cursor, round)?;
            }
            return Ok(Effect::Noted);
        }
        if !event.complete && !self.journal.is_complete(cursor, round) {
            return Ok(Effect::Noted);
        }
        let unnamed = self.journal.live_before(cursor, round);
        for path in &unnamed {
            self.folder.remove(path)?;
            // Above every place of this round, below every place of the next.
            let dropped = Applied { place: (round, u64::MAX), event: event.id.clone(), live: false };
            self.journal.record(cursor, path, &dropped)?;
        }
        Ok(Effect::Dropped(unnamed.len()))
    }
}

/// The name of an entry of the folder that is not state of a mirror; `None`: there is none, or no folder.
fn other_file(root: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if name != STATE_FOLDER {
            return Ok(Some(name.display().to_string()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
