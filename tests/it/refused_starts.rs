//! Bad settings, a newer database, another keyring, wrong tokens: a clear error each, and nothing
//! is lost.

use std::{fs, process::Output};

use crate::support::{api::App, database, http, project::Project, server::Server, subscriber::Subscriber};
use serde_json::{Value, json};

/// Exit code `EX_CONFIG` of `sysexits.h`.
const EXIT_CONFIG: i32 = 78;
/// Exit code `EX_UNAVAILABLE` of `sysexits.h`.
const EXIT_UNAVAILABLE: i32 = 69;
const PASSPHRASE: &str = "a passphrase for stories";

fn refused(server: &Server) -> (Option<i32>, String) {
    let Output { status, stderr, stdout } = server.command(&["serve"]).output().expect("it ran");
    let text = format!("{}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
    assert!(!text.contains("panicked"), "{text}");
    (status.code(), text)
}

#[test]
fn bad_settings_are_all_told_at_once_with_key_value_and_source() {
    let server = Server::prepare()
        .with("git.poll_min", "soon")
        .with("server.listen", "nowhere")
        .with("delivery.history_days", "0")
        .with("egress.alow", "10.0.0.0/8")
        .with("server.admin_token", "short-secret");

    // The listening address of the story's own command would hide the wrong one.
    let output =
        server.command(&["check-config"]).env("TIDINGS__SERVER__LISTEN", "nowhere").output().expect("it ran");

    assert_eq!(output.status.code(), Some(EXIT_CONFIG));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    for part in [
        "git.poll_min",
        "soon",
        "TIDINGS__GIT__POLL_MIN",
        "server.listen",
        "nowhere",
        "egress.alow",
        "TIDINGS__EGRESS__ALOW",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("short-secret"), "a secret is shown: {text}");
    assert!(!server.data().exists(), "a refused start made something");
}

#[test]
fn a_data_directory_belongs_to_one_process_until_that_ends_however_it_ends() {
    let mut server = Server::start();

    let (code, text) = refused(&server);

    assert_eq!(code, Some(EXIT_UNAVAILABLE), "{text}");
    assert!(text.contains("in use by another process (process "), "{text}");
    let ready = server.ask("GET", "/readyz", None, None).expect("an answer");
    assert_eq!(ready.status, 200, "the first one goes on");
    server.kill();
    server.run();
}

#[test]
fn a_sqlite_file_belongs_to_one_process_also_under_another_name_or_data_directory() {
    let mut server = Server::prepare().without("database.url");
    server.run();
    let file = server.data().join("tidings.db");
    let (linked, elsewhere) =
        (server.data().with_file_name("link.db"), server.data().with_file_name("other"));
    std::os::unix::fs::symlink(&file, &linked).expect("linked");
    for path in [&file, &linked] {
        for arguments in [&["migrate", "up"][..], &["migrate", "down", "--steps", "3", "--yes"], &["serve"]] {
            fs::create_dir_all(&elsewhere).expect("a folder");
            let mut command = server.command(arguments);
            command.env("TIDINGS__DATA_DIR", &elsewhere);
            command.env("TIDINGS__DATABASE__URL", format!("sqlite://{}", path.display()));
            let output = command.output().expect("it ran");
            let said = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(EXIT_UNAVAILABLE), "{arguments:?}: {said}");
            assert!(
                said.contains("tidings.db is in use by another process (process "),
                "{arguments:?}: {said}"
            );
        }
    }
    let ready = server.ask("GET", "/readyz", None, None).expect("an answer");
    assert_eq!(ready.status, 200, "the first one goes on");
    server.kill();
    server.run();
}

#[test]
fn settings_out_of_bounds_refuse_the_start() {
    let server =
        Server::prepare().with("delivery.history_days", "0").with("server.admin_token", "short-secret");

    let (code, text) = refused(&server);

    assert_eq!(code, Some(EXIT_CONFIG), "{text}");
    assert!(text.contains("delivery.history_days") && text.contains("server.admin_token"), "{text}");
    assert!(!text.contains("short-secret"), "a secret is shown: {text}");
}

#[test]
fn a_database_of_a_newer_version_is_refused_by_name_and_left_alone() {
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    server.terminate();
    database::change(
        &server,
        "insert into seaql_migrations (version, applied_at) values ('m99991231_235959_from_the_future', 0)",
    );

    let (code, text) = refused(&server);

    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    assert!(text.contains("m99991231_235959_from_the_future"), "{text}");
    database::change(&server, "delete from seaql_migrations where version like 'm9999%'");
    server.run();
    project.write("b", b"2");
    let head = project.commit("goes on");
    app.wait_until_held(&server, &id, &head);
    subscriber.assert_straight();
}

#[test]
fn another_keyring_is_refused_and_the_right_one_goes_on() {
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    server.terminate();
    let keyring = server.data().join("keyring");
    let sealed = server.data().with_file_name("keyring.sealed");
    let export = ["key", "export", sealed.to_str().expect("a path")];
    let exported = server.command(&export).env("TIDINGS_PASSPHRASE", PASSPHRASE).output().expect("it ran");
    assert!(exported.status.success(), "{exported:?}");
    let mut other = Server::start();
    other.terminate();
    let wrong = fs::read(other.data().join("keyring")).expect("another keyring");

    fs::write(&keyring, wrong).expect("swapped");
    let (code, text) = refused(&server);
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    assert!(text.contains("key"), "{text}");

    fs::remove_file(&keyring).expect("removed");
    let (code, text) = refused(&server);
    assert!(
        code.is_some_and(|code| code != 0),
        "a new keyring must not be made beside an old database: {text}"
    );
    assert!(text.contains("key import"), "{text}");
    assert!(!keyring.exists(), "a wrong keyring would be in the way of the right one");

    let import = ["key", "import", sealed.to_str().expect("a path")];
    let imported = server.command(&import).env("TIDINGS_PASSPHRASE", PASSPHRASE).output().expect("it ran");
    assert!(imported.status.success(), "{imported:?}");
    server.run();
    project.write("b", b"2");
    let head = project.commit("goes on");
    app.wait_until_held(&server, &id, &head);
    subscriber.assert_straight();
}

#[test]
fn wrong_tokens_and_bodies_get_a_problem_each() {
    let project = Project::with(&[("a", "1")]);
    let subscriber = Subscriber::start();
    let server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let last = app.token.chars().last().expect("not empty");
    let altered = format!("{}{}", &app.token[..app.token.len() - 1], if last == 'a' { 'b' } else { 'a' });
    for (token, path, status) in [
        (None, "/api/repositories", 401),
        (Some("nonsense"), "/api/repositories", 401),
        (Some(altered.as_str()), "/api/repositories", 401),
        (Some(app.token.as_str()), "/api/admin/overview", 401),
        (Some(app.token.as_str()), "/api/nothing", 404),
        (Some(app.token.as_str()), "/api/repositories/repo_01ARZ3NDEKTSV4RRFFQ69G5FAV", 404),
    ] {
        let reply = server.ask("GET", path, token, None).expect("an answer");
        assert_eq!(reply.status, status, "{path} with {token:?}");
        assert_eq!(reply.message.header("content-type"), Some("application/problem+json"));
        let problem = reply.json();
        assert!(
            problem["type"].as_str().is_some_and(|text| text.starts_with("urn:tidings:problem:")),
            "{problem}"
        );
        assert_eq!(problem["status"], status);
    }
    let url = project.url();
    for (body, status) in [
        (json!({}), 422),
        (json!({ "url": "ext::sh -c true" }), 422),
        (json!({ "url": format!("{url}-not") }), 404),
        (json!({ "url": url, "branch": "no-such-branch" }), 422),
        (json!({ "url": url, "include": ["["] }), 422),
        (json!({ "url": url, "inclode": ["*"], "mode": "net" }), 422),
        (json!({ "url": url, "branch": "release/*" }), 422),
        (json!({ "url": url, "start": "yesterday" }), 422),
        (json!([1]), 400),
    ] {
        let reply = app.ask(&server, "POST", "/api/repositories", Some(&body));
        assert_eq!(reply.status, status, "{body} gave {}", reply.json());
    }
    let broken = b"POST /api/repositories HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let broken = [
        broken.as_slice(),
        format!("authorization: Bearer {}\r\ncontent-length: 1\r\n\r\n{{", app.token).as_bytes(),
    ]
    .concat();
    assert_eq!(http::raw(server.address(), &broken).expect("an answer").status, 400);
    assert_eq!(app.ask(&server, "GET", "/api/repositories", None).json()["items"], json!([]));
    assert_eq!(subscriber.model().requests, 0);
}

#[test]
fn a_schema_is_not_taken_back_below_a_server_that_runs() {
    let server = Server::start();
    for verb in [&["migrate", "down", "--yes"][..], &["migrate", "up"]] {
        let output = server.command(verb).output().expect("it ran");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{verb:?}: {said}");
        assert!(said.contains("in use by another process"), "{verb:?}: {said}");
    }
    let status = server.command(&["migrate", "status"]).output().expect("it ran");
    assert!(!String::from_utf8_lossy(&status.stdout).contains("missing"), "nothing was taken back");
}

#[test]
fn steps_that_were_taken_back_are_named_and_all_of_them_need_the_name_of_the_database() {
    let mut server = Server::start();
    assert!(server.terminate().0.success());
    let run = |arguments: &[&str]| {
        let output =
            server.command(&[&["migrate"][..], arguments, &["--json"]].concat()).output().expect("it ran");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let printed = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code(), printed, said)
    };
    let taken = || {
        let shown = run(&["status"]).1["steps"].as_array().cloned().expect("steps");
        shown.iter().filter(|step| step["applied"] == true).count()
    };
    let all = taken();
    let names = |printed: &Value| printed["taken_back"].as_array().map(Vec::len);
    let (code, printed, said) = run(&["down", "--steps", "2", "--yes"]);
    assert_eq!((code, names(&printed), taken()), (Some(0), Some(2), all - 2), "{said}");
    for arguments in [&["down", "--steps", "1000", "--yes"][..], &["down", "--everything-of", "x", "--yes"]] {
        let (code, _, said) = run(arguments);
        assert_eq!((code, taken()), (Some(64), all - 2), "{said}");
        assert!(said.contains("tidings.db"), "{said}");
    }
    let (code, printed, said) = run(&["down", "--everything-of", "tidings.db", "--yes"]);
    assert_eq!((code, names(&printed), taken()), (Some(0), Some(all - 2), 0), "{said}");
    let (code, printed, said) = run(&["down", "--yes"]);
    assert_eq!((code, names(&printed)), (Some(0), Some(0)), "{said}");
}
