//! Local folders that are given as repositories: the fault of an unusable folder, and the remedy.

use std::{fs, io, path::Path};

use super::{Code, Failure};

/// Checks that a path is a repository. `text` is the path as the user gave it.
///
/// # Errors
/// If there is no repository; the failure names the remedy.
pub(super) fn check(text: &str, path: &Path) -> Result<(), Failure> {
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut said = format!("{text}: there is no such folder");
            if is_owner_and_name(text) {
                said = format!("{said}; {}", at_github(text));
            }
            return Err(Failure::new(Code::NoInput, said));
        }
        Err(error) => return Err(Failure::new(Code::NoInput, format!("{text} cannot be read: {error}"))),
    };
    if facts.is_dir() && is_repository(path) {
        return Ok(());
    }
    let kind = if facts.is_dir() { "is no Git repository" } else { "is a file, no Git repository" };
    let around = work_tree_above(path);
    let mend = match around {
        Some(around) => format!("; it lies in the repository {}", around.display()),
        None if facts.is_dir() => ": it holds no .git; `git init` makes one".to_owned(),
        None => "; give the folder that holds .git".to_owned(),
    };
    Err(Failure::new(Code::Data, format!("{text} {kind}{mend}")))
}

/// The work tree that contains a folder which is no repository itself; like git, looks upwards.
pub(super) fn work_tree_around(path: &Path) -> Option<&Path> {
    if path.is_dir() && !is_repository(path) { work_tree_above(path) } else { None }
}

fn work_tree_above(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|folder| folder.join(".git").exists())
}

fn is_repository(folder: &Path) -> bool {
    folder.join(".git").exists() || folder.join("HEAD").is_file() && folder.join("objects").is_dir()
}

/// Whether a text looks like `owner/name`, as people name repositories of GitHub.
pub(super) fn is_owner_and_name(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('.')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/').is_some_and(|(owner, name)| is_word(owner) && is_word(name))
}

/// The GitHub address of a repository that is named `owner/name`.
pub(super) fn at_github(text: &str) -> String {
    format!("a repository at GitHub is https://github.com/{text}")
}
