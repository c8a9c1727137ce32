//! A person who does not want to give an address and a token with every command, and one who writes the first
//! settings file.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    api::App,
    server::{Server, bare_command},
    subscriber::Subscriber,
};

fn run(home: &TempDir, arguments: &[&str], input: &str) -> Output {
    let mut command: Command = bare_command(home.path());
    let piped = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("it starts");
    // A command that reads nothing may be gone already.
    drop(child.stdin.take().expect("piped").write_all(input.as_bytes()));
    child.wait_with_output().expect("it ran")
}

fn said(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).expect("text")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn a_login_is_kept_used_shown_and_forgotten() {
    let (server, subscriber, home) =
        (Server::start(), Subscriber::start(), TempDir::new().expect("a folder"));
    let app = App::onboard(&server, &subscriber);
    let address = format!("http://{}", server.address());
    let kept = home.path().join(".config/tidings");
    let admin_token = fs::read_to_string(server.data().join("admin-token")).expect("an admin token");

    let wrong = run(&home, &["auth", "login", "--server", &address], "tok_nobody\n");
    assert_eq!(wrong.status.code(), Some(77), "{}", said(&wrong));
    assert!(!kept.exists(), "a token that opens nothing is not kept");
    assert_eq!(run(&home, &["auth", "show"], "").status.code(), Some(65));

    let staff = run(&home, &["auth", "login", "--server", &address], &admin_token);
    assert!(staff.status.success() && said(&staff).contains("staff"), "{}", said(&staff));
    assert!(!said(&staff).contains(admin_token.trim()), "a token is not shown");
    let listed = run(&home, &["app", "list"], "");
    assert!(listed.status.success() && said(&listed).contains("app_"), "{}", said(&listed));
    for file in ["profiles.toml", "tokens/default"] {
        assert_eq!(mode(&kept.join(file)), 0o600, "{file}");
    }

    // A login that cannot be kept leaves the token of the one before.
    fs::set_permissions(kept.join("profiles.toml"), Permissions::from_mode(0o622)).expect("set");
    let failed = run(&home, &["auth", "login", "--server", &address], &app.token);
    assert_eq!(failed.status.code(), Some(77), "{}", said(&failed));
    assert_eq!(fs::read_to_string(kept.join("tokens/default")).expect("there").trim(), admin_token.trim());
    fs::set_permissions(kept.join("profiles.toml"), Permissions::from_mode(0o600)).expect("set");

    let search = ["--profile", "search"];
    let login = run(&home, &[&["auth", "login", "--server", &address][..], &search].concat(), &app.token);
    assert!(login.status.success(), "{}", said(&login));
    let shown = run(&home, &[&["auth", "show", "--json"][..], &search].concat(), "");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert!(shown["as"].as_str().expect("a text").contains("app_"), "{shown}");
    assert!(run(&home, &[&["repository", "list"][..], &search].concat(), "").status.success());
    assert!(said(&run(&home, &["auth", "show"], "")).contains("staff"), "the first one stays the default");

    assert!(run(&home, &["auth", "clear"], "").status.success());
    assert_eq!(run(&home, &["auth", "show"], "").status.code(), Some(65));
    assert!(!kept.join("tokens/default").exists());
    assert!(
        run(&home, &[&["repository", "list"][..], &search].concat(), "").status.success(),
        "the other one stays"
    );
}

#[test]
fn the_first_settings_file_is_one_that_the_check_accepts() {
    let home = TempDir::new().expect("a folder");
    let file = home.path().join("tidings.toml");
    let file = file.to_str().expect("a path");
    assert!(run(&home, &["init", file], "").status.success());
    let checked = |arguments: &[&str]| run(&home, &[&["check-config", "--json"], arguments].concat(), "");
    let (with, without) = (checked(&["--config", file]), checked(&[]));
    assert!(with.status.success(), "{}", said(&with));
    assert_eq!(with.stdout, without.stdout, "it changes nothing");
    let text = fs::read_to_string(file).expect("written");
    fs::write(file, text.replace("#poll_min = ", "poll_min = \"7m\" #")).expect("changed");
    assert!(said(&checked(&["--config", file])).contains("7m"));
    let again = run(&home, &["init", file], "");
    assert_eq!(again.status.code(), Some(73));
    assert!(said(&again).contains("--replace"), "{}", said(&again));
}
