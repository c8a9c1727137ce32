//! `tidings watch --exec`: a program of the user runs for rounds or for changes, without any server.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    patience::{SOON, eventually},
    project::Project,
    server::bare_command,
};

/// A command that does not outlive its story.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _killed = self.0.kill();
        drop(self.0.wait());
    }
}

fn watch(home: &TempDir, project: &Project, exec: &str, more: &[&str]) -> Command {
    let mut command = bare_command(home.path());
    command.arg("watch").arg(project.path()).args(["--exec", exec]).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The lines of a file that programs append to.
fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn wait_for_lines(path: &Path, count: usize) -> Vec<String> {
    eventually("lines", SOON, || {
        let lines = lines(path);
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_program_runs_once_for_each_round_with_the_list_of_its_changes() {
    let project = Project::with(&[("a", "1"), ("b c", "2")]);
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let seen = out.path().join("seen");
    let exec = format!(
        "list=$(cat); {{ echo \"run $TIDINGS_COMMIT $TIDINGS_CHANGES\"; echo \"$list\"; }} >> {}",
        seen.display()
    );
    let _watching = Watching(watch(&home, &project, &exec, &[]).spawn().expect("it starts"));
    let first = wait_for_lines(&seen, 3);
    assert_eq!(first[0], format!("run {} 2", project.head()));
    let paths: Vec<String> = first[1..].iter().map(|line| listed(line)).collect();
    assert_eq!(paths, ["create a", "create b c"]);
    project.write("a", b"3");
    project.remove("b c");
    let head = project.commit("more");
    let second = wait_for_lines(&seen, 6);
    assert_eq!(second[3], format!("run {head} 2"));
    assert_eq!([listed(&second[4]), listed(&second[5])], ["delete b c", "update a"]);
}

fn listed(line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect("JSON");
    format!("{} {}", line["operation"].as_str().expect("a word"), line["path"].as_str().expect("a path"))
}

#[test]
fn a_program_runs_for_each_change_with_its_body() {
    let project = Project::with(&[("a", "1"), ("b", "2")]);
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let seen = out.path().join("seen");
    let exec = format!("{{ echo \"$TIDINGS_OPERATION\"; cat; echo; }} >> {}", seen.display());
    let output = watch(&home, &project, &exec, &["--per", "change", "--once"]).output().expect("it ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines(&seen);
    assert_eq!((lines.len(), lines[0].as_str()), (4, "create"));
    let body: Value = serde_json::from_str(&lines[1]).expect("a body");
    assert_eq!((&body["file"]["path"], &body["file"]["content"]), (&"a".into(), &"1".into()));
}

#[test]
fn a_program_that_fails_is_run_again_and_ends_a_command_that_runs_once() {
    let project = Project::with(&[("a", "1")]);
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let output = watch(&home, &project, "exit 3", &["--once"]).output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("the program exited with 3"), "{said}");
    let (seen, home) = (out.path().join("seen"), TempDir::new().expect("a folder"));
    let exec = format!("echo run >> {0}; test $(wc -l < {0}) -ge 2", seen.display());
    let _watching = Watching(watch(&home, &project, &exec, &[]).spawn().expect("it starts"));
    wait_for_lines(&seen, 2);
}

#[test]
fn a_command_that_is_told_to_end_ends_the_program_and_what_it_started() {
    let project = Project::with(&[("a", "1")]);
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let seen = out.path().join("seen");
    let exec = format!("sleep 600 & echo $! >> {}; wait", seen.display());
    let mut watching = Watching(watch(&home, &project, &exec, &[]).spawn().expect("it starts"));
    let child = wait_for_lines(&seen, 1)[0].parse().ok().and_then(Pid::from_raw).expect("a process");
    kill_process(Pid::from_child(&watching.0), Signal::INT).expect("sent");
    let status = eventually("end of watching", SOON, || watching.0.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    eventually("end of the program", Duration::from_secs(10), || {
        test_kill_process(child).is_err().then_some(())
    });
}
