//! The doctor: every fault that it can find is planted here once, and a healthy house has none.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
};

use serde_json::{Value, json};

use crate::support::{
    api::App, database, project::Project, remote::Host, server::Server, subscriber::Subscriber,
};

/// What the doctor finds: its exit code, and every finding that is not as it should be.
fn examined(server: &Server, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut command = server.command(&["doctor", "--json"]);
    let output = command.args(arguments).output().expect("it ran");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = answer["findings"].as_array().expect("findings").clone();
    for finding in &findings {
        assert_eq!(finding["remedy"].is_string(), finding["status"] != "ok", "{finding}");
    }
    let faults = findings.iter().filter(|finding| finding["status"] == "fault").count();
    assert_eq!(answer["faults"], faults, "{answer}");
    assert_eq!(output.status.code(), Some(i32::from(faults > 0)), "{answer}");
    let worse = findings.into_iter().filter(|finding| finding["status"] != "ok").collect();
    (output.status.code(), worse)
}

/// Demands one finding like this among what is not well.
fn assert_found(server: &Server, arguments: &[&str], status: &str, check: &str, words: &str) {
    let (_, found) = examined(server, arguments);
    let is_it = |finding: &&Value| {
        finding["check"] == check
            && finding["status"] == status
            && finding["found"].as_str().is_some_and(|found| found.contains(words))
    };
    assert!(found.iter().any(|finding| is_it(&finding)), "no {status} of {check} with {words:?}: {found:#?}");
}

/// A house with nothing to complain of.
fn healthy() -> Server {
    Server::prepare()
        .with("egress.allow", "127.0.0.1/32")
        .with("egress.allow_http", "false")
        .with("onboarding.mode", "admin")
        .with("git.free_min_bytes", "1")
}

#[test]
fn a_healthy_house_has_no_findings_before_its_first_start_while_it_runs_and_after() {
    let mut server = healthy();
    assert_eq!(examined(&server, &[]), (Some(0), vec![]));
    assert!(!server.data().exists(), "it changes nothing");
    server.run();
    assert_eq!(examined(&server, &[]), (Some(0), vec![]));
    assert_eq!(
        server.ask("GET", "/readyz", None, None).expect("an answer").status,
        200,
        "nobody was fenced off"
    );
    server.terminate();
    assert_eq!(examined(&server, &[]), (Some(0), vec![]));
}

#[test]
fn faults_of_settings_and_of_what_is_not_there_yet_are_found() {
    let server = healthy().with("git.scrub_every", "soon").with("egress.alow", "x");
    let (code, found) = examined(&server, &[]);
    assert_eq!((code, found.len()), (Some(1), 2), "{found:?}");
    assert_found(&server, &[], "fault", "settings", "git.scrub_every");

    let server = healthy();
    fs::write(server.data(), "a file").expect("written");
    assert_found(&server, &[], "fault", "data_dir", "is a file");
    let output = healthy().command(&["doctor", "--json"]).env("TIDINGS__DATA_DIR", "/proc/nothing").output();
    let output = String::from_utf8(output.expect("it ran").stdout).expect("text");
    assert!(output.contains("cannot be made"), "{output}");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = healthy().command(&["doctor", "--json"]).env("TIDINGS__SERVER__LISTEN", address).output();
    let output = String::from_utf8(output.expect("it ran").stdout).expect("text");
    assert!(output.contains("cannot be listened on"), "{output}");

    assert_found(
        &healthy().with("database.url", "postgres://u@127.0.0.1:9/d"),
        &[],
        "fault",
        "database",
        "cannot be reached",
    );
    assert_found(
        &healthy().with("git.free_min_bytes", "9000000000000000000"),
        &[],
        "fault",
        "disk",
        "nothing is fetched",
    );
    assert_found(&healthy().with("egress.allow", "0.0.0.0/0"), &[], "warning", "egress", "0.0.0.0/0");
    assert_found(&healthy().with("egress.allow_http", "true"), &[], "warning", "egress", "unencrypted");
    let open = healthy().with("onboarding.mode", "open");
    let output = open.command(&["doctor", "--json"]).env("TIDINGS__SERVER__LISTEN", "0.0.0.0:0").output();
    let output = String::from_utf8(output.expect("it ran").stdout).expect("text");
    assert!(output.contains("anyone who reaches it"), "{output}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port().to_string();
    let mails = || {
        let server = healthy().with("mail.server", "127.0.0.1").with("mail.port", &port);
        server.with("mail.from", "t@example.org")
    };
    assert_eq!(examined(&mails(), &[]), (Some(0), vec![]), "a mail server alone is nothing to complain of");
    let elsewhere = mails().with("mail.server", "mail.invalid");
    assert_found(&elsewhere, &[], "fault", "mail", "cannot be reached, so no mail is sent");
    assert_found(&elsewhere.with("mail.tls", "none"), &[], "warning", "mail", "unencrypted");
    assert_found(&mails().with("onboarding.mode", "open"), &[], "warning", "mail", "strangers name contacts");

    let server = healthy();
    let ca = server.data().with_file_name("ca.pem");
    fs::write(&ca, "no certificate").expect("written");
    assert_found(&server.with("egress.ca_file", ca.to_str().expect("a path")), &[], "fault", "egress", "tls");
}

#[test]
fn faults_of_the_data_directory_and_its_keys_are_found() {
    let mut server = healthy();
    server.run();
    server.terminate();
    let data = server.data();
    let planted = |name: &str, mode: u32, check: &str, words: &str| {
        let path = data.join(name);
        let before = fs::metadata(&path).expect("there").permissions();
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
        assert_found(&server, &[], "fault", check, words);
        fs::set_permissions(&path, before).expect("set");
    };
    planted("", 0o755, "data_dir", "others can look into it");
    planted("keyring", 0o644, "keyring", "only its owner may read it");
    planted("admin-token", 0o644, "admin_token", "can be read by others");
    planted("tidings.db", 0o644, "database", "others can read it");
    let token = fs::read(data.join("admin-token")).expect("a token");
    fs::write(data.join("admin-token"), "x").expect("written");
    assert_found(&server, &[], "fault", "admin_token", "has fewer than 32 characters");
    fs::write(data.join("admin-token"), token).expect("written");
    fs::create_dir(data.join(".restore")).expect("made");
    assert_found(&server, &[], "fault", "data_dir", "a restore was cut off while it copied");
    let refused = server.command(&["serve"]).output().expect("it ran");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("run the same `tidings restore` again"), "{said}");
    fs::remove_dir(data.join(".restore")).expect("removed");

    let keyring = fs::read(data.join("keyring")).expect("a keyring");
    fs::write(data.join("keyring"), "garbage").expect("written");
    assert_found(&server, &[], "fault", "keyring", "no keyring file");
    fs::remove_file(data.join("keyring")).expect("removed");
    assert_found(&server, &[], "fault", "keyring", "the database needs it");
    let made = server.command(&["key", "generate"]).output().expect("it ran");
    assert!(made.status.success());
    assert_found(&server, &[], "fault", "key", "does not belong to this database");
    fs::write(data.join("keyring"), &keyring).expect("written");
    assert_eq!(examined(&server, &[]), (Some(0), vec![]));

    // Other users' files can only be made by root; elsewhere this one is not planted.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&data, Some(65_532), None).expect("given away");
        assert_found(&server, &[], "fault", "data_dir", "belongs to the user 65532");
        std::os::unix::fs::chown(&data, Some(0), None).expect("taken back");
    }
    let rotated = server.command(&["key", "rotate", "--offline"]).output().expect("it ran");
    assert!(rotated.status.success(), "{rotated:?}");
    assert_found(&server, &[], "warning", "key", "older keys");
    let sealed = server.command(&["key", "reencrypt", "--offline"]).output().expect("it ran");
    assert!(sealed.status.success(), "{sealed:?}");
    assert_eq!(examined(&server, &[]), (Some(0), vec![]));
}

#[test]
fn faults_of_the_database_and_the_clock_are_found() {
    let mut server = healthy();
    server.run();
    server.terminate();
    let whole = fs::read(server.data().join("tidings.db")).expect("a database");
    let put_back = || fs::write(server.data().join("tidings.db"), &whole).expect("written");
    database::change_with(&server, "update lease set taken_at = taken_at + ?", &[3_600_000]);
    assert_found(&server, &[], "fault", "clock", "behind the newest time");
    put_back();
    database::change(&server, "pragma journal_mode = delete");
    assert_found(&server, &[], "warning", "database", "not wal");
    put_back();
    database::change(&server, "delete from seaql_migrations where version like '%note_restorations'");
    assert_found(&server, &[], "warning", "database", "steps are missing");
    put_back();
    database::change(
        &server,
        "insert into seaql_migrations (version, applied_at) values ('m29990101_000000_future', 0)",
    );
    assert_found(&server, &[], "fault", "database", "newer version");
    put_back();
    database::change(
        &server,
        "pragma foreign_keys = off; insert into app_key (app_id, ordinal, secret, created_at)
        values ('app_nobody', 1, x'01000000009999999999999999999999999999999999999999999999999999999999', 0)",
    );
    assert_found(&server, &[], "fault", "database", "refers to a row of app");
    put_back();
    database::change(&server, "insert into idempotency (owner, key_hash, request_hash, status, answer, created_at)
        values ('app_x', 'h', 'r', 200, x'01000000009999999999999999999999999999999999999999999999999999999999', 0)");
    assert_found(&server, &[], "fault", "key", "keys that the keyring lacks");
    let mut cut = whole.clone();
    let middle = cut.len() / 2;
    cut[middle..middle + 4096].fill(0xA5);
    fs::write(server.data().join("tidings.db"), &cut).expect("written");
    let (code, found) = examined(&server, &[]);
    assert_eq!(code, Some(1));
    assert!(found.iter().any(|finding| finding["check"] == "database"), "{found:?}");
    fs::write(server.data().join("tidings.db"), "this is no database, but it is long enough to be one")
        .expect("written");
    assert_found(&server, &[], "fault", "database", "cannot be opened");
}

#[test]
fn endpoints_and_hosts_that_are_out_of_reach_are_found() {
    let host = Host::start();
    let project = Project::with(&[("file", "1")]);
    host.publish(&project, "o/r");
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    let local = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    app.wait_until_held(&server, &local, &project.head());
    let (_, found) = examined(&server, &["--ask-hosts"]);
    assert!(
        found.iter().all(|finding| finding["check"] != "host" && finding["check"] != "clock"),
        "{found:?}"
    );
    server.terminate();

    let mut server = server.with("egress.allow_http", "false");
    assert_found(&server, &[], "fault", "endpoints", &app.id);
    assert_found(&server, &["--ask-hosts"], "fault", "host", "refused");
    server = server.with("egress.allow_http", "true").with("git.allow_local", "false");
    assert_found(&server, &[], "fault", "repositories", "git.allow_local");
    server = server.with("git.allow_local", "true");
    drop(host);
    assert_found(&server, &["--ask-hosts"], "fault", "host", "does not answer");
    drop(project);
    assert_found(&server, &[], "fault", "repositories", "cannot be read");
}

#[test]
fn a_stream_is_judged_by_the_rules_of_streams() {
    let subscriber = Subscriber::start();
    let mut server = Server::start();
    App::onboard(&server, &subscriber);
    server.terminate();
    database::change(&server, "update app set base_url = 'nats://127.0.0.1:4222/git.changes'");
    let server = server.with("egress.streams", "127.0.0.1:4222");
    let (_, found) = examined(&server, &[]);
    assert!(found.iter().all(|finding| finding["check"] != "endpoints"), "{found:?}");
    let server = server.with("egress.streams", "127.0.0.1:4223");
    assert_found(&server, &[], "fault", "endpoints", "egress.streams does not name this server");
}

#[test]
fn what_is_in_the_way_of_the_work_is_a_warning() {
    let project = Project::with(&[("file", "1")]);
    let (mut server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    server.terminate();
    let (code, found) = examined(&server, &[]);
    assert!(found.iter().all(|finding| finding["check"] != "work"), "{found:?}");
    for (statement, words) in [
        (
            "update source set last_error = 'the Git host refuses the credential'",
            "1 repository is not read, because",
        ),
        (
            "update source set last_error = 'the Git host took too long: 10 s'",
            "1 repository cannot be read (the credential is not",
        ),
        ("update cursor set state = 'blocked', reason = 'by a test'", "1 branch waits"),
        (
            "insert into breaker (kind, id, failures, opened_at, probe_at, last_error)
             values ('endpoint', 'app_x', 5, 1, 2, 'status 503')",
            "1 breaker is open",
        ),
        ("update app set disabled = 'the endpoint answered 410 Gone'", "1 app is disabled"),
        (
            "insert into sink (id, app_id, kind, address, delivery, disabled, since, created_at)
             select 'snk_x', id, 'endpoint', 'https://gone.example', '{}', 'the endpoint answered 410 Gone', 1, 1
             from app",
            "1 sink of a watch or a subscription is disabled",
        ),
        (
            "insert into commit_status (watch_id, commit_id, app_id, repository_id, cursor_id, kind, host, url,
               context, wanted, description, tries, count, is_claimed, ended, updated_at)
             values ('repo_x', 'c1', 'app_x', 'rep_x', 'cur_x', 'gitea', 'git.example', 'https://git.example/a',
               'tidings/a/b', 'success', 'a', 0, 1, false, 'status 403', 5)",
            "1 commit has a status at the Git host that is not true any more",
        ),
        ("update commit_status set ended = null, next_at = 5, tries = 3", "1 status of a commit was not taken"),
    ] {
        database::change(&server, statement);
        assert_found(&server, &[], "warning", "work", words);
    }
    assert_eq!(
        examined(&server, &[]).0,
        code,
        "somebody else has to act: the installation is as well as before"
    );
}

#[test]
fn a_proxy_that_cannot_be_reached_is_found_without_being_asked_for() {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://user:hush@{}", proxy.local_addr().expect("an address"));
    let server = healthy().with("egress.proxy", &address);
    assert_eq!(examined(&server, &[]), (Some(0), vec![]));
    drop(proxy);
    assert_found(&server, &[], "fault", "proxy", "cannot be reached");
    let said = server.command(&["doctor"]).output().expect("it ran").stdout;
    assert!(!String::from_utf8_lossy(&said).contains("hush"), "its password is not shown");
}

#[test]
fn a_clock_that_differs_from_that_of_a_host_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let answer = "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2015 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n";
        for mut stream in listener.incoming().map_while(Result::ok) {
            // One that hangs up first gets no answer.
            let _read = stream.read(&mut [0; 4096]);
            let _written = stream.write_all(answer.as_bytes());
        }
    });
    let mut server = Server::start();
    server.terminate();
    let statement: &'static str = Box::leak(
        format!("insert into repository (id, url, created_at) values ('rep_x', 'http://{host}/o/r', 0)")
            .into_boxed_str(),
    );
    database::change(&server, statement);
    assert_found(&server, &["--ask-hosts"], "fault", "clock", "differs by");
}
