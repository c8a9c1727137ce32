//! Listings of refs that Git need not make again. Servers ask ten times a second, and each answer of Git takes two
//! processes.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt, path::Path, sync::Mutex};

use bytes::Bytes;

use super::Answer;

/// The listings that Git made, each with what the repository was then.
#[derive(Default)]
pub(super) struct Listings(Mutex<HashMap<Question, (Vec<u8>, Answer)>>);

/// What a listing depends on beside the repository: the request as it reaches Git, and its body.
pub(super) type Question = (String, Bytes);

impl Listings {
    /// The listing of a repository that is still what it was.
    pub(super) fn of(&self, question: &Question, repository: &[u8]) -> Option<Answer> {
        let listings = self.0.lock().expect("no panic");
        listings.get(question).filter(|(then, _)| then == repository).map(|(_, answer)| answer.clone())
    }

    /// Keeps what Git answered; `repository` was read before it did.
    pub(super) fn keep(&self, question: Question, repository: Vec<u8>, answer: &Answer) {
        self.0.lock().expect("no panic").insert(question, (repository, answer.clone()));
    }
}

/// All that the listing of a repository is made of: its refs and settings, and where its objects lie. `None`: there is
/// no repository, or its objects lie elsewhere and may go without a trace here.
pub(super) fn made_of(repository: &Path) -> Option<Vec<u8>> {
    let name = repository.as_os_str();
    let mut with_suffix = name.to_owned();
    with_suffix.push(".git");
    let places = [repository.join(".git"), repository.to_owned(), with_suffix.into()];
    let git = places.iter().find(|place| place.join("HEAD").is_file())?;
    if git.join("objects/info/alternates").exists() {
        return None;
    }
    let mut all = Vec::new();
    for file in ["HEAD", "config", "packed-refs"] {
        all.extend(fs::read(git.join(file)).unwrap_or_default());
        all.push(0);
    }
    add_refs(&git.join("refs"), &mut all);
    // An object that comes or goes changes its folder.
    let mut folders: Vec<_> = fs::read_dir(git.join("objects")).ok()?.flatten().collect();
    folders.sort_by_key(fs::DirEntry::file_name);
    for folder in folders {
        let about = folder.metadata().ok()?;
        all.extend(folder.file_name().as_encoded_bytes());
        all.extend(about.mtime().to_le_bytes());
        all.extend(about.mtime_nsec().to_le_bytes());
    }
    Some(all)
}

/// Adds the names and contents of all files below a folder.
fn add_refs(folder: &Path, all: &mut Vec<u8>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        all.extend(entry.file_name().as_encoded_bytes());
        all.push(0);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_refs(&entry.path(), all);
        } else {
            all.extend(fs::read(entry.path()).unwrap_or_default());
        }
        all.push(0);
    }
}
