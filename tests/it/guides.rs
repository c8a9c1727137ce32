//! The guides in `docs/`: each command is run as it stands, each receiver gets real deliveries.

mod hosts;
mod payloads;
mod receiver;
mod receiving;
mod worker;
mod workers;

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::support::text_setting;

/// How long the commands of one page may take.
const PAGE: Duration = Duration::from_secs(400);
/// The addresses that the pages name.
const ADDRESSES: [&str; 2] = ["127.0.0.1:8080", "127.0.0.1:9000"];

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).expect("a page")
}

/// The blocks of a page with the words after their fence.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(words) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((words.to_owned(), body.join("\n") + "\n"));
        }
    }
    found
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn is_there(program: &str) -> bool {
    let path = text_setting("PATH").unwrap_or_default();
    path.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// A process group that ends with the story.
struct Group(Child);

impl Group {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        Self(command.process_group(0).spawn().expect("it starts"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        let _killed = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        drop(self.0.wait());
    }
}

/// All commands of a page as one script, on ports of its own.
fn script(page: &str, ports: [u16; 2]) -> String {
    let mut script = String::from("set -euo pipefail\n");
    for (words, body) in blocks(page) {
        match words.as_str() {
            "sh" | "sh setup" => script.push_str(&format!("{body}echo passed\n")),
            "sh background" => script.push_str(&format!("{{ {} ; }} &\n", body.trim_end())),
            _ => {}
        }
    }
    for (address, port) in ADDRESSES.iter().zip(ports) {
        script = script.replace(address, &format!("127.0.0.1:{port}"));
    }
    script
}

/// The pages whose commands are run.
const FOLLOWED: [&str; 9] = [
    "be-told.md",
    "getting-started.md",
    "indexing.md",
    "operating.md",
    "security.md",
    "upgrade.md",
    "hooks.md",
    "private-repositories.md",
    "github-app.md",
];

/// What stands in for what a page names and a story cannot have.
#[derive(Default)]
struct Scenery {
    /// Texts of the page, and what they become.
    instead: Vec<(String, String)>,
    /// Further settings, as variables.
    settings: Vec<(&'static str, String)>,
    /// Files in the home of the reader who follows the page.
    files: Vec<(&'static str, String)>,
}

fn follow(name: &str) {
    follow_in(name, &Scenery::default());
}

fn follow_in(name: &str, scenery: &Scenery) {
    for program in ["bash", "git", "curl", "openssl"] {
        if !is_there(program) {
            println!("skipped: there is no {program} on this machine");
            return;
        }
    }
    let home = TempDir::new().expect("a folder");
    let ports = [free_port(), free_port()];
    let bin = home.path().join("bin");
    fs::create_dir(&bin).expect("made");
    symlink(env!("CARGO_BIN_EXE_tidings"), bin.join("tidings")).expect("linked");
    let mut script = script(&page(name), ports);
    for (from, to) in &scenery.instead {
        assert!(script.contains(from.as_str()), "{name} has no {from}");
        script = script.replace(from.as_str(), to);
    }
    for (file, content) in &scenery.files {
        fs::write(home.path().join(file), content).expect("written");
    }
    assert!(script.lines().count() > 5, "{name} has no commands");
    let path = format!("{}:{}", bin.display(), text_setting("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(home.path()).env_clear();
    command.env("HOME", home.path()).env("PATH", path).env("TIDINGS__DATA_DIR", home.path().join("data"));
    command.env("TIDINGS__SERVER__LISTEN", format!("127.0.0.1:{}", ports[0]));
    command.env("TIDINGS__GIT__FREE_MIN_BYTES", "1");
    command.envs(scenery.settings.iter().map(|(name, value)| (*name, value)));
    let log = home.path().join("log");
    let mut running = Group::start(&mut command, &log);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let until = std::time::Instant::now() + PAGE;
    let status = loop {
        if let Some(status) = running.0.try_wait().expect("a child") {
            break status;
        }
        assert!(std::time::Instant::now() < until, "{name} hangs:\n{script}\n{}", said());
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{name}: {status}\n{script}\n{}", said());
}

#[test]
fn the_commands_for_getting_started_work_as_they_stand() {
    follow("getting-started.md");
}

#[test]
fn the_commands_for_an_index_work_as_they_stand() {
    if !is_there("python3") {
        println!("skipped: there is no python3 on this machine");
        return;
    }
    follow("indexing.md");
}

#[test]
fn the_commands_for_operating_work_as_they_stand() {
    follow("operating.md");
}

#[test]
fn the_commands_for_keys_work_as_they_stand() {
    follow("security.md");
}

#[test]
fn the_commands_for_an_upgrade_work_as_they_stand() {
    follow("upgrade.md");
}

#[test]
fn every_command_of_every_guide_is_run_by_a_story() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).expect("docs") {
        let path: PathBuf = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if FOLLOWED.contains(&name) || !name.ends_with(".md") {
            continue;
        }
        for (words, _) in blocks(&page(name)) {
            let known: &[&str] = match name {
                "payloads.md" => &["http", "json"],
                "ledger.md" => &["json"],
                "mail.md" => &["json", "toml"],
                "permissions.md" => &["http", "json", "text", "toml"],
                "statuses.md" => &["json"],
                "tasks.md" => &["json", "text"],
                "subscriptions.md" => &["json", "python"],
                "cli.md" | "dashboard.md" | "filters.md" => &["text"],
                _ => &["python", "javascript", "go", "rust"],
            };
            let known = known.contains(&words.as_str());
            assert!(known, "nothing runs the block {words:?} of {name}");
        }
    }
}

/// Whether a command runs until it is ended.
fn keeps_running(line: &str) -> bool {
    let runs_on = ["serve", "listen", "worker start"].map(|verb| format!(" {verb} "));
    let line = format!(" {line} ").replace("cargo run --", "tidings");
    line.contains(" tidings ") && runs_on.iter().any(|verb| line.contains(verb.as_str()))
}

#[test]
fn a_command_that_keeps_running_stands_alone_and_names_its_terminal() {
    for name in FOLLOWED.into_iter().chain(["../README.md"]) {
        let page = page(name);
        for (words, body) in blocks(&page) {
            let is_alone = body.lines().count() == 1;
            let waits = body.lines().any(keeps_running);
            assert!(!words.starts_with("sh") || !waits || is_alone, "{name} goes on behind {body}");
            if words.starts_with("sh") && waits {
                let before = page.split(&body).next().unwrap_or_default();
                let said = before.rsplit("\n\n").nth(1).unwrap_or_default();
                assert!(said.to_lowercase().contains("terminal"), "{name} does not say where to run {body}");
            }
        }
    }
    assert!(keeps_running("cargo run -- listen --mirror x") && !keeps_running("tidings service install"));
}

#[test]
fn no_command_uses_a_setting_that_only_the_story_has() {
    for name in FOLLOWED {
        let commands = script(&page(name), [1, 2]);
        assert!(!commands.contains("$TIDINGS__"), "{name}: a reader who pastes has no such variable");
    }
}

#[test]
fn a_command_that_fails_fails_its_page() {
    let home = TempDir::new().expect("a folder");
    assert!(script("```sh\ntrue\n```\n\n```json\n{}\n```\n", [1, 2]).contains("true\necho passed"));
    let bad = script("```sh\nfalse\ntrue\n```\n", [1, 2]);
    let status = Command::new("bash").args(["-c", &bad]).current_dir(home.path()).status();
    assert!(status.map_or(true, |status| !status.success()));
}
