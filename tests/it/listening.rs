//! `tidings listen --mirror`, fed by a real server: the folder is the tree, whatever is killed.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    api::App,
    churn::Churn,
    dice::Dice,
    patience::{SOON, eventually},
    project::{Project, sha256},
    server::{Server, bare_command},
    subscriber::{KEY, Subscriber},
};

/// A listener that keeps a folder.
pub(crate) struct Listening {
    child: Child,
    pub(crate) address: String,
}

impl Listening {
    /// Listens, its folder is `copy` in `home`.
    pub(crate) fn start(home: &Path, listen: &str) -> Self {
        let mut command: Command = bare_command(home);
        command.args(["listen", "--mirror", "copy", "--listen", listen]).env("TIDINGS_SECRET", KEY);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let stderr = child.stderr.as_mut().expect("piped");
        BufReader::new(stderr).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit("http://").next().expect("an address").to_owned();
        Self { child, address }
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_folder_is_the_tree_over_kills_of_both_ends() {
    let mut dice = Dice::thrown("listening");
    let home = TempDir::new().expect("a folder");
    let mut listening = Listening::start(home.path(), "127.0.0.1:0");
    let address = listening.address.clone();
    let mut server = Server::start();
    let unused = Subscriber::start();
    let app = App::onboard_with(&server, &unused, &json!({ "base_url": format!("http://{address}") }));
    let project = Project::new();
    let mut churn = Churn::begin(&project, 80);
    let id = app.watch(&server, &project);

    for _ in 0..8 {
        churn.commit(&project, &mut dice);
        std::thread::sleep(dice.up_to(std::time::Duration::from_millis(300)));
        if dice.one_in(2) {
            server.kill();
            server.run();
        } else {
            listening.kill();
            listening = Listening::start(home.path(), &address);
        }
    }
    project.write("large.bin", &dice.bytes(1_500_000));
    let head = project.commit("the last one");
    app.wait_until_held(&server, &id, &head);

    wait_for_folder(home.path(), &project, &head);
}

/// Waits until the folder of a listener is the tree of a commit.
pub(crate) fn wait_for_folder(home: &Path, project: &Project, commit: &str) {
    let expected: BTreeMap<PathBuf, String> = project
        .tree(commit)
        .into_iter()
        .map(|(path, facts)| (PathBuf::from(String::from_utf8(path).expect("text")), facts.sha))
        .collect();
    let copy = home.join("copy");
    eventually("folder that is the tree", SOON, || (files(&copy, &copy) == expected).then_some(()));
}

fn files(root: &Path, folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
        let path = entry.path();
        if path.file_name().is_some_and(|name| name == ".tidings-mirror") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(root, &path));
        } else {
            let inside = path.strip_prefix(root).expect("inside").to_owned();
            match fs::read(&path) {
                // It was taken away meanwhile: a listener that waits for a folder looks again.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                content => drop(found.insert(inside, sha256(&content.expect("it can be read")))),
            }
        }
    }
    found
}

#[test]
fn the_event_in_the_readme_verifies_and_an_altered_one_does_not() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("a README");
    let block = |language: &str| {
        let begin = format!("```{language}\n");
        let rest = readme.split(begin.as_str()).nth(1).expect("a block");
        rest.split("```").next().expect("an end").to_owned()
    };
    let (headers, body) = (block("text"), block("json").trim_end().to_owned());
    let home = TempDir::new().expect("a folder");
    fs::write(home.path().join("headers.txt"), headers).expect("written");
    let verifies = |body: &str| {
        fs::write(home.path().join("body.json"), body).expect("written");
        let mut command = bare_command(home.path());
        command.args(["verify", "--secret", "0123456789abcdef", "--headers-file", "headers.txt"]);
        command.args(["--ignore-age", "body.json"]).output().expect("it ran").status.success()
    };

    assert!(verifies(&body));
    assert!(!verifies(&body.replacen("hello", "hallo", 1)));
}
