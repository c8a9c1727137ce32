//! A real repository, made with the real git, and its tree as git itself tells it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::repository::git_command;

/// What a file is, as far as a mirror knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileFacts {
    /// The mode in Git: `100644`, `100755` or `120000`.
    pub(crate) mode: String,
    /// SHA-256 of its content, in hexadecimal digits.
    pub(crate) sha: String,
}

/// Regular files by path bytes.
pub(crate) type Tree = BTreeMap<Vec<u8>, FileFacts>;

/// A repository with a work tree in a folder of its own.
pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    /// An empty one, on branch `main`.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let project = Self { folder };
        fs::create_dir(project.path()).expect("created");
        project.git(["init", "--quiet", "--initial-branch=main", "."]);
        project
    }

    /// One with these files in its first commit.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let project = Self::new();
        for (path, content) in files {
            project.write(path, content.as_bytes());
        }
        project.commit("first");
        project
    }

    /// The path of the working tree.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Its address as a `file://` URL.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// Makes the bare repository at `path` the same as this one: branches, tags, and which branch is
    /// the default one.
    pub(crate) fn push_to(&self, path: &Path) {
        let target = path.to_str().expect("a plain path");
        // First the name: git refuses to delete the branch that is the default one.
        let branch = self.git(["symbolic-ref", "HEAD"]);
        self.git(["--git-dir", target, "symbolic-ref", "HEAD", &branch]);
        let (branches, tags) = ("refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*");
        self.git(["push", "--quiet", "--force", "--prune", target, branches, tags]);
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn write(&self, path: impl AsRef<OsStr>, content: &[u8]) {
        let path = self.path().join(path.as_ref());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("folders");
        }
        fs::write(path, content).expect("written");
    }

    /// Writes a file whose name is these bytes.
    pub(crate) fn write_raw(&self, path: &[u8], content: &[u8]) {
        self.write(OsStr::from_bytes(path), content);
    }

    /// Removes a file or a folder.
    pub(crate) fn remove(&self, path: &str) {
        let path = self.path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("removed");
        } else {
            fs::remove_file(path).expect("removed");
        }
    }

    /// Makes a file executable or not.
    pub(crate) fn set_executable(&self, path: &str, executable: bool) {
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(self.path().join(path), fs::Permissions::from_mode(mode)).expect("set");
    }

    /// Commits everything and says which commit that is.
    pub(crate) fn commit(&self, subject: &str) -> String {
        self.git(["add", "--all"]);
        self.git(["commit", "--quiet", "--allow-empty", "--message", subject]);
        self.head()
    }

    /// The commit of `HEAD`.
    pub(crate) fn head(&self) -> String {
        self.git(["rev-parse", "HEAD"])
    }

    /// The regular files of a commit with their content's hash, as git tells them.
    pub(crate) fn tree(&self, commit: &str) -> Tree {
        let listed = self.output(["ls-tree", "-r", "-z", "--full-tree", commit]);
        let mut entries = Vec::new();
        for line in listed.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let tab = line.iter().position(|byte| *byte == b'\t').expect("a tab before the path");
            let facts = std::str::from_utf8(&line[..tab]).expect("plain facts");
            let mut words = facts.split(' ');
            let (mode, _, blob) = (words.next(), words.next(), words.next());
            let (mode, blob) = (mode.expect("a mode").to_owned(), blob.expect("a blob").to_owned());
            if matches!(mode.as_str(), "100644" | "100755" | "100664") {
                entries.push((line[tab + 1..].to_vec(), mode, blob));
            }
        }
        let hashes = self.hashes(entries.iter().map(|(_, _, blob)| blob.as_str()));
        entries
            .into_iter()
            .map(|(path, mode, blob)| (path, FileFacts { mode, sha: hashes[&blob].clone() }))
            .collect()
    }

    fn hashes<'a>(&self, blobs: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
        let mut child =
            self.command(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.as_mut().expect("git starts");
        let mut to = child.stdin.take().expect("piped");
        let mut from = BufReader::new(child.stdout.take().expect("piped"));
        let mut hashes = BTreeMap::new();
        for blob in blobs {
            if hashes.contains_key(blob) {
                continue;
            }
            writeln!(to, "{blob}").and_then(|()| to.flush()).expect("git listens");
            let mut head = String::new();
            from.read_line(&mut head).expect("git answers");
            let size: usize =
                head.trim().rsplit(' ').next().and_then(|size| size.parse().ok()).expect("a size");
            let mut content = vec![0; size + 1];
            from.read_exact(&mut content).expect("the content");
            hashes.insert(blob.to_owned(), sha256(&content[..size]));
        }
        drop(to);
        child.wait().expect("git ends");
        hashes
    }

    /// Runs git in the work tree and gives its output as text.
    pub(crate) fn git<const N: usize>(&self, arguments: [&str; N]) -> String {
        String::from_utf8(self.output(arguments)).expect("text").trim_end().to_owned()
    }

    fn output<const N: usize>(&self, arguments: [&str; N]) -> Vec<u8> {
        let output = self.command(arguments).output().expect("git starts");
        assert!(
            output.status.success(),
            "git {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    fn command<const N: usize>(&self, arguments: [&str; N]) -> Command {
        command(&self.path(), self.folder.path(), &arguments)
    }
}

fn command(folder: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = git_command(folder);
    command.env("HOME", home).args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"]).args(arguments);
    command
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}
