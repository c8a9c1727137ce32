//! Local folders that are given as repositories: their plain paths, the fault of an unusable folder, and the
//! remedy.

use std::{
    borrow::Cow,
    fs, io,
    path::{Component, Path, PathBuf},
};

use tidings_actors::ports::Location;

use crate::{
    cli::{Code, Failure, client::without_user},
    git::address::Address,
};

/// A path as the system reads it, absolute and without `.` and `..`, so that one folder has one path.
///
/// A symbolic link stays in the path, because a link may lead to another folder tomorrow and the user named
/// the link; a watch of an older version has the path with the link, too. Only a link directly before `..` is
/// followed: `..` is then the parent of the folder that the link names, and removing both words would name
/// another folder. Behind a folder that is no link, `..` is the parent of that folder, also if a link stands
/// further up in the path.
///
/// # Errors
/// If there is no working directory, or a link before `..` leads nowhere.
pub(crate) fn plain(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => {
                if plain.is_symlink() {
                    plain = plain.canonicalize()?;
                }
                plain.pop();
            }
            Component::CurDir => {}
            component => plain.push(component),
        }
    }
    Ok(plain)
}

/// The address of the folder that a text names on this machine. [`Address`] never reads the disk and removes
/// `..` without regard to links.
pub(crate) fn followed(text: &str, address: Address) -> Address {
    let Location::Local(lexical) = &address.location else { return address };
    if text.contains("://") {
        return address;
    }
    let path = plain(Path::new(text.trim())).ok().filter(|path| path != lexical);
    let meant =
        path.as_deref().and_then(Path::to_str).and_then(|path| Address::parse(path, true, false).ok());
    match meant {
        Some(meant) => Address { display: address.display, ..meant },
        None => address,
    }
}

/// A path for messages. A text that is meant as an address may hold a user and a password, which are left
/// out; a path that begins like one is shown whole.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    let is_path = !text.contains("://") && text.starts_with(['/', '.', '~']);
    if is_path { text.into() } else { without_user(text) }
}

/// Checks that a path is a repository. `text` is the path as the user gave it.
///
/// # Errors
/// If there is no repository; the failure names the remedy.
pub(crate) fn check(text: &str, path: &Path) -> Result<(), Failure> {
    let told = shown(text);
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut said = format!("{told}: there is no such folder");
            if is_owner_and_name(text) {
                said = format!("{said}; {}", at_github(text));
            }
            return Err(Failure::new(Code::NoInput, said));
        }
        Err(error) => return Err(Failure::new(Code::NoInput, format!("{told} cannot be read: {error}"))),
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
    Err(Failure::new(Code::Data, format!("{told} {kind}{mend}")))
}

/// The work tree that contains a folder which is no repository itself; like git, looks upwards.
pub(crate) fn work_tree_around(path: &Path) -> Option<&Path> {
    if path.is_dir() && !is_repository(path) { work_tree_above(path) } else { None }
}

fn work_tree_above(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|folder| folder.join(".git").exists())
}

fn is_repository(folder: &Path) -> bool {
    folder.join(".git").exists() || folder.join("HEAD").is_file() && folder.join("objects").is_dir()
}

/// Whether a text looks like `owner/name`, as people name repositories of GitHub.
pub(crate) fn is_owner_and_name(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('.')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/').is_some_and(|(owner, name)| is_word(owner) && is_word(name))
}

/// The GitHub address of a repository that is named `owner/name`.
pub(crate) fn at_github(text: &str) -> String {
    format!("a repository at GitHub is https://github.com/{text}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_password_is_not_repeated_and_a_path_is_shown_whole() {
        for text in ["https//me:hush@h.example/x", "me:hush@h.example/x", "postgres://me:hu/hush@h/x"] {
            let said = check(text, Path::new(text)).expect_err(text).message;
            assert!(said.contains("@h") && !said.contains("hush"), "{said}");
        }
        for path in ["/srv/me@host/x", "./me@host", "../me@host"] {
            assert_eq!(shown(path), path);
        }
    }

    #[test]
    fn a_path_without_dots_names_the_folder_that_the_system_would_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("there");
        for made in ["r", "s", "far/away", "far/s"] {
            fs::create_dir_all(root.join(made)).expect("made");
        }
        symlink("far/away", root.join("link")).expect("made");
        symlink("nowhere", root.join("broken")).expect("made");
        for (given, expected) in [
            ("s", "s"),
            ("./s/", "s"),
            ("r/../s", "s"),
            ("r/./../r/../s", "s"),
            ("absent/../s", "s"),
            ("link", "link"),
            ("link/../s", "far/s"),
            ("link/x/../y", "link/y"),
            ("link/x/../../s", "far/s"),
        ] {
            assert_eq!(plain(&root.join(given)).expect(given), root.join(expected), "{given}");
            if let Ok(opened) = root.join(given).canonicalize() {
                assert_eq!(root.join(expected).canonicalize().expect(expected), opened, "{given}");
            }
        }
        assert!(plain(&root.join("broken/../s")).is_err());
        assert_eq!(plain(Path::new("/../../x")).expect("the root is its own parent"), Path::new("/x"));
        let text = format!("{}/link/../s", root.display());
        let address = followed(&text, Address::parse(&text, true, false).expect("an address"));
        assert_eq!((address.location, address.display), (Location::Local(root.join("far/s")), text));
    }
}
