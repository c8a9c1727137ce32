//! `tidings watch --once` where something could not be taken: it says what, and its exit code is not 0.

use std::{fs, net::TcpListener, path::Path};

use tempfile::TempDir;

use crate::support::{
    model::Arrival,
    project::Project,
    server::bare_command,
    subscriber::{Answer, KEY, Subscriber},
};

/// Exit codes: what was taken is not all that there is, and somebody else could not do their part.
const NOT_ALL: i32 = 65;
const UNAVAILABLE: i32 = 69;

/// Runs `tidings watch --once` in a folder with these arguments and settings: the exit code, standard output,
/// and standard error.
fn once(
    home: &Path,
    repository: &Path,
    arguments: &[&str],
    settings: &[(&str, &str)],
) -> (i32, String, String) {
    let mut command = bare_command(home);
    command.arg("watch").arg(repository).arg("--once").args(arguments).envs(settings.iter().copied());
    let output = command.output().expect("it ran");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
}

#[test]
fn a_change_that_a_receiver_refuses_is_named() {
    let project = Project::with(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let (home, subscriber) = (TempDir::new().expect("a folder"), Subscriber::start());
    fs::write(home.path().join("key"), KEY).expect("written");
    subscriber.script(|arrival| match arrival {
        Arrival::Change(change) if change.path == b"b" => Answer::Refuse(422),
        _ => Answer::Accept,
    });
    let url = subscriber.url();
    let arguments = ["--to", url.as_str(), "--secret-file", "key"];
    let (code, _, said) = once(home.path(), &project.path(), &arguments, &[]);
    assert!([NOT_ALL, UNAVAILABLE].contains(&code), "{code}: {said}");
    assert!(said.contains("422"), "{said}");
}

#[test]
fn a_file_that_could_not_be_read_is_delivered_by_the_next_run() {
    let project = Project::with(&[("a", "1")]);
    let (home, kept) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let arguments = ["--json", "--data-dir", kept.path().to_str().expect("text")];
    let run = || once(home.path(), &project.path(), &arguments, &[]);
    assert_eq!(run().0, 0);
    project.write("late", b"its content");
    project.commit("late");
    let blob = project.git(["rev-parse", "HEAD:late"]);
    let object = project.path().join(".git/objects").join(&blob[..2]).join(&blob[2..]);
    let away = kept.path().join("away");
    fs::rename(&object, &away).expect("moved");
    let (code, printed, said) = run();
    assert_eq!((code, printed.as_str()), (NOT_ALL, ""), "{said}");
    fs::create_dir_all(object.parent().expect("a folder")).expect("a folder");
    fs::rename(&away, &object).expect("moved back");
    let (code, printed, said) = run();
    assert_eq!(code, 0, "{said}");
    assert!(printed.contains("\"late\""), "{printed}");
}

#[test]
fn a_clone_without_contents_is_no_success() {
    let project = Project::with(&[("a", "1"), ("b", "2")]);
    project.git(["config", "uploadpack.allowFilter", "true"]);
    let home = TempDir::new().expect("a folder");
    let partial = home.path().join("partial.git");
    let target = partial.to_str().expect("text");
    project.git(["clone", "--quiet", "--bare", "--filter=blob:none", &project.url(), target]);
    let (code, printed, said) = once(home.path(), &partial, &[], &[]);
    assert!([NOT_ALL, UNAVAILABLE].contains(&code), "{code}: {said}");
    assert!(printed.is_empty(), "{printed}");
    assert!(
        ["missing", "neither in the mirror nor at the Git host"].iter().any(|word| said.contains(word)),
        "{said}"
    );
}

#[test]
fn a_ref_that_cannot_be_read_is_named_and_all_others_are_taken() {
    let project = Project::with(&[("a", "1")]);
    for branch in ["release/1", "release/2"] {
        project.git(["branch", branch]);
    }
    fs::write(project.path().join(".git/refs/heads/release/2"), "").expect("damaged");
    let home = TempDir::new().expect("a folder");
    let pattern = ["--branch", "release/*", "--data-dir", "kept", "--json"];
    // The second run goes on with what the first one kept.
    for printed_files in [1, 0] {
        let (code, printed, said) = once(home.path(), &project.path(), &pattern, &[]);
        assert_eq!(code, NOT_ALL, "{said}");
        assert_eq!(printed.lines().count(), printed_files, "{printed}");
        assert!(said.contains("not everything was taken"), "{said}");
        assert!(said.contains("git update-ref -d refs/heads/release/2"), "{said}");
    }
    let (code, _, said) = once(home.path(), &project.path(), &["--branch", "release/2"], &[]);
    assert_eq!(code, NOT_ALL, "{said}");
    assert!(said.contains("is empty") && !said.contains("has no branch"), "{said}");
}

#[test]
fn refs_beyond_what_a_pattern_follows_are_counted() {
    let project = Project::with(&[("a", "1")]);
    for branch in ["release/1", "release/2", "release/3"] {
        project.git(["branch", branch]);
    }
    let home = TempDir::new().expect("a folder");
    let settings = [("TIDINGS__GIT__PATTERN_REFS_MAX", "2")];
    let (code, printed, said) =
        once(home.path(), &project.path(), &["--branch", "release/*", "--json"], &settings);
    assert_eq!(code, NOT_ALL, "{said}");
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(said.contains("1 of the refs that release/* matches are not followed"), "{said}");
}

#[test]
fn a_host_that_does_not_answer_is_named() {
    let home = TempDir::new().expect("a folder");
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let address = format!("http://{nobody}/o/r.git");
    let (code, printed, said) = once(home.path(), Path::new(&address), &[], &[]);
    assert_eq!(code, UNAVAILABLE, "{said}");
    assert!(printed.is_empty() && said.contains(&nobody.to_string()), "{said}");
}
