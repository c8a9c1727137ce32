//! `tidings watch --exec`: a program of the user runs for rounds or for changes, without any server.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
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

/// The lines of a file that programs append to, without one that is being written.
fn lines_of(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(str::to_owned).collect()
}

fn wait_for_lines(path: &Path, count: usize) -> Vec<String> {
    eventually("lines", SOON, || {
        let lines = lines_of(path);
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
    let exec = format!("{{ echo \"$TIDINGS_OPERATION $TIDINGS_PATH\"; cat; echo; }} >> {}", seen.display());
    let output = watch(&home, &project, &exec, &["--per", "change", "--once"]).output().expect("it ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines_of(&seen);
    assert_eq!((lines.len(), lines[0].as_str()), (4, "create a"));
    let body: Value = serde_json::from_str(&lines[1]).expect("a body");
    assert_eq!((&body["file"]["path"], &body["file"]["content"]), (&"a".into(), &"1".into()));
}

#[test]
fn a_program_that_fails_is_run_again_and_ends_a_command_that_runs_once() {
    let project = Project::with(&[("a", "1")]);
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let output = watch(&home, &project, "exit 3", &["--once"]).output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = "the program \"exit 3\" exited with code 3 at round ";
    assert!(!output.status.success() && said.contains(told), "{said}");
    assert!(said.contains("of refs/heads/main (commit ") && said.contains("ends here"), "{said}");
    let (seen, home) = (out.path().join("seen"), TempDir::new().expect("a folder"));
    let exec = format!("echo run >> {0}; test $(wc -l < {0}) -ge 2", seen.display());
    let _watching = Watching(watch(&home, &project, &exec, &[]).spawn().expect("it starts"));
    wait_for_lines(&seen, 2);
    let home = TempDir::new().expect("a folder");
    let output = watch(&home, &project, "kill -9 $$", &["--per", "change", "--once"]).output();
    let said = String::from_utf8_lossy(&output.expect("it ran").stderr).into_owned();
    assert!(said.contains("was ended by signal 9 at the create of a; "), "{said}");
}

#[test]
fn a_change_or_a_round_that_the_program_gives_up_is_told_at_the_end_and_the_others_are_done() {
    let project = Project::with(&[("f1", "1"), ("f2", "2"), ("f3", "3")]);
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let (seen, kept) = (out.path().join("seen"), out.path().join("kept"));
    let exec =
        format!("echo $TIDINGS_PATH >> {}; if test $TIDINGS_PATH = f1; then exit 100; fi", seen.display());
    let kept = kept.to_str().expect("text");
    for (run, added) in [("the first run", 3), ("the next run", 0)] {
        let before = lines_of(&seen).len();
        let output = watch(&home, &project, &exec, &["--per", "change", "--once", "--data-dir", kept]);
        let (code, said) = ended(output);
        assert_eq!((code, lines_of(&seen).len() - before), (Some(65), added), "{run}: {said}");
        assert!(said.contains("1 change was not taken: f1"), "{run}: {said}");
    }
    let (seen, kept) = (out.path().join("rounds"), out.path().join("kept rounds"));
    let exec = format!("echo $TIDINGS_ROUND >> {}; exit 100", seen.display());
    let kept = kept.to_str().expect("text");
    for run in ["the first run", "the next run"] {
        let (code, said) = ended(watch(&home, &project, &exec, &["--once", "--data-dir", kept]));
        assert_eq!((code, lines_of(&seen).len()), (Some(65), 1), "{run}: {said}");
        assert!(
            said.contains("of refs/heads/main") && said.contains("not run again for it"),
            "{run}: {said}"
        );
    }
}

/// The exit code of a command, and its messages.
#[test]
fn branches_of_a_pattern_take_turns_at_the_program() {
    let project = Project::with(&[("a", "1")]);
    project.git(["branch", "release/1"]);
    project.git(["branch", "release/2"]);
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let seen = out.path().join("seen");
    let exec = format!("sleep 0.3; echo $TIDINGS_BRANCH >> {}", seen.display());
    let watching = watch(&home, &project, &exec, &["--branch", "release/*"]).spawn();
    let _watching = Watching(watching.expect("it starts"));
    let mut lines = wait_for_lines(&seen, 2);
    lines.sort();
    assert_eq!(lines, ["refs/heads/release/1", "refs/heads/release/2"]);
}

#[test]
fn a_data_directory_of_two_repositories_serves_the_one_that_is_named() {
    let (first, second) = (Project::with(&[("a", "1")]), Project::with(&[("b", "1")]));
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let kept = out.path().join("kept");
    let run = |project: &Project, name: &str, more: &[&str]| {
        let seen = out.path().join(name);
        let exec = format!("echo $TIDINGS_REPOSITORY $TIDINGS_CHANGES >> {}", seen.display());
        let arguments = [&["--once", "--data-dir", kept.to_str().expect("text")], more].concat();
        let (code, said) = ended(watch(&home, project, &exec, &arguments));
        assert_eq!(code, Some(0), "{name}: {said}");
        lines_of(&seen)
    };
    let path = |project: &Project| project.path().display().to_string();
    assert_eq!(run(&first, "first", &[]), [format!("{} 1", path(&first))]);
    assert_eq!(run(&second, "second", &[]), [format!("{} 1", path(&second))]);
    for (text, file) in [("2", "c"), ("3", "d")] {
        first.write("a", text.as_bytes());
        first.write(file, b"new");
        first.commit(text);
    }
    second.write("b", b"2");
    second.commit("two");
    assert_eq!(run(&second, "second", &[])[1..], [format!("{} 1", path(&second))]);
    // Each commit, although the directory began with the net change.
    let each = run(&first, "first", &["--every"]);
    assert_eq!(each[1..], [format!("{} 2", path(&first)), format!("{} 2", path(&first))]);
}

fn ended(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("it ran");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_program_that_fails_is_named_with_its_exit_code_its_change_and_the_next_step() {
    let project = Project::with(&[("docs/a.md", "1")]);
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let told = out.path().join("told");
    let mut command = watch(&home, &project, "exit 7", &["--per", "change"]);
    command.stderr(fs::File::create(&told).expect("a file"));
    let _watching = Watching(command.spawn().expect("it starts"));
    let lines = wait_for_lines(&told, 3);
    let expected = "tidings: the program \"exit 7\" exited with code 7 at the create of docs/a.md; the program \
                    is run again for it, after a wait that grows with each try";
    assert!(lines.iter().all(|line| line == expected), "nothing else is said: {lines:?}");
}

#[test]
fn a_command_that_is_told_to_end_ends_the_program_and_delivers_its_round_at_the_next_start() {
    let project = Project::with(&[("a", "1")]);
    let (home, out) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let (seen, kept) = (out.path().join("seen"), out.path().join("kept"));
    let exec = format!("sleep 600 & echo $! $TIDINGS_ROUND >> {}; wait", seen.display());
    let more = ["--data-dir", kept.to_str().expect("text")];
    let mut watching = Watching(watch(&home, &project, &exec, &more).spawn().expect("it starts"));
    let first = wait_for_lines(&seen, 1).remove(0);
    let (child, round) = first.split_once(' ').expect("two words");
    let child = child.parse().ok().and_then(Pid::from_raw).expect("a process");
    kill_process(Pid::from_child(&watching.0), Signal::INT).expect("sent");
    let status = eventually("end of watching", SOON, || watching.0.try_wait().expect("a child"));
    assert!(status.success(), "{status}");
    eventually("end of the program", SOON, || test_kill_process(child).is_err().then_some(()));
    let mut said = String::new();
    watching.0.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        matches!(lines[..], [line] if line.ends_with(
            ": the round was interrupted; the next start delivers it again"
        )),
        "{said}"
    );
    let exec = format!("echo done $TIDINGS_ROUND >> {}", seen.display());
    let more = [&more[..], &["--once"]].concat();
    let output = watch(&home, &project, &exec, &more).output().expect("it ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines_of(&seen)[1..], [format!("done {round}")]);
}
