//! Mails that are refused, and mail servers that are not to be trusted: who is told, and what is kept.

use super::{
    mails::{scene, started, subscribe, wait_until_told},
    *,
};

#[test]
fn a_recipient_that_is_refused_keeps_the_mail_from_nobody_else_and_is_noted() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let scene = scene(&mails, "1s");
    mails.behave(&json!({ "recipients": { "gone@example.org": "550 5.1.1 no such user" } }));
    subscribe(&scene, &json!(["gone@example.org", "ops@example.org"]));
    scene.commit(1);
    assert_eq!(mails.wait_for(1)[0].to(), ["ops@example.org"]);
    let failed = eventually("its entry", SOON, || scene.entries("type:mail.failed").pop());
    assert_eq!(failed["data"]["to"], json!(["gone@example.org"]));
    assert_eq!(failed["data"]["reason"], "550 5.1.1 no such user");
    let sent = eventually("the entry of the mail", SOON, || scene.entries("type:mail.sent").first().cloned());
    assert_eq!(sent["data"]["to"], json!(["ops@example.org"]));

    // Where nobody is left, the entries are passed over.
    wait_until_told(&scene);
    let before = (mails.mails().len(), scene.entries("type:mail.failed").len());
    let body = json!({ "sink": { "to": ["gone@example.org"] } });
    let (status, shown) = scene.ask("PATCH", "/ops", Some(&body));
    assert_eq!((status, &shown["sink"]["to"]), (200, &json!(["gone@example.org"])), "{shown}");
    scene.commit(1);
    wait_until_told(&scene);
    assert_eq!(mails.mails().len(), before.0);
    let failed = scene.entries("type:mail.failed");
    assert!(failed.len() > before.1, "{failed:?}");
    let data = &failed.last().expect("an entry")["data"];
    assert_eq!(data["to"], json!(["gone@example.org"]), "{data}");
    assert!(data["first"].is_number() && data["last"].is_number(), "{data}");
    scene.wait_for_state("ops", "active");
}

#[test]
fn an_entry_that_the_mail_server_takes_in_no_mail_is_passed_over_alone() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let scene = scene(&mails, "1s");
    subscribe(&scene, &json!("ops@example.org"));
    scene.act("ops", "pause");
    scene.commit(4);
    scene.settle();
    // The line of entry 3 in a digest, and in a mail of its own.
    mails.behave(&json!({ "dislikes": ["#3 ", "entry: 3"] }));
    scene.act("ops", "resume");
    let all = wait_until_told(&scene);
    let others: Vec<u64> = all.iter().copied().filter(|number| *number != 3).collect();
    let told: Vec<u64> = mails.mails().iter().flat_map(Mail::numbers).collect();
    assert_eq!((told, all[2]), (others, 3), "each of the others once, in order");
    let failed = scene.entries("type:mail.failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let data = &failed[0]["data"];
    assert_eq!((&data["first"], &data["last"]), (&json!(3), &json!(3)), "{data}");
    assert_eq!(data["reason"], "content: 554 5.7.1 this is spam");
    scene.wait_for_state("ops", "active");
}

#[test]
fn a_mail_that_is_refused_after_a_try_in_doubt_or_by_a_server_that_started_anew_is_divided() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let mut scene = scene(&mails, "1s");
    subscribe(&scene, &json!("ops@example.org"));
    for is_killed in [false, true] {
        scene.act("ops", "pause");
        let known = scene.numbers(ROUNDS).len();
        scene.commit(4);
        scene.settle();
        let fresh = scene.numbers(ROUNDS).split_off(known);
        let bad = fresh[2];
        // The mail server has the mail that it does not answer.
        mails.behave(&json!({ "vanishes": true }));
        let before = mails.mails().len();
        scene.act("ops", "resume");
        mails.wait_for(before + 1);
        mails.behave(&json!({ "dislikes": [format!("#{bad} "), format!("entry: {bad}")] }));
        let before = mails.mails().len();
        if is_killed {
            // The range of the mail is on disk, and the next process knows nothing of its tries.
            scene.server.kill();
            scene.server.run();
        }
        wait_until_told(&scene);
        let told: BTreeSet<u64> = mails.mails()[before..].iter().flat_map(Mail::numbers).collect();
        let lost: Vec<_> = fresh.iter().filter(|number| **number != bad && !told.contains(number)).collect();
        assert!(lost.is_empty(), "{lost:?} of {fresh:?} without {bad}: {told:?}");
    }
    let failed = scene.entries("type:mail.failed");
    let ranges: Vec<_> =
        failed.iter().map(|entry| (&entry["data"]["first"], &entry["data"]["last"])).collect();
    assert!(ranges.iter().all(|(first, last)| first == last), "each alone: {ranges:?}");
}

#[test]
fn what_the_mail_server_does_not_take_now_is_sent_later_to_all_or_in_the_end_to_the_others() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let scene = scene(&mails, "1h");
    mails.behave(&json!({ "recipients": { "slow@example.org": "450 4.2.1 greylisted" } }));
    subscribe(&scene, &json!(["slow@example.org", "ops@example.org"]));
    scene.commit(1);
    let mail = mails.wait_for(1).remove(0);
    assert_eq!(mail.to(), ["ops@example.org"], "one recipient keeps a mail from the others for five tries");
    let failed = eventually("its entry", SOON, || scene.entries("type:mail.failed").pop());
    assert_eq!(failed["data"]["to"], json!(["slow@example.org"]));
    let tries =
        eventually("five tries", SOON, || Some(scene.tries("ops", "")).filter(|tries| tries.len() >= 5));
    let statuses: Vec<_> = tries.iter().rev().map(|one| one["http_status"].as_u64()).collect();
    assert_eq!(statuses, [503, 503, 503, 503, 250].map(Some), "{tries:?}");
}

#[test]
fn a_wrong_password_blocks_and_is_not_told_and_with_the_right_one_nothing_is_lost() {
    let Some(mails) = MailServer::start("starttls") else { return };
    let server = mails.used_by(Server::prepare()).with("mail.password", "a wrong password of ours");
    let mut scene = Scene::with(started(server));
    subscribe(&scene, &json!("ops@example.org"));
    scene.commit(2);
    let blocked = scene.wait_for_state("ops", "blocked");
    let reason = blocked["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("login: 535 5.7.8 no login tidings with [redacted]"), "{reason}");
    let shown = [blocked.to_string(), json!(scene.tries("ops", "")).to_string(), scene.server.log()];
    assert!(shown.iter().all(|text| !text.contains("a wrong password of ours")), "{shown:?}");
    let logins = mails.logins();
    assert!(
        logins.iter().all(|(user, good, encrypted)| user == "tidings" && !good && *encrypted),
        "{logins:?}"
    );
    assert!(mails.mails().is_empty());
    assert!(scene.server.terminate().0.success());
    scene.server = started(mails.used_by(scene.server));
    wait_until_told(&scene);
    assert!(!mails.mails().is_empty());
}

#[test]
fn a_server_that_offers_no_starttls_or_has_another_certificate_is_told_no_password() {
    let Some(mails) = MailServer::start("none") else { return };
    let scene = Scene::with(started(mails.used_by(Server::prepare()).with("mail.tls", "starttls")));
    subscribe(&scene, &json!("ops@example.org"));
    scene.commit(1);
    let blocked = scene.wait_for_state("ops", "blocked");
    let reason = blocked["reason"].as_str().expect("a reason");
    assert!(reason.contains("does not offer STARTTLS"), "{reason}");
    assert_eq!(mails.logins(), [], "the password did not leave");

    let Some(strange) = MailServer::start("starttls") else { return };
    let scene = Scene::with(started(strange.used_by(Server::prepare()).without("egress.ca_file")));
    subscribe(&scene, &json!("ops@example.org"));
    scene.commit(1);
    let blocked = scene.wait_for_state("ops", "blocked");
    assert!(blocked["reason"].as_str().expect("a reason").starts_with("TLS: "), "{blocked}");
    assert_eq!((strange.logins().len(), strange.mails().len()), (0, 0));
}

#[test]
fn mails_go_only_to_whom_the_operator_allows_now_and_then() {
    let Some(mails) = MailServer::start("implicit") else { return };
    let mut scene = scene(&mails, "1s");
    let refused = |scene: &Scene, sink: Value| {
        let (status, problem) = scene.ask("POST", "", Some(&json!({ "name": "x", "sink": sink })));
        assert_eq!(status, 422, "{problem}");
        let fault = &problem["errors"][0];
        (fault["pointer"].clone(), fault["detail"].as_str().expect("a text").to_owned())
    };
    for (to, pointer, part) in [
        (json!(["ops@example.org", "evil@example.net"]), "/sink/to/1", "mail.allow: contact, which counts"),
        (json!("stories@example.net"), "/sink/to/0", "where onboarding.mode is admin, @example.org"),
        (json!("ops@example.org\r\nBcc: x@example.org"), "/sink/to/0", "is no mail address"),
        (json!("m\u{fc}ller@example.org"), "/sink/to/0", "SMTPUTF8"),
        (json!("ops@m\u{fc}nchen.example"), "/sink/to/0", "xn-- form"),
        (json!([]), "/sink/to", "1 to 10"),
        (json!([7]), "/sink/to/0", "must be a text"),
    ] {
        let (found, detail) = refused(&scene, json!({ "kind": "mail", "to": to }));
        assert_eq!(found, pointer);
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(refused(&scene, json!({ "kind": "mail" })).0, "/sink/to");
    assert_eq!(refused(&scene, json!({ "kind": "mail", "to": "a@example.org", "url": "x" })).0, "/sink/url");
    assert_eq!(refused(&scene, json!({ "url": "https://x.example", "to": "a@example.org" })).0, "/sink/to");

    subscribe(&scene, &json!("ops@example.org"));
    scene.commit(1);
    mails.wait_for(1);
    wait_until_told(&scene);
    let before = mails.mails().len();
    assert!(scene.server.terminate().0.success());
    scene.server = started(scene.server.with("mail.allow", "contact"));
    scene.commit(1);
    let blocked = scene.wait_for_state("ops", "blocked");
    assert_eq!(blocked["reason"], "recipients: mail.allow does not list ops@example.org");
    assert_eq!(mails.mails().len(), before);
    let wish = json!({ "sink": { "to": "stories@example.org" } });
    let (status, problem) = scene.ask("PATCH", "/ops", Some(&wish));
    assert_eq!(status, 422, "where anyone may register an app, anyone may name a contact: {problem}");
    assert!(scene.server.terminate().0.success());
    scene.server = started(scene.server.with("onboarding.mode", "admin"));
    let (status, problem) = scene.ask("PATCH", "/ops", Some(&wish));
    assert_eq!(status, 422, "anyone could register this app and name its contact: {problem}");
    let own = scene.app.ask(&scene.server, "GET", "/api/app", None).json();
    assert_eq!(own["is_from_anyone"], true, "{own}");
    assert!(scene.server.terminate().0.success());
    scene.server = started(scene.server.with("mail.allow", "contact, *@example.org"));
    let (status, shown) = scene.ask("PATCH", "/ops", Some(&wish));
    assert_eq!(status, 200, "its domain is allowed: {shown}");
    scene.commit(1);
    eventually("a mail to the contact", SOON, || {
        let mails = mails.mails();
        mails.iter().any(|mail| mail.to() == ["stories@example.org"]).then_some(())
    });

    // The contact of an app that the staff registers counts.
    let admin = std::fs::read_to_string(scene.server.data().join("admin-token")).expect("a token");
    let body = json!({ "app_name": "stories", "email": "owner@app.example" });
    let made = scene.server.ask("POST", "/api/apps/onboard", Some(admin.trim()), Some(&body));
    let made = made.expect("an answer").json();
    let warning = made["warning"].as_str().expect("another app has the name");
    assert!(warning.contains(&scene.app.id) && warning.contains("\"stories\""), "{warning}");
    let token = made["token"].as_str().expect("a token");
    let body = json!({ "name": "own", "sink": { "kind": "mail", "to": "owner@app.example" } });
    let reply = scene.server.ask("POST", "/api/subscriptions", Some(token), Some(&body)).expect("an answer");
    assert_eq!(reply.status, 201, "{}", reply.json());
}

#[test]
fn without_a_mail_server_the_wish_is_refused_and_names_the_setting() {
    let scene = Scene::start();
    let body = json!({ "name": "ops", "sink": { "kind": "mail", "to": ["ops@example.org"] } });
    let (status, problem) = scene.ask("POST", "", Some(&body));
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/sink/kind")), "{problem}");
    assert!(problem["errors"][0]["detail"].as_str().expect("a text").contains("mail.server"), "{problem}");
    let watch = json!({ "url": scene.project.url(), "watch_name": "x", "sink": { "kind": "mail" } });
    let reply = scene.app.ask(&scene.server, "POST", "/api/repositories", Some(&watch));
    assert_eq!(reply.status, 422, "the changes of a repository go to no mail: {}", reply.json());
}

#[test]
fn the_command_line_says_each_step_and_makes_subscriptions() {
    let Some(mails) = MailServer::start("starttls") else { return };
    let server = started(mails.used_by(Server::prepare()));
    let run = |arguments: &[&str]| {
        let output = server.command(arguments).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, errors) = run(&["mail", "test", "anybody@example.net"]);
    assert_eq!(code, Some(0), "{out}{errors}");
    let mut rest = out.as_str();
    for step in ["connect", "TLS", "greeting", "login", "sender", "recipients", "content", "took the mail"] {
        let at = rest.find(step).unwrap_or_else(|| panic!("{step} in {out}"));
        rest = &rest[at..];
    }
    let open = "mail.allow (contact, which counts only where onboarding.mode is admin, @example.org) does not \
                list anybody@example.net: no subscription may name it";
    assert!(out.contains(open), "{out}");
    assert_eq!(mails.wait_for(1)[0].to(), ["anybody@example.net"]);
    assert_eq!(run(&["mail", "test", "nobody"]).0, Some(64), "no address");
    let send =
        |to: &str, data: &str| run(&["mail", "send", to, "--template", "test_results", "--data", data]);
    let (code, out, errors) = send("ops@example.org", r#"{"name": "docs", "passed": 7, "failed": 2}"#);
    assert_eq!(code, Some(0), "{out}{errors}");
    assert_eq!(mails.wait_for(2)[1].header("Subject"), "[Tidings] docs: 7 passed, 2 failed");
    for (to, data, part) in [
        ("ops@example.org", r#"{"name": "docs"}"#, "test_results"),
        ("ops@example.org", "[]", "JSON object"),
        ("ops@example.net", r#"{"name": "docs", "passed": 7, "failed": 2}"#, "mail.allow"),
    ] {
        let (code, _, errors) = send(to, data);
        assert_eq!(code, Some(64), "{errors}");
        assert!(errors.contains(part), "{errors}");
    }
    assert_eq!(mails.mails().len(), 2, "what lacks something is not sent");

    let scene = Scene::with(server);
    let url = format!("http://{}", scene.server.address());
    let add = |arguments: &[&str]| {
        let all = [&["subscription", "add"], arguments, &["--server", &url, "--json"]].concat();
        scene.server.command(&all).env("TIDINGS_TOKEN", &scene.app.token).output().expect("it runs")
    };
    let made = add(&["ops", "--mail", "ops@example.org", "--mail", "dev@example.org", "--filter", ROUNDS]);
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert_eq!(made["sink"]["to"], json!(["ops@example.org", "dev@example.org"]), "{made}");
    assert!(!add(&["other"]).status.success(), "--url or --mail is needed");
    let both = add(&["other", "--mail", "a@example.org", "--url", "https://ops.example"]);
    assert!(!both.status.success(), "one of the two");

    let mut wrong = scene.server.command(&["mail", "test", "ops@example.org"]);
    let output = wrong.env("TIDINGS__MAIL__PASSWORD", "wrong").output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("login: 535"), "{errors}");
    let output = scene
        .server
        .command(&["mail", "test", "ops@example.org"])
        .env("TIDINGS__MAIL__SERVER", "")
        .output()
        .expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("mail.server is not set"), "{output:?}");
}
