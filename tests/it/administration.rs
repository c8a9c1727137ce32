//! A running server in the hands of its staff: the command line, tokens, breakers, the audit log.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    deliveries::refuse,
    support::{
        api::App,
        patience::{SOON, eventually},
        project::Project,
        server::{Server, bare_command},
        subscriber::Subscriber,
    },
};

/// The command line with a profile that names the server and a token.
struct Staff {
    home: tempfile::TempDir,
}

impl Staff {
    fn of(server: &Server, token: &str) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join(".config/tidings");
        fs::create_dir_all(&folder).expect("made");
        let token_file = home.path().join("token");
        fs::write(&token_file, token).expect("written");
        let address = server.address();
        let profiles = format!(
            "default = \"story\"\n[profiles.story]\nserver = \"http://{address}\"\ntoken_file = {:?}\n",
            token_file.display().to_string()
        );
        fs::write(folder.join("profiles.toml"), profiles).expect("written");
        for file in [token_file, folder.join("profiles.toml")] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("set");
        }
        Self { home }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare_command(self.home.path());
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[arguments, &["--json"]].concat());
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        serde_json::from_slice(&ended.stdout).expect("JSON")
    }

    fn lines(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).expect("text")
    }

    fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.run(arguments).status.code()
    }
}

fn admin(server: &Server) -> Staff {
    Staff::of(server, fs::read_to_string(server.data().join("admin-token")).expect("a token").trim())
}

/// Waits until the overview tells this; its numbers are those of the last survey.
fn wait_for_work(staff: &Staff, what: &str, number: u64) {
    eventually(&format!("{number} {what} in the overview"), SOON, || {
        (staff.json(&["admin", "overview"])["work"][what] == number).then_some(())
    });
}

#[test]
fn why_an_app_is_behind_is_found_in_three_steps() {
    let project = Project::with(&[("a", "1"), ("bad", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    subscriber.script(refuse(&["bad"], 503));
    let id = app.watch(&server, &project);
    let staff = admin(&server);
    // First: somebody is behind.
    eventually("somebody behind", SOON, || (staff.json(&["admin", "overview"])["behind"] == 1).then_some(()));
    // Second: who, and what it waits for.
    let watch = eventually("a failed try", SOON, || {
        let watches = staff.json(&["admin", "watches", "--condition", "behind"]);
        watches[0]["last_attempt"]["http_status"].is_number().then(|| watches[0].clone())
    });
    assert_eq!((&watch["repository_id"], &watch["last_attempt"]["http_status"]), (&json!(id), &json!(503)));
    let (app_id, waits_for) =
        (watch["app_id"].as_str().expect("an id"), watch["waits_for"].as_str().expect("an id"));
    // Third: what the receiver answered.
    let delivery = staff.json(&["delivery", "show", waits_for, "--for", app_id]);
    assert_eq!((&delivery["path"], &delivery["tries"][0]["http_status"]), (&json!("bad"), &json!(503)));
    let lines = staff.lines(&["admin", "watches"]);
    assert!(lines.contains(app_id) && lines.contains("503"), "{lines}");
    assert_eq!(staff.json(&["admin", "watches", "--condition", "paused"]), json!([]));
    // What the app may do itself is done for it.
    staff.json(&["repository", "pause", &id, "--for", app_id]);
    assert_eq!(staff.json(&["admin", "watches", "--condition", "paused"])[0]["repository_id"], json!(id));
    let sources = staff.json(&["admin", "sources"]);
    let repository = sources[0]["repository"].as_str().expect("an id");
    assert_eq!(staff.json(&["admin", "scan", repository])["sources"], 1);
    assert!(staff.lines(&["admin", "tree"]).contains("repository-watcher"));
    assert!(staff.lines(&["admin", "settings"]).contains("git.poll_min"));
    assert!(staff.json(&["admin", "storage"])["database"]["rows"]["watch"] == 1);
}

#[test]
fn what_was_given_up_is_seen_over_all_apps_and_dismissed() {
    let project = Project::with(&[("a", "1"), ("bad", "1"), ("worse", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard_with(&server, &subscriber, &json!({ "app_name": "search index" }));
    subscriber.script(refuse(&["bad", "worse"], 422));
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let staff = admin(&server);
    let letters = staff.json(&["admin", "dead-letters"]);
    let paths = |letters: &Value| -> Vec<Value> {
        letters.as_array().expect("letters").iter().map(|letter| letter["path"].clone()).collect()
    };
    assert_eq!(paths(&letters), ["worse", "bad"], "the newest first");
    assert_eq!((&letters[0]["app_id"], &letters[0]["app_name"]), (&json!(app.id), &json!("search index")));
    assert_eq!(
        letters[0]["repository"],
        json!(project.path().canonicalize().expect("there").display().to_string())
    );
    let lines = staff.lines(&["admin", "dead-letters"]);
    assert!(lines.contains("search index") && lines.contains("422") && lines.contains("worse"), "{lines}");
    let watch = &staff.json(&["admin", "watches"])[0];
    assert_eq!((&watch["effective_state"], &watch["dead_letters"]), (&json!("active"), &json!(2)), "{watch}");
    for moment in ["last_scan_at", "next_poll_at"] {
        assert!(watch[moment].is_string(), "{moment} in {watch}");
        assert!(staff.json(&["admin", "sources"])[0][moment].is_string(), "{moment} of the source");
    }
    wait_for_work(&staff, "dead_letters", 2);

    let text = |letter: &Value| letter["dead_letter_id"].as_str().expect("an id").to_owned();
    let (worse, bad) = (text(&letters[0]), text(&letters[1]));
    let dismiss = ["dead-letter", "dismiss", "--for", app.id.as_str()];
    let dismissed = |more: &[&str]| staff.json(&[&dismiss[..], more].concat());
    let refused = |more: &[&str]| staff.code(&[&dismiss[..], more].concat());
    assert_eq!(refused(&[]), Some(64), "all of them only when it is said");
    assert_eq!(dismissed(&["--all", "--dry-run"])["would_request"], 2);
    assert_eq!(dismissed(&[&bad])["dismissed"], 1);
    assert_eq!(paths(&staff.json(&["admin", "dead-letters"])), ["worse"]);
    assert_eq!(paths(&staff.json(&["admin", "dead-letters", "--status", "dismissed"])), ["bad"]);
    assert_eq!(dismissed(&["--path", "worse"])["dismissed"], 1);
    assert_eq!(refused(&["--all"]), Some(65), "nothing is open any more");
    assert_eq!(staff.code(&["dead-letter", "redrive", &worse, "--for", &app.id]), Some(65));
    wait_for_work(&staff, "dead_letters", 0);

    // A dismissed letter forgets nothing: the path comes again as soon as it changes.
    subscriber.accept_all();
    project.write("bad", b"2");
    project.remove("worse");
    let next = project.commit("one changes, one goes");
    app.tell(&server, &id, "scan");
    app.wait_until_held(&server, &id, &next);
    subscriber.wait_for_tree(&id, &project.tree(&next));
}

#[test]
fn a_slow_app_and_a_repository_that_cannot_be_read_are_told_apart() {
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let gate = subscriber.hold_after(1);
    let id = app.watch(&server, &project);
    let staff = admin(&server);
    let of = |condition: &str| staff.json(&["admin", "watches", "--condition", condition]);
    let slow = eventually("a change that is settled, and one that is not", SOON, || {
        let watch = of("behind")[0].clone();
        (watch["branches"][0]["round"]["position"] == 1).then_some(watch)
    });
    assert_eq!(slow["effective_state"], "delivering", "{slow}");
    assert!(
        slow["effective_reason"].as_str().expect("why").starts_with("1 of 2 changes are settled"),
        "{slow}"
    );
    let lines = staff.lines(&["admin", "watches"]);
    assert!(lines.contains("1/2") && lines.contains("position 1 of round"), "{lines}");
    let lines = staff.lines(&["repository", "list", "--for", &app.id]);
    assert!(lines.contains("1/2") && lines.contains("delivering"), "{lines}");
    gate.open();
    app.wait_until_held(&server, &id, &project.head());
    assert_eq!(app.repository(&server, &id)["effective_state"], "active");
    assert_eq!(of("behind"), json!([]));

    // The repository goes away: nobody knows whether the app is behind.
    let away = project.path().with_extension("away");
    fs::rename(project.path(), &away).expect("moved");
    app.tell(&server, &id, "scan");
    let failing = eventually("a failing source", SOON, || {
        let watch = of("failing")[0].clone();
        watch["last_error"].is_string().then_some(watch)
    });
    assert_eq!(failing["effective_state"], "source_failing", "{failing}");
    assert_eq!(of("behind")[0]["repository_id"], json!(id), "it is not known to be in step");
    wait_for_work(&staff, "sources_failing", 1);
    fs::rename(&away, project.path()).expect("moved back");
    app.tell(&server, &id, "scan");
    eventually("a source that is well", SOON, || (of("failing") == json!([])).then_some(()));
}

#[test]
fn a_breaker_that_is_opened_by_hand_holds_deliveries_until_it_is_reset() {
    let project = Project::with(&[("a", "1")]);
    let (server, subscriber) = (Server::start(), Subscriber::start());
    let app = App::onboard(&server, &subscriber);
    let id = app.watch(&server, &project);
    app.wait_until_held(&server, &id, &project.head());
    let staff = admin(&server);
    let watch = &staff.json(&["admin", "watches"])[0];
    let app_id = watch["app_id"].as_str().expect("an id");
    staff.json(&["admin", "breaker", "open", "endpoint", app_id, "--seconds", "3600"]);
    eventually("an open breaker", SOON, || {
        (staff.json(&["admin", "breaker", "list"])[0]["state"] == "open").then_some(())
    });
    project.write("b", b"1");
    let next = project.commit("b");
    eventually("a change that waits", SOON, || {
        let watches = staff.json(&["admin", "watches", "--condition", "failing"]);
        let branch = &watches[0]["branches"][0];
        (branch["head_commit"] == next && branch["held_commit"] != next).then_some(())
    });
    staff.json(&["admin", "breaker", "reset", "endpoint", app_id]);
    app.wait_until_held(&server, &id, &next);
    assert_eq!(staff.json(&["admin", "breaker", "list"]), json!([]));
    assert_eq!(staff.code(&["admin", "breaker", "reset", "endpoint", app_id]), Some(65), "there is none");
}

#[test]
fn the_staff_has_tokens_with_roles_and_its_deeds_are_written_down() {
    let mut server = Server::prepare().with("telemetry.log_filter", "error");
    server.run();
    let staff = admin(&server);
    let made = staff.json(&["token", "create", "on call", "--role", "viewer"]);
    let viewer = Staff::of(&server, made["token"].as_str().expect("a token"));
    assert!(viewer.lines(&["admin", "overview"]).contains("watches"));
    assert_eq!(viewer.code(&["token", "create", "mine", "--role", "admin"]), Some(77));
    assert_eq!(viewer.code(&["admin", "log-filter", "debug"]), Some(77));
    assert!(!server.log().contains("request answered"), "nothing is logged but errors");
    assert_eq!(staff.json(&["admin", "log-filter", "warn,tidings=debug"])["filter"], "warn,tidings=debug");
    assert_eq!(staff.code(&["admin", "log-filter", "tidings=loud"]), Some(65));
    eventually("lines of the new filter", SOON, || {
        viewer.json(&["admin", "overview"]);
        server.log().contains("request answered").then_some(())
    });
    let id = made["token_id"].as_str().expect("an id");
    staff.json(&["token", "revoke", id, "--staff"]);
    assert_eq!(viewer.code(&["admin", "overview"]), Some(77));
    let rows = staff.json(&["audit", "list", "--target", id]);
    let actions: Vec<&Value> = rows.as_array().expect("rows").iter().map(|row| &row["action"]).collect();
    assert_eq!(actions, [&json!("delete_api_admin_tokens_id"), &json!("post_api_admin_tokens")]);
    assert!(rows.as_array().into_iter().flatten().all(|row| row["address"] == "127.0.0.1"), "{rows}");
    assert!(staff.lines(&["audit", "list", "--target", id]).contains("127.0.0.1"), "for people, too");
    let verdict = staff.json(&["audit", "verify"]);
    let head = verdict["head"].as_str().expect("a head");
    let file = staff.home.path().join("audit.ndjson");
    let path = file.display().to_string();
    staff.json(&["audit", "export", "--to", &path]);
    let keyring = server.data().join("keyring").display().to_string();
    let of_file = ["audit", "verify", "--file", &path, "--head", head];
    let whole = staff.json(&[&of_file[..], &["--keyring", &keyring]].concat());
    assert_eq!((&whole["intact"], &whole["keyed_from"]), (&json!(true), &json!(1)), "{whole}");
    assert_eq!(whole["unchecked"], 0, "{whole}");
    let order = staff.json(&of_file);
    assert_eq!((&order["unchecked"], &order["intact"]), (&whole["rows"], &Value::Null), "{order}");
    assert!(staff.lines(&of_file).contains("were not checked"), "without the keys nothing is called whole");
    assert_eq!(staff.code(&["audit", "export", "--to", &path]), Some(73), "a file is never replaced");
    let text = fs::read_to_string(&file).expect("read");
    fs::write(&file, text.replace(id, "tok_00000000000000000000000000")).expect("written");
    let refused = staff.run(&["audit", "verify", "--file", &path, "--keyring", &keyring]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("was changed"), "it is named");
    let whole = text.lines().skip(1).collect::<Vec<_>>().join("\n");
    fs::write(&file, whole).expect("written");
    let refused = staff.run(&["audit", "verify", "--file", &path]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("rows before 2 were removed"), "it is named");
    assert!(staff.lines(&["man"]).contains("TIDINGS AUDIT VERIFY"));
}
