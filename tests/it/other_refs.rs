//! Refs that are neither branches nor tags: pull requests that come, move and go at a real Git host, and single
//! refs by their full names.

use serde_json::{Value, json};

use crate::support::{
    api::App,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::{Server, bare_command},
    subscriber::Subscriber,
};

/// A server that believes quickly that a ref is gone, and follows two refs of a pattern at most.
fn quick() -> Server {
    let mut server = Server::prepare().with("git.branch_gone_after", "1s").with("git.pattern_refs_max", "2");
    server.run();
    server
}

/// The branches that an app holds something of, by their full names.
fn held(shown: &Value) -> Vec<String> {
    let branches = shown["branches"].as_array().cloned().unwrap_or_default();
    let held = branches.iter().filter(|branch| branch["held_commit"].is_string());
    held.map(|branch| branch["branch"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn pull_requests_come_move_and_go_and_the_highest_numbers_win() {
    let (host, server, subscriber) = (Host::start(), quick(), Subscriber::start());
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "o/r");
    let repository = host.repository("o/r");
    let delivery = json!({ "delivery": { "multi_branch": true } });
    let app = App::onboard_with(&server, &subscriber, &delivery);
    subscriber.model().by_branch = true;
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "branch": "refs/pull/*/head" }));
    let shown = app.repository(&server, &id);
    assert_eq!(shown["selector"], json!({ "kind": "ref_pattern", "value": "refs/pull/*/head" }));
    assert_eq!(shown["effective_state"], "unmatched", "{shown:#}");
    assert_eq!(shown["effective_reason"], "no ref of the repository matches `refs/pull/*/head`");

    let request = |number: u32| format!("{id} refs/pull/{number}/head");
    let open = |number: u32, text: &str| {
        let branch = format!("topic-{number}");
        let file = [("a", Some(("100644", text.as_bytes())))];
        let commit = repository.commit(&branch, &file).to_string();
        repository.git(["update-ref", &format!("refs/pull/{number}/head"), &commit]);
        repository.git(["update-ref", &format!("refs/pull/{number}/merge"), &commit]);
    };
    let content = |number: u32, text: &str| {
        let file = Project::with(&[("a", text)]);
        subscriber.wait_for_tree(&request(number), &file.tree("HEAD"));
    };
    open(7, "seven");
    open(9, "nine");
    content(7, "seven");
    content(9, "nine");
    open(7, "seven again");
    content(7, "seven again");
    // There is room for two. A new request takes the place of the lowest number.
    open(10, "ten");
    content(10, "ten");
    let is_empty = |number: u32| {
        eventually("files that went", SOON, || subscriber.mirror(&request(number)).is_empty().then_some(()));
    };
    is_empty(7);
    content(9, "nine");
    let shown = eventually("the request that was displaced", SOON, || {
        let shown = app.repository(&server, &id);
        (held(&shown) == ["refs/pull/10/head", "refs/pull/9/head"]).then_some(shown)
    });
    assert_eq!(shown["refs_left_out"], 1, "{shown:#}");
    for _ in 0..3 {
        let before = app.repository(&server, &id)["scan"]["last_at"].clone();
        let shown = eventually("a look that finds nothing new", SOON, || {
            let shown = app.repository(&server, &id);
            (shown["scan"]["last_at"] != before).then_some(shown)
        });
        assert_eq!(shown["refs_left_out"], 1, "{shown:#}");
    }
    // One that goes makes room again.
    repository.git(["update-ref", "-d", "refs/pull/10/head"]);
    is_empty(10);
    content(7, "seven again");
    subscriber.assert_straight();
}

#[test]
fn a_single_ref_is_followed_by_its_full_name_and_what_is_no_name_is_refused() {
    let (host, server, subscriber) = (Host::start(), quick(), Subscriber::start());
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "o/r");
    let repository = host.repository("o/r");
    let note = repository.commit("elsewhere", &[("note", Some(("100644", b"1".as_slice())))]).to_string();
    repository.git(["update-ref", "refs/notes/x", &note]);
    let app = App::onboard(&server, &subscriber);
    let refused = |branch: &str, reason: &str| {
        let body = json!({ "url": host.url("o/r"), "branch": branch });
        let reply = app.ask(&server, "POST", "/api/repositories", Some(&body));
        assert_eq!(reply.status, 422, "{}", reply.json());
        assert!(reply.json().to_string().contains(reason), "{}", reply.json());
    };
    refused("refs/notes/a..b", "is not the name of a ref: it must not contain `..`");
    refused("refs/notes/y", "the repository has no ref `refs/notes/y`");
    refused("notes/x", "the repository has no such branch");
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "branch": "refs/notes/x" }));
    app.wait_until_held(&server, &id, &note);
    let second = repository.commit("elsewhere", &[("note", Some(("100644", b"2".as_slice())))]).to_string();
    repository.git(["update-ref", "refs/notes/x", &second]);
    let shown = app.wait_until_held(&server, &id, &second);
    assert_eq!(held(&shown), ["refs/notes/x"]);
    subscriber.assert_straight();
}

#[test]
fn refs_that_a_host_hides_are_shown_as_absent_and_followed_once_it_shows_them() {
    let (host, server, subscriber) = (Host::start(), quick(), Subscriber::start());
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "o/r");
    let repository = host.repository("o/r");
    let hidden = repository.commit("elsewhere", &[("a", Some(("100644", b"2".as_slice())))]).to_string();
    repository.git(["update-ref", "refs/internal/1", &hidden]);
    repository.config("transfer.hideRefs", "refs/internal");
    let app = App::onboard_with(&server, &subscriber, &json!({ "delivery": { "multi_branch": true } }));
    let single = json!({ "url": host.url("o/r"), "branch": "refs/internal/1" });
    let reply = app.ask(&server, "POST", "/api/repositories", Some(&single));
    assert_eq!(reply.status, 422, "{}", reply.json());
    assert!(reply.json().to_string().contains("no ref `refs/internal/1`"), "{}", reply.json());
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "branch": "refs/internal/*" }));
    let shown = app.repository(&server, &id);
    assert_eq!((&shown["effective_state"], &shown["last_error"]), (&json!("unmatched"), &Value::Null));
    repository.git(["config", "--unset", "transfer.hideRefs"]);
    app.wait_until_held(&server, &id, &hidden);
    subscriber.assert_straight();
}

#[test]
fn watching_by_hand_takes_patterns_of_any_refs() {
    let project = Project::with(&[("a", "1")]);
    let head = project.head();
    for name in ["refs/pull/1/head", "refs/pull/2/head", "refs/pull/2/merge"] {
        project.git(["update-ref", name, &head]);
    }
    let watch = |branch: &str| {
        let home = tempfile::TempDir::new().expect("a folder");
        let mut command = bare_command(home.path());
        command.arg("watch").arg(project.path()).args(["--json", "--once", "--branch", branch]);
        command.output().expect("it ran")
    };
    let output = watch("refs/pull/*/head");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let branches = |printed: &[u8]| {
        let lines = String::from_utf8(printed.to_vec()).expect("text");
        let bodies = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a body"));
        let mut branches: Vec<_> = bodies.map(|body| body["event"]["branch"].to_string()).collect();
        branches.sort();
        branches
    };
    assert_eq!(branches(&output.stdout), [r#""refs/pull/1/head""#, r#""refs/pull/2/head""#]);
    assert_eq!(branches(&watch("refs/pull/2/merge").stdout), [r#""refs/pull/2/merge""#]);
    let unmatched = watch("refs/changes/**");
    let said = String::from_utf8(unmatched.stderr).expect("text");
    assert!(unmatched.status.success() && unmatched.stdout.is_empty(), "{said}");
    assert!(said.contains("has no ref that matches refs/changes/**; there is nothing to send"), "{said}");
    let refused = watch("refs/pull/*/.head");
    let said = String::from_utf8(refused.stderr).expect("text");
    assert!(!refused.status.success() && said.contains("no part of it may begin with `.`"), "{said}");
}

#[test]
fn a_preview_of_a_pattern_counts_its_refs_and_shows_the_files_of_the_greatest_version() {
    let (host, server, subscriber) = (Host::start(), quick(), Subscriber::start());
    let project = Project::with(&[("README.md", "1")]);
    host.publish(&project, "o/r");
    let repository = host.repository("o/r");
    let put = |branch: &str, files: &[&str]| {
        let files: Vec<_> = files.iter().map(|path| (*path, Some(("100644", path.as_bytes())))).collect();
        repository.commit(branch, &files).to_string()
    };
    put("release/1.9", &["docs/old.md"]);
    let newest = put("release/1.10", &["docs/a.md", "docs/b.md", "src/lib.rs"]);
    let app = App::onboard_with(&server, &subscriber, &json!({ "delivery": { "multi_branch": true } }));
    let preview = |body: Value| {
        let mut body = body;
        body["url"] = json!(host.url("o/r"));
        let reply = app.ask(&server, "POST", "/api/repositories/preview", Some(&body));
        (reply.status, reply.json())
    };
    let (status, shown) = preview(json!({ "branch": "release/*", "include": ["docs/**"] }));
    assert_eq!(status, 200, "{shown}");
    for (field, value) in [
        ("matching_refs", json!(2)),
        ("branch", json!("release/1.10")),
        ("commit", json!(newest)),
        ("paths", json!(["docs/a.md", "docs/b.md"])),
        ("matching", json!(2)),
    ] {
        assert_eq!(shown[field], value, "{field}: {shown}");
    }
    assert!(shown["files"].as_u64().is_some_and(|files| files >= 3), "{shown}");
    let (status, none) = preview(json!({ "branch": "hotfix/*" }));
    assert_eq!((status, &none["matching_refs"], &none["commit"]), (200, &json!(0), &Value::Null), "{none}");
    let (_, one) = preview(json!({ "branch": "main" }));
    assert!(one.get("matching_refs").is_none() && one["paths"] == json!(["README.md"]), "{one}");
    let nothing = app.ask(&server, "GET", "/api/repositories", None).json();
    assert_eq!(nothing["items"], json!([]), "a preview watches nothing");
}
