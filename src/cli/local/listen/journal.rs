//! The journal of a mirror: the watches and cursors of the mirror, and for each cursor and path the highest
//! (round, position) that was applied, with its event. A journal of an older version names no watch; the
//! watch of the first change that arrives is recorded. Its cursors are those with applied changes.
//!
//! The journal is a file of JSON lines that only grows while the mirror runs; a line counts once it is whole,
//! and each is synced before the change is acknowledged. At the start it is read and, if most of its lines
//! are outdated, rewritten. One process uses it at a time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

/// The number of outdated lines that are kept before the file is rewritten.
const OUTDATED_MAX: usize = 10_000;

/// A place in the order of a cursor's changes.
pub type JournalPosition = (i64, u64);

/// The last event that was applied to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The place of the event in the order of its cursor.
    pub place: JournalPosition,
    /// The id of the event (`event.id`).
    pub event: String,
    /// Whether the path has a file after the event.
    pub live: bool,
}

#[derive(Default)]
struct Cursor {
    paths: BTreeMap<Vec<u8>, Applied>,
    /// The last round that was announced to name everything.
    complete: Option<i64>,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Applied {
        cursor: String,
        path_base64: String,
        round: i64,
        position: u64,
        event: String,
        live: bool,
    },
    Complete {
        cursor: String,
        round: i64,
    },
    Watch {
        watch: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
}

/// The journal file, open for appending, with its content in memory.
pub struct Journal {
    file: File,
    /// Length of the file's whole lines in bytes.
    length: u64,
    cursors: HashMap<String, Cursor>,
    /// The watches of the mirror, each with one of its cursors, or `None` before its first change.
    marks: BTreeSet<(String, Option<String>)>,
}

/// The name of the journal file in the mirror's own folder.
const FILE: &str = "journal";

impl Journal {
    /// Whether there is a journal in `folder`.
    #[must_use]
    pub fn is_in(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Opens the journal in `folder`, and creates it if it does not exist.
    ///
    /// # Errors
    /// When the disk fails, the journal is damaged or another process has it open.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let mut file = lock(&path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // Text after the last line end was never acknowledged.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut journal =
            Self { file, length: whole as u64, cursors: HashMap::new(), marks: BTreeSet::new() };
        let mut lines = 0;
        for line in text[..whole].lines() {
            lines += 1;
            let line = serde_json::from_str(line)
                .map_err(|error| io::Error::other(format!("line {lines} of {}: {error}", path.display())))?;
            journal.remember(line)?;
        }
        journal.file.set_len(journal.length)?;
        let known: usize = journal.cursors.values().map(|cursor| cursor.paths.len() + 1).sum();
        if lines > 2 * known + OUTDATED_MAX {
            journal.rewrite(folder, &path)?;
        }
        Ok(journal)
    }

    /// The last applied change of a path.
    #[must_use]
    pub fn applied(&self, cursor: &str, path: &[u8]) -> Option<&Applied> {
        self.cursors.get(cursor)?.paths.get(path)
    }

    /// Whether this round was announced to name everything.
    #[must_use]
    pub fn is_complete(&self, cursor: &str, round: i64) -> bool {
        self.cursors.get(cursor).is_some_and(|cursor| cursor.complete == Some(round))
    }

    /// The paths that have a file since a round before `round`.
    #[must_use]
    pub fn live_before(&self, cursor: &str, round: i64) -> Vec<Vec<u8>> {
        let paths = self.cursors.get(cursor).into_iter().flat_map(|cursor| &cursor.paths);
        let old = paths.filter(|(_, applied)| applied.live && applied.place.0 < round);
        old.map(|(path, _)| path.clone()).collect()
    }

    /// The watches that the folder is a mirror of.
    pub fn watches(&self) -> impl Iterator<Item = &str> {
        self.marks.iter().map(|(watch, _)| watch.as_str())
    }

    /// The cursors that the folder is a mirror of.
    pub fn cursors(&self) -> impl Iterator<Item = &str> {
        let marked = self.marks.iter().filter_map(|(_, cursor)| cursor.as_deref());
        marked.chain(self.cursors.keys().map(String::as_str))
    }

    /// Whether nothing was ever applied.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.cursors.is_empty()
    }

    /// Records that the folder is a mirror of this watch, and of this cursor of it; on return it is on disk.
    ///
    /// # Errors
    /// When the disk fails; then nothing is recorded.
    pub fn record_watch(&mut self, watch: &str, cursor: Option<&str>) -> io::Result<()> {
        self.append(Line::Watch { watch: watch.to_owned(), cursor: cursor.map(str::to_owned) })
    }

    /// Records an applied change; on return the record is on disk.
    ///
    /// # Errors
    /// When the disk fails; then nothing is recorded.
    pub fn record(&mut self, cursor: &str, path: &[u8], applied: &Applied) -> io::Result<()> {
        self.append(applied_line(cursor, path, applied))
    }

    /// Records that a round names everything; on return it is on disk.
    ///
    /// # Errors
    /// When the disk fails; then nothing is recorded.
    pub fn record_complete(&mut self, cursor: &str, round: i64) -> io::Result<()> {
        self.append(Line::Complete { cursor: cursor.to_owned(), round })
    }

    fn append(&mut self, line: Line) -> io::Result<()> {
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Removes half a line, so that the next line is whole.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += text.len() as u64;
        self.remember(line)
    }

    fn remember(&mut self, line: Line) -> io::Result<()> {
        match line {
            Line::Applied { cursor, path_base64, round, position, event, live } => {
                let path = BASE64_STANDARD.decode(path_base64).map_err(io::Error::other)?;
                let applied = Applied { place: (round, position), event, live };
                self.cursors.entry(cursor).or_default().paths.insert(path, applied);
            }
            Line::Complete { cursor, round } => {
                self.cursors.entry(cursor).or_default().complete = Some(round);
            }
            Line::Watch { watch, cursor } => drop(self.marks.insert((watch, cursor))),
        }
        Ok(())
    }

    /// Writes the lines that still count to a new file, and renames it over the old one.
    fn rewrite(&mut self, folder: &Path, path: &PathBuf) -> io::Result<()> {
        let aside = folder.join("journal.new");
        let mut file = lock(&aside)?;
        file.set_len(0)?;
        let mut text = Vec::new();
        for (watch, cursor) in &self.marks {
            let mark = Line::Watch { watch: watch.clone(), cursor: cursor.clone() };
            serde_json::to_writer(&mut text, &mark)?;
            text.push(b'\n');
        }
        for (cursor, known) in &self.cursors {
            let complete =
                known.complete.map(|round| Line::Complete { cursor: cursor.clone(), round }).into_iter();
            let applied = known.paths.iter().map(|(path, applied)| applied_line(cursor, path, applied));
            for line in complete.chain(applied) {
                serde_json::to_writer(&mut text, &line)?;
                text.push(b'\n');
            }
        }
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(folder)?.sync_all()?;
        (self.file, self.length) = (file, text.len() as u64);
        Ok(())
    }
}

fn applied_line(cursor: &str, path: &[u8], applied: &Applied) -> Line {
    Line::Applied {
        cursor: cursor.to_owned(),
        path_base64: BASE64_STANDARD.encode(path),
        round: applied.place.0,
        position: applied.place.1,
        event: applied.event.clone(),
        live: applied.live,
    }
}

/// Opens a file that only this process may have open.
fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => io::Error::other("another process mirrors into this folder"),
        fs::TryLockError::Error(error) => error,
    })?;
    Ok(file)
}
