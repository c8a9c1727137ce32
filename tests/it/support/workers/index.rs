//! An index of branches, built from nothing but completed tasks, and written as `git ls-tree` writes a tree.

use std::{collections::BTreeMap, path::Path};

use data_encoding::BASE64;
use git2::{ObjectType, Oid};

use super::Claimed;
use crate::support::{api::App, repository::git_command, server::Server};

/// Mode and blob of a path.
pub(super) type Entry = (String, String);

/// A path with the place of the change that said it last: round and position.
#[derive(Debug)]
struct Known {
    place: (i64, u64),
    entry: Option<Entry>,
}

/// The files of branches, each by the id of its watch and its name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    branches: BTreeMap<(String, String), BTreeMap<Vec<u8>, Known>>,
}

impl Index {
    /// Takes in what a completed task says, unless a later change of the path was taken in.
    pub(super) fn put(&mut self, claimed: &Claimed, entry: Option<Entry>) {
        let (_, round, position) = claimed.place();
        let place = (round, position);
        let known = Known { place, entry };
        let paths = self.branches.entry(claimed.branch()).or_default();
        match paths.get_mut(&claimed.path()) {
            Some(before) if before.place > place => {}
            Some(before) => *before = known,
            None => drop(paths.insert(claimed.path(), known)),
        }
    }

    /// A branch in the form of [`listed`].
    pub(crate) fn listed(&self, watch: &str, branch: &str) -> Vec<u8> {
        let paths = self.branches.get(&(watch.to_owned(), branch.to_owned()));
        let mut text = Vec::new();
        for (path, known) in paths.into_iter().flatten() {
            if let Some((mode, blob)) = &known.entry {
                text.extend_from_slice(format!("{mode} blob {blob}\t").as_bytes());
                text.extend_from_slice(path);
                text.push(0);
            }
        }
        text
    }

    /// Whether a branch is what git lists of a commit (`None`: nothing), of the paths that are meant.
    pub(crate) fn is(
        &self,
        (watch, branch): (&str, &str),
        (repository, commit): (&Path, Option<&str>),
        is_meant: impl Fn(&[u8]) -> bool,
    ) -> bool {
        self.listed(watch, branch) == listed_of(repository, commit, is_meant)
    }

    /// The same, and panics with the paths that differ.
    pub(crate) fn assert_is(
        &self,
        (watch, branch): (&str, &str),
        (repository, commit): (&Path, Option<&str>),
        is_meant: impl Fn(&[u8]) -> bool,
    ) {
        let wanted = listed_of(repository, commit, is_meant);
        let found = self.listed(watch, branch);
        if found != wanted {
            let lines = |text: &[u8]| -> Vec<String> {
                text.split(|byte| *byte == 0).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
            };
            let (found, wanted) = (lines(&found), lines(&wanted));
            let only = |these: &[String], others: &[String]| -> Vec<String> {
                these.iter().filter(|line| !others.contains(line)).take(20).cloned().collect()
            };
            let (extra, missing) = (only(&found, &wanted), only(&wanted, &found));
            panic!("{branch} at {commit:?}: the index has {extra:#?} beyond git, and lacks {missing:#?}");
        }
    }
}

/// What git lists of a commit, of the paths that are meant; of no commit nothing.
fn listed_of(repository: &Path, commit: Option<&str>, is_meant: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let text = commit.map(|commit| listed(repository, commit)).unwrap_or_default();
    let mut wanted = Vec::new();
    for line in text.split_inclusive(|byte| *byte == 0) {
        let tab = line.iter().position(|byte| *byte == b'\t').expect("a tab before the path");
        if is_meant(&line[tab + 1..line.len() - 1]) {
            wanted.extend_from_slice(line);
        }
    }
    wanted
}

/// The tree of a commit as `git ls-tree -r -z` prints it, without submodules, which no app is told of.
fn listed(repository: &Path, commit: &str) -> Vec<u8> {
    let output = git_command(repository).args(["ls-tree", "-r", "-z", "--full-tree", commit]).output();
    let output = output.expect("git runs");
    assert!(output.status.success(), "git ls-tree {commit}: {}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split_inclusive(|byte| *byte == 0);
    lines.filter(|line| !line.starts_with(b"160000 ")).flatten().copied().collect()
}

/// What a task says of its path: the mode, and the blob of the content as its worker has it, hashed here; of a
/// delete nothing. The outer `None`: the server is gone, starts or ends.
pub(super) fn entry(server: &Server, app: &App, claimed: &Claimed) -> Option<Option<Entry>> {
    if claimed.is_delete() {
        return Some(None);
    }
    let file = claimed.file();
    let content = if let Some(text) = file["content"].as_str() {
        match file["content_encoding"].as_str() {
            Some(_) => BASE64.decode(text.as_bytes()).expect("base64"),
            None => text.as_bytes().to_vec(),
        }
    } else {
        let url = file["content_url"].as_str().expect("content, or where it is");
        let reply = server.ask("GET", url, Some(&app.token), None).ok()?;
        match reply.status {
            200 => reply.message.body,
            // The claim is over, and the app holds newer content: what the worker says is refused.
            401 | 403 | 404 | 409 | 410 => Vec::new(),
            _ => return None,
        }
    };
    let blob = Oid::hash_object(ObjectType::Blob, &content).expect("hashed").to_string();
    let mode = match file["mode"].as_str().expect("a mode") {
        // Git itself shows the old mode so.
        "100664" => "100644",
        mode => mode,
    };
    Some(Some((mode.to_owned(), blob)))
}
