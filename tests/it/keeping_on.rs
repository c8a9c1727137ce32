//! Stories of `tidings watch`, the real binary, on what it kept and on who leaves it.

use std::{
    io::{BufRead, BufReader, Read},
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command.current_dir(self.folder.path()).args(["watch", "--once", "--json", "--data-dir"]);
        command.arg(self.folder.path().join("data")).arg(self.repository.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What one run prints, as (type, path).
    fn run(&self) -> Vec<(String, String)> {
        let output = finish(self.command().spawn().expect("the binary starts"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).expect("text");
        lines.lines().map(shown).collect()
    }
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
    assert!(finish(child).status.success());
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
