//! Mistakes that people make with the real binary, and what works without any setting: each refusal names
//! the thing, the reason and the mend, and leaves everything as it was.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    listening::Listening,
    support::{
        api::App,
        git_host::GitHost,
        patience::{SOON, eventually},
        project::Project,
        server::{Server, bare_command},
        subscriber::{KEY, Subscriber},
    },
};

/// A command that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a command without any setting; its exit code and what it said on standard error.
fn said(home: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    ended(bare_command(home).args(arguments))
}

fn ended(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().expect("it ran");
    let text = String::from_utf8(stderr).expect("text");
    assert!(!text.contains("panicked"), "{text}");
    (status.code(), text)
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn tidings_alone_prints_its_verbs() {
    let home = TempDir::new().expect("a folder");
    let (code, text) = said(home.path(), &[]);
    assert_eq!(code, Some(64), "{text}");
    assert_says(&text, &["Usage: tidings", "serve", "watch", "dead-letter", "doctor"]);
    let (code, text) = said(home.path(), &["app"]);
    assert_eq!(code, Some(64), "{text}");
    assert_says(&text, &["Usage: tidings app", "create", "rotate-key"]);
    let (_, text) = said(home.path(), &["wach"]);
    assert_says(&text, &["a similar subcommand exists: 'watch'", "tidings --help"]);
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn output_that_nobody_reads_ends_the_command_quietly() {
    let home = TempDir::new().expect("a folder");
    for arguments in [&["man"][..], &["openapi"], &["completions", "bash"], &["check-config"], &["--help"]] {
        let mut command = bare_command(home.path());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = command.stdout(writer).spawn().expect("it starts");
        // The command holds the other end as long as this value lives.
        drop(command);
        let mut text = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
        let status = child.wait().expect("it ended");
        assert_eq!((status.code(), text.as_str()), (Some(141), ""), "{arguments:?}");
    }
}

#[test]
fn a_server_at_a_busy_address_names_the_setting_and_makes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (setting, variable) in
        [("server.listen", "TIDINGS__SERVER__LISTEN"), ("server.ops_listen", "TIDINGS__SERVER__OPS_LISTEN")]
    {
        let server = Server::prepare();
        let mut command = server.command(&["serve"]);
        let (code, text) = ended(command.env(variable, &address));
        assert_eq!(code, Some(69), "{text}");
        assert_says(&text, &[&address, "in use by another process", setting, variable]);
        assert!(!server.data().exists(), "a refused start made something");
    }
}

#[test]
fn a_busy_data_folder_is_told_with_what_names_another() {
    let server = Server::start();
    let (_, text) = ended(&mut server.command(&["serve"]));
    assert_says(&text, &["in use by another process", "data_dir", "TIDINGS__DATA_DIR"]);
    assert!(!text.contains("--data-dir"), "serve has no such flag: {text}");
    let project = Project::with(&[("a", "1")]);
    let (project, data) = (project.path(), server.data());
    let mut command = server.command(&["watch", "--once"]);
    let (_, text) = ended(command.arg(project).arg("--data-dir").arg(data));
    assert_says(&text, &["in use by another process", "name another directory with --data-dir"]);
}

#[test]
fn a_branch_that_is_not_there_is_told_with_those_that_are() {
    let project = Project::with(&[("a", "1")]);
    let home = TempDir::new().expect("a folder");
    let current = project.git(["symbolic-ref", "--short", "HEAD"]);
    let path = project.path();
    let mut command = bare_command(home.path());
    let (code, text) = ended(command.arg("watch").arg(&path).args(["--once", "--branch", "nope"]));
    assert_eq!(code, Some(65), "{text}");
    assert_says(&text, &["has no branch \"nope\"", &format!("its only branch is {}", current.trim())]);
    for number in 0..12 {
        project.git(["branch", &format!("b{number:02}")]);
    }
    let (_, text) = ended(command.arg("--json"));
    assert_says(&text, &["its branches are b00, b01", "b09 and 3 more"]);

    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let body = json!({ "url": project.url(), "branch": "nope" });
    let problem = app.ask(&server, "POST", "/api/repositories", Some(&body)).json();
    assert_says(
        problem["error"].as_str().expect("a text"),
        &["branch: the repository has no such branch", "b09 and 3 more"],
    );
}

#[test]
fn a_receiver_on_this_machine_is_reached_without_any_setting() {
    let project = Project::with(&[("a", "1"), ("b/c", "2")]);
    let subscriber = Subscriber::start();
    let home = TempDir::new().expect("a folder");
    fs::write(home.path().join("key"), KEY).expect("written");
    let port = subscriber.address().port();
    for url in [subscriber.url(), format!("http://localhost:{port}")] {
        let before = subscriber.applied().len();
        let mut command = bare_command(home.path());
        command.arg("watch").arg(project.path()).args(["--to", &url, "--secret-file", "key", "--once"]);
        let (code, text) = ended(&mut command);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(subscriber.applied().len(), before + 2, "{url}: {text}");
    }
    for (url, parts) in [
        ("http://10.0.0.1:9001", &["plain http is refused", "egress.allow_http"][..]),
        (
            "https://10.0.0.1:9001",
            &["10.0.0.1 is a private address", "egress.allow", "add 10.0.0.1 to allow"],
        ),
        ("https://10.0.0.1:25", &["port 25 is never reached"]),
        ("127.0.0.1:9001", &["write http://127.0.0.1:9001"]),
    ] {
        let mut command = bare_command(home.path());
        let (code, text) = ended(command.arg("watch").arg(project.path()).args(["--to", url, "--once"]));
        assert_eq!(code, Some(64), "{text}");
        assert_says(&text, parts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_host_on_this_machine_is_watched_without_any_setting() {
    let host = GitHost::start().await;
    let repository = host.repository("o/r.git");
    repository.commit("main", &[("a.md", Some(("100644", b"hello")))]);
    let url = host.url("o/r.git").to_string();
    let ran = tokio::task::spawn_blocking(move || {
        let home = TempDir::new().expect("a folder");
        bare_command(home.path()).args(["watch", &url, "--once"]).output().expect("it ran")
    });
    let output = ran.await.expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_says(&String::from_utf8_lossy(&output.stdout), &["a.md"]);
}

#[test]
fn a_listener_mirrors_into_no_folder_with_other_files() {
    let home = TempDir::new().expect("a folder");
    let copy = home.path().join("copy");
    fs::create_dir(&copy).expect("made");
    fs::write(copy.join("README.md"), "mine").expect("written");
    let listen = |more: &[&str]| {
        let mut command = bare_command(home.path());
        command.args(["listen", "--listen", "0", "--mirror", "copy"]).args(more);
        command.env("TIDINGS_SECRET", KEY).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let mut child = Running(listen(&[]).spawn().expect("it starts"));
    let status = eventually("refused start", SOON, || child.0.try_wait().expect("a child"));
    let mut text = String::new();
    child.0.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
    assert_eq!(status.code(), Some(73), "{text}");
    assert_says(&text, &["copy", "other files (README.md)", "--mirror-into-existing"]);
    let child = Running(listen(&["--mirror-into-existing"]).spawn().expect("it starts"));
    let state = copy.join(".tidings-mirror/journal");
    eventually("mirror that is open", SOON, || state.exists().then_some(()));
    drop(child);
    assert_eq!(fs::read_to_string(copy.join("README.md")).expect("read"), "mine");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (code, text) = ended(bare_command(home.path()).args(["listen", "--listen", &port, "--secret", KEY]));
    assert_eq!(code, Some(69), "{text}");
    assert_says(&text, &[&format!("127.0.0.1:{port}"), "in use", "--listen"]);
}

#[test]
fn two_watches_of_an_app_are_not_mixed_in_one_mirror() {
    let home = TempDir::new().expect("a folder");
    let listening = Listening::start(home.path(), "127.0.0.1:0");
    let url = format!("http://{}", listening.address);
    let server = Server::start();
    let unused = Subscriber::start();
    let app = App::onboard_with(&server, &unused, &json!({ "base_url": url }));
    let (first, second) =
        (Project::with(&[("README.md", "first")]), Project::with(&[("README.md", "second")]));
    let id = app.watch(&server, &first);
    app.wait_until_held(&server, &id, &first.head());
    let other = app.watch(&server, &second);
    eventually("refused try of the second watch", SOON, || {
        let lists = ["/api/deliveries?status=pending", "/api/deliveries?status=failed", "/api/dead-letters"];
        let tried: String =
            lists.iter().map(|list| app.ask(&server, "GET", list, None).json().to_string()).collect();
        (tried.contains(&other) && tried.contains("404")).then_some(())
    });
    let copy = fs::read_to_string(home.path().join("copy/README.md")).expect("read");
    assert_eq!(copy, "first");
}
