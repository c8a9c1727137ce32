//! Repositories made with the git command line, with fixed authors and dates and without any
//! configuration of this machine.

use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tidings_entity::id::ObjectId;

/// Where git is. By a name alone and with a `PATH` of its own, each start of a process would copy the page tables of
/// the test process, which takes ten times as long.
static GIT: LazyLock<PathBuf> = LazyLock::new(|| {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&places).map(|place| place.join("git")).find(|git| git.is_file());
    found.unwrap_or_else(|| PathBuf::from("git"))
});

/// A git command that sees nothing of this machine.
pub(crate) fn git_command(directory: &Path) -> Command {
    let mut command = Command::new(&*GIT);
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.org")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.org")
        .stdin(Stdio::null());
    command
}

/// A bare repository on disk.
#[derive(Debug)]
pub(crate) struct Repository {
    path: PathBuf,
    ticks: AtomicU64,
}

/// One file of a commit: mode, path, content. `None` removes the path.
pub(crate) type File<'a> = (&'a str, Option<(&'a str, &'a [u8])>);

impl Repository {
    /// Makes an empty bare repository at `path` whose HEAD is `main`.
    pub(crate) fn create(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("a folder");
        let repository = Self { path: path.to_owned(), ticks: AtomicU64::new(1_700_000_000) };
        repository.git(["init", "--quiet", "--bare", "--initial-branch=main", "."]);
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs git in it and returns what it printed.
    pub(crate) fn git<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> String {
        self.git_with(arguments, b"")
    }

    /// The same with an input.
    pub(crate) fn git_with<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(
        &self,
        arguments: I,
        input: &[u8],
    ) -> String {
        String::from_utf8(self.git_bytes(arguments, input)).expect("git printed text").trim_end().to_owned()
    }

    /// The same, as bytes.
    pub(crate) fn git_bytes<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(
        &self,
        arguments: I,
        input: &[u8],
    ) -> Vec<u8> {
        let mut command = git_command(&self.path);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("git runs");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        writer.join().expect("no panic").expect("git reads its input");
        output.stdout
    }

    /// Sets a configuration key.
    pub(crate) fn config(&self, key: &str, value: &str) {
        self.git(["config", key, value]);
    }

    /// Moves all objects to another disk, which the repository names as its alternate.
    pub(crate) fn keep_objects_at(&self, disk: &Path) {
        let objects = self.path.join("objects");
        std::fs::rename(&objects, disk).expect("moved");
        for folder in ["info", "pack"] {
            std::fs::create_dir_all(objects.join(folder)).expect("a folder");
        }
        std::fs::write(objects.join("info/alternates"), format!("{}\n", disk.display())).expect("written");
    }

    /// Makes one commit on `branch` on top of `parents` (or of the branch), changing `files`.
    pub(crate) fn commit(&self, branch: &str, files: &[File<'_>]) -> ObjectId {
        self.commit_on(branch, &[&format!("refs/heads/{branch}")], files)
    }

    /// The same with parents of your choice; those that do not exist are left out.
    pub(crate) fn commit_on(&self, branch: &str, parents: &[&str], files: &[File<'_>]) -> ObjectId {
        let mut stream = self.commit_header(branch, parents);
        for (path, file) in files {
            stream.extend_from_slice(&change(path.as_bytes(), *file));
        }
        self.import(&stream);
        self.resolve(&format!("refs/heads/{branch}"))
    }

    fn commit_header(&self, branch: &str, parents: &[&str]) -> Vec<u8> {
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed);
        let message = format!("Commit {tick}\n\nBody.\n");
        let mut stream = format!(
            "commit refs/heads/{branch}\ncommitter Ada <ada@example.org> {tick} +0000\ndata {}\n{message}\n",
            message.len()
        );
        let known: Vec<_> = parents.iter().filter_map(|parent| self.find(parent)).collect();
        for (index, parent) in known.iter().enumerate() {
            stream.push_str(&format!("{} {parent}\n", if index == 0 { "from" } else { "merge" }));
        }
        stream.into_bytes()
    }

    /// Feeds a stream to `git fast-import`.
    pub(crate) fn import(&self, stream: &[u8]) {
        self.git_with(["fast-import", "--quiet", "--force"], stream);
    }

    /// `count` commits in a row on `branch`, each made by `files` (its number is given), in one go.
    pub(crate) fn commits(
        &self,
        branch: &str,
        count: usize,
        mut files: impl FnMut(usize) -> Vec<(Vec<u8>, Option<(&'static str, Vec<u8>)>)>,
    ) -> Vec<ObjectId> {
        let tip = format!("refs/heads/{branch}");
        let mut stream = Vec::new();
        for number in 0..count {
            let parents = [tip.as_str()];
            stream.extend_from_slice(&self.commit_header(branch, if number == 0 { &parents } else { &[] }));
            for (path, file) in files(number) {
                stream.extend_from_slice(&change(
                    &path,
                    file.as_ref().map(|(mode, data)| (*mode, data.as_slice())),
                ));
            }
        }
        self.import(&stream);
        let listed = self.git(["rev-list", "--first-parent", &format!("--max-count={count}"), &tip]);
        let mut commits: Vec<_> = listed.lines().map(|line| line.parse().expect("an id")).collect();
        commits.reverse();
        commits
    }

    pub(crate) fn find(&self, name: &str) -> Option<ObjectId> {
        let output = git_command(&self.path)
            .args(["rev-parse", "--verify", "--quiet", name])
            .output()
            .expect("git runs");
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    }

    pub(crate) fn resolve(&self, name: &str) -> ObjectId {
        self.find(name).expect("the name exists")
    }

    /// Writes an object as it is, however malformed.
    pub(crate) fn write_object(&self, kind: &str, data: &[u8]) -> ObjectId {
        let arguments = ["hash-object", "-t", kind, "-w", "--stdin", "--literally"];
        self.git_with(arguments, data).parse().expect("an id")
    }

    /// A commit of a tree that exists.
    pub(crate) fn commit_tree(&self, branch: &str, tree: ObjectId) -> ObjectId {
        let tree = tree.to_string();
        let raw = format!(
            "tree {tree}\nauthor Ada <a@b> 1700000000 +0000\ncommitter Ada <a@b> 1700000000 +0000\n\nx\n"
        );
        let commit = self.write_object("commit", raw.as_bytes());
        self.git(["update-ref", &format!("refs/heads/{branch}"), &commit.to_string()]);
        commit
    }

    /// Writes this many refs at once, all to `commit`.
    pub(crate) fn many_refs(&self, count: usize, commit: ObjectId) {
        let path = self.path.join("packed-refs");
        let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        for number in 0..count {
            text.push_str(&format!("{commit} refs/heads/many/{number:06}\n"));
        }
        std::fs::write(path, text).expect("the repository is writable");
    }
}

fn change(path: &[u8], file: Option<(&str, &[u8])>) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in path {
        match byte {
            b'"' | b'\\' => quoted.extend_from_slice(&[b'\\', *byte]),
            b'\n' => quoted.extend_from_slice(b"\\n"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'"');
    let mut stream = Vec::new();
    match file {
        None => {
            stream.extend_from_slice(b"D ");
            stream.extend_from_slice(&quoted);
        }
        Some(("160000", commit)) => {
            stream.extend_from_slice(b"M 160000 ");
            stream.extend_from_slice(commit);
            stream.push(b' ');
            stream.extend_from_slice(&quoted);
        }
        Some((mode, data)) => {
            stream.extend_from_slice(format!("M {mode} inline ").as_bytes());
            stream.extend_from_slice(&quoted);
            stream.extend_from_slice(format!("\ndata {}\n", data.len()).as_bytes());
            stream.extend_from_slice(data);
        }
    }
    stream.push(b'\n');
    stream
}
