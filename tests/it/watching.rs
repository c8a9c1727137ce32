//! `tidings watch`: the whole system in one command.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::Stdio,
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{database::change_below, patience::eventually, project::Project, server::bare_command};

/// How long a line may take.
const LINE: Duration = Duration::from_secs(60);

#[test]
fn watching_once_prints_every_file_as_its_wire_body_and_ends() {
    let project = Project::with(&[("README.md", "hello\n"), ("docs/a b.md", "naïve"), ("empty", "")]);
    project.write("image.bin", &[0, 159, 146, 150]);
    project.set_executable("docs/a b.md", true);
    let head = project.commit("more");
    let home = TempDir::new().expect("a folder");

    let mut command = bare_command(home.path());
    let output =
        command.arg("watch").arg(project.path()).args(["--json", "--once"]).output().expect("it ran");

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bodies: Vec<Value> = lines(&output.stdout);
    let printed: BTreeMap<String, String> =
        bodies.iter().map(|body| (text(&body["file"]["path"]), text(&body["file"]["sha"]))).collect();
    let tree = project.tree(&head);
    let expected: BTreeMap<String, String> = tree
        .iter()
        .map(|(path, facts)| (String::from_utf8(path.clone()).expect("text"), facts.sha.clone()))
        .collect();
    assert_eq!(printed, expected);
    assert!(bodies.iter().all(|body| body["event"]["type"] == "file.created" && body["commit_sha"] == head));
}

#[test]
fn watching_prints_each_commits_changes_until_it_is_told_to_stop() {
    let project = Project::with(&[("kept", "1"), ("changed", "1"), ("removed", "1")]);
    let home = TempDir::new().expect("a folder");
    let mut command = bare_command(home.path());
    command.arg("watch").arg(project.path()).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let (sender, printed) = mpsc::channel();
    let reader = BufReader::new(child.stdout.take().expect("piped"));
    thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let next = || {
        let line = printed.recv_timeout(LINE).expect("a line in time");
        let body: Value = serde_json::from_str(&line).expect("a body");
        format!("{} {}", text(&body["event"]["type"]), text(&body["file"]["path"]))
    };

    assert_eq!(
        [next(), next(), next()],
        ["file.created changed", "file.created kept", "file.created removed"]
    );
    project.write("changed", b"2");
    project.write("new/file", b"2");
    project.remove("removed");
    project.commit("three changes");
    assert_eq!(
        [next(), next(), next()],
        ["file.deleted removed", "file.created new/file", "file.updated changed"]
    );
    project.write("kept", b"3");
    project.commit("one more");
    assert_eq!(next(), "file.updated kept");

    kill_process(Pid::from_child(&child), Signal::TERM).expect("sent");
    let status = eventually("end of watching", LINE, || child.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
}

#[test]
fn people_see_a_readable_line_for_each_change() {
    let project = Project::with(&[("docs/guide.md", "hello")]);
    let home = TempDir::new().expect("a folder");

    let output =
        bare_command(home.path()).arg("watch").arg(project.path()).arg("--once").output().expect("it ran");

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(printed.lines().filter(|line| line.contains("docs/guide.md")).count(), 1, "{printed}");
}

#[test]
fn watching_what_is_no_repository_fails_with_a_reason_and_prints_nothing() {
    let home = TempDir::new().expect("a folder");

    let output = bare_command(home.path()).args(["watch", "nowhere", "--once"]).output().expect("it ran");

    assert!(!output.status.success() && output.stdout.is_empty());
    let reason = String::from_utf8(output.stderr).expect("text");
    assert!(reason.contains("nowhere"), "{reason}");
    assert!(!reason.contains("panicked"), "{reason}");
}

#[test]
fn a_repository_without_commits_is_told_and_is_no_failure() {
    let project = Project::new();
    let home = TempDir::new().expect("a folder");

    let output =
        bare_command(home.path()).arg("watch").arg(project.path()).arg("--once").output().expect("it ran");

    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(said.contains("has no commits yet; there is nothing to send"), "{said}");
}

#[test]
fn watching_once_fails_if_its_branch_is_gone() {
    let project = Project::with(&[("a", "1")]);
    let current = project.git(["symbolic-ref", "--short", "HEAD"]);
    let current = current.trim();
    project.git(["branch", "other"]);
    let home = TempDir::new().expect("a folder");
    let once = || {
        let mut command = bare_command(home.path());
        command.arg("watch").arg(project.path()).args(["--once", "--data-dir", "data"]);
        command.output().expect("it ran")
    };
    let first = once();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    for (branch, there) in [(current, "its only branch is other"), ("other", "it has no branch yet")] {
        project.git(["update-ref", "-d", &format!("refs/heads/{branch}")]);
        let output = once();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{said}");
        assert!(said.contains(&format!("HEAD names {current}, which does not exist")), "{said}");
        assert!(said.contains(there), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn watching_once_fails_with_the_reason_if_nothing_can_be_printed() {
    let project = Project::with(&[("a", "1")]);
    let home = TempDir::new().expect("a folder");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a device of Linux");
    let mut command = bare_command(home.path());
    let output =
        command.arg("watch").arg(project.path()).arg("--once").stdout(full).output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output cannot be written: No space left"), "{said}");
}

#[test]
fn watching_once_ends_with_a_reason_if_the_receiver_takes_nothing() {
    let project = Project::with(&[("a", "1")]);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let answering = |status: &'static str| {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        thread::spawn(move || {
            for stream in socket.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = [0; 4096];
                drop(stream.read(&mut head));
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        address
    };
    for (address, said) in
        [(nobody, "onnection refused"), (answering("404 Not Found"), "404"), (answering("500 Oh"), "500")]
    {
        let home = TempDir::new().expect("a folder");
        let mut command = bare_command(home.path());
        command.arg("watch").arg(project.path()).args(["--once", "--to", &format!("http://{address}")]);
        let output = command.output().expect("it ended");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{text}");
        assert!(text.contains("did not take change 1 in 5 tries") && text.contains(said), "{text}");
    }
}

#[test]
fn globs_that_match_no_path_are_told() {
    let project = Project::with(&[("a.md", "1")]);
    let home = TempDir::new().expect("a folder");

    let mut command = bare_command(home.path());
    let output = command.arg("watch").arg(project.path()).args(["--once", "--include", "*.rs"]).output();

    let output = output.expect("it ran");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(said.contains("nothing was sent: no path matches --include and --exclude"), "{said}");
}

#[test]
fn other_globs_for_a_kept_watch_are_told_before_everything_comes_anew() {
    let project = Project::with(&[("a.md", "1"), ("b.txt", "1")]);
    let home = TempDir::new().expect("a folder");
    let watch = |glob: &str| {
        let mut command = bare_command(home.path());
        command.arg("watch").arg(project.path()).args(["--once", "--data-dir", "kept", "--include", glob]);
        let output = command.output().expect("it ran");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{said}");
        (String::from_utf8(output.stdout).expect("text"), said)
    };
    let (printed, said) = watch("*.md");
    assert!(printed.contains("a.md") && !said.contains("other globs"), "{printed} {said}");
    let (printed, said) = watch("*.md");
    assert!(printed.is_empty() && !said.contains("other globs"), "it goes on: {printed} {said}");
    assert!(said.contains("nothing was sent: there is nothing new"), "{said}");
    let (printed, said) = watch("*.txt");
    assert!(printed.contains("b.txt"), "{printed}");
    assert!(said.contains("with other globs: every file that matches now is delivered again"), "{said}");
}

#[test]
fn a_kept_watch_of_the_version_before_goes_on_printing() {
    let project = Project::with(&[("a.md", "1")]);
    let home = TempDir::new().expect("a folder");
    let watch = || {
        let mut command = bare_command(home.path());
        command.arg("watch").arg(project.path()).args(["--once", "--data-dir", "kept"]);
        let output = command.output().expect("it ran");
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(watch().contains("a.md"));
    // The version before kept a made-up address for the app that prints.
    change_below(&home.path().join("kept"), "update app set base_url = 'http://terminal.invalid'", &[]);
    project.write("b.md", b"2");
    project.commit("more");
    let printed = watch();
    assert!(printed.contains("b.md") && !printed.contains("a.md"), "it goes on: {printed}");
}

fn lines(output: &[u8]) -> Vec<Value> {
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a body a line")).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
