//! Stories of `tidings watch`, the real binary, on what it kept and on who leaves it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::repository::Repository;

/// No command of these stories takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

struct Kept {
    repository: Repository,
    folder: tempfile::TempDir,
}

impl Kept {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { repository: Repository::create(&folder.path().join("r.git")), folder }
    }

    fn command(&self) -> Command {
        self.command_in(self.folder.path(), self.repository.path())
    }

    /// The command in a working directory, with the path of a repository as it is typed there.
    fn command_in(&self, place: &Path, typed: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command.current_dir(place).args(["watch", "--once", "--json", "--data-dir"]);
        command.arg(self.folder.path().join("data")).arg(typed);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What one run prints, as (type, path).
    fn run(&self) -> Vec<(String, String)> {
        printed(self.command())
    }
}

/// What a command prints, as (type, path).
fn printed(mut command: Command) -> Vec<(String, String)> {
    let output = finish(command.spawn().expect("the binary starts"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().map(shown).collect()
}

fn shown(line: &str) -> (String, String) {
    let body: Value = serde_json::from_str(line).expect("a body");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&body["event"]["type"]), text(&body["file"]["path"]))
}

/// Waits for the end; a command that hangs is killed and fails here.
fn finish(mut child: Child) -> Output {
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().expect("killable");
            child.wait().expect("its end");
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let (stdout, stderr) = (stdout.join().expect("no panic"), stderr.join().expect("no panic"));
    let Some(status) = status else { panic!("it did not end: {}", String::from_utf8_lossy(&stderr)) };
    Output { status, stdout, stderr }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.map(|mut pipe| pipe.read_to_end(&mut bytes)).transpose().expect("readable");
        bytes
    })
}

fn created(path: &str) -> (String, String) {
    ("file.created".to_owned(), path.to_owned())
}

#[test]
fn a_later_run_takes_what_was_committed_since() {
    let kept = Kept::new();
    kept.repository.commit("main", &[("a", Some(("100644", b"1")))]);
    assert_eq!(kept.run(), [created("a")]);
    kept.repository.commit("main", &[("b", Some(("100644", b"2")))]);
    assert_eq!(kept.run(), [created("b")]);
    assert_eq!(kept.run(), []);
}

#[test]
fn a_folder_is_one_watch_in_every_spelling_and_another_folder_is_another_watch() {
    let kept = Kept::new();
    let root = kept.folder.path();
    kept.repository.commit("main", &[("a", Some(("100644", b"1")))]);
    fs::create_dir_all(root.join("x/deep")).expect("made");
    symlink("x/deep", root.join("link")).expect("made");
    let other = Repository::create(&root.join("x/r.git"));
    other.commit("main", &[("b", Some(("100644", b"1")))]);
    let run = |place: &str, typed: &str| printed(kept.command_in(&root.join(place), Path::new(typed)));
    assert_eq!(run("", "r.git"), [created("a")]);
    for typed in ["./r.git", "r.git/", "x/../r.git", "./x/deep/../../r.git"] {
        assert_eq!(run("", typed), [], "{typed}");
    }
    assert_eq!(run("x", "../r.git"), []);
    assert_eq!(run("x", "r.git"), [created("b")], "the same word names another folder here");
    other.commit("main", &[("c", Some(("100644", b"1")))]);
    assert_eq!(run("", "link/../r.git"), [created("c")], "the parent of the folder that the link names");
}

#[test]
fn a_held_commit_that_is_obtainable_nowhere_ends_in_one_complete_resync() {
    let kept = Kept::new();
    kept.repository.commit("main", &[("a", Some(("100644", b"1")))]);
    assert_eq!(kept.run(), [created("a")]);
    kept.repository.git(["update-ref", "-d", "refs/heads/main"]);
    kept.repository.git(["reflog", "expire", "--expire=now", "--all"]);
    kept.repository.git(["gc", "--quiet", "--prune=now"]);
    kept.repository.commit("main", &[("b", Some(("100644", b"2")))]);
    assert_eq!(kept.run(), [created("b")]);
}

#[test]
fn a_reader_that_leaves_ends_the_command_and_the_next_one_gets_the_rest() {
    let kept = Kept::new();
    let names: Vec<String> = (0..300).map(|number| format!("f{number:03}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), Some(("100644", &b"x"[..])))).collect();
    kept.repository.commit("main", &files);
    let mut child = kept.command().spawn().expect("the binary starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut first = String::new();
    output.read_line(&mut first).expect("a line");
    drop(output);
    let ended = finish(child);
    assert_eq!(ended.status.code(), Some(141), "as of a program that a closed pipe ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!said.contains("WARN") && !said.contains("standard output"), "a closed pipe is no fault: {said}");
    let mut seen: Vec<_> = kept.run().into_iter().map(|(_, path)| path).collect();
    seen.push(shown(&first).1);
    seen.sort();
    seen.dedup();
    // What stood in the pipe when the reader left was acknowledged; nothing else is lacking.
    assert!(seen.contains(&names[299]) && seen.len() > 100, "{} of 300", seen.len());
}

#[test]
fn a_head_that_names_no_branch_is_said() {
    let kept = Kept::new();
    let commit = kept.repository.commit("main", &[("a", Some(("100644", b"1")))]);
    kept.repository.git(["update-ref", "--no-deref", "HEAD", &commit.to_string()]);
    let output = finish(kept.command().spawn().expect("the binary starts"));
    assert_eq!(output.status.code(), Some(65));
    let reason = String::from_utf8_lossy(&output.stderr);
    assert!(reason.contains("--branch"), "{reason}");
}

#[test]
fn a_kept_state_is_not_sent_to_another_receiver_in_silence() {
    let kept = Kept::new();
    kept.repository.commit("main", &[("a", Some(("100644", b"1")))]);
    kept.run();
    let elsewhere =
        kept.command().args(["--to", "https://elsewhere.example"]).spawn().expect("the binary starts");
    let output = finish(elsewhere);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("--data-dir"), "{text}");
}
