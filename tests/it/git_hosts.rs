//! Git hosts that are hostile or broken: a typed error that the app can see, a mirror that stays
//! whole, and a watch that goes on by itself when the host is well again.

use serde_json::{Value, json};

use crate::support::{
    api::App,
    git_host::Fault,
    github_api::GithubApi,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::Subscriber,
};

#[test]
fn every_misdeed_of_a_host_is_told_to_the_app_and_healed() {
    let misdeeds: Vec<(&str, Fault)> = vec![
        ("hangs", Fault::Hang),
        ("cuts the pack in half", Fault::CutInHalf),
        ("stalls in the pack", Fault::Stall),
        ("answers HTML as Git", Fault::Html),
        ("answers a web page", Fault::WebPage),
        ("answers 503", Fault::Status(503, None)),
        ("asks for patience", Fault::Status(429, Some("1"))),
        ("lies about the number of objects", Fault::ObjectCount(u32::MAX)),
        ("flips a bit", Fault::FlippedBit),
    ];
    let server = slow_to_wait();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let watched: Vec<(&str, Fault, Host, Project, String)> = misdeeds
        .into_iter()
        .map(|(what, fault)| {
            let (host, project) = (Host::start_apart(), Project::with(&[("a", "1")]));
            host.publish(&project, "o/r");
            let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
            app.wait_until_held(&server, &id, &project.head());
            (what, fault, host, project, id)
        })
        .collect();

    for (_, fault, host, project, _) in &watched {
        host.misbehave(Some(fault.clone()));
        project.write("b", b"2");
        project.commit("second");
        host.publish(project, "o/r");
    }
    for (what, _, _, project, id) in &watched {
        let shown = eventually(&format!("error of a host that {what}"), SOON, || {
            let shown = app.repository(&server, id);
            shown["last_error"].is_string().then_some(shown)
        });
        println!("{what}: {}", shown["last_error"]);
        assert_eq!(subscriber.mirror(id), project.tree("HEAD~1"), "{what}: nothing may be lost or invented");
    }
    let held = server.resident();
    assert!(held < 400 << 20, "{held} bytes are held");

    for (_, _, host, _, id) in &watched {
        host.misbehave(None);
        app.tell(&server, id, "scan");
    }
    for (what, _, _, project, id) in &watched {
        // The breaker of a host that failed for long lets a probe through once a minute at least.
        app.wait_until_held(&server, id, &project.head());
        subscriber.wait_for_tree(id, &project.tree("HEAD"));
        println!("{what}: healed");
        eventually("end of the error", SOON, || {
            app.repository(&server, id)["last_error"].is_null().then_some(())
        });
    }
    subscriber.assert_straight();
}

#[test]
fn the_fifth_failure_tells_every_app_once_nested_and_flat() {
    let host = Host::start();
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "owner/name");
    let server = slow_to_wait();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("owner/name"), "token": "the-secret-token" }));
    app.wait_until_held(&server, &id, &project.head());

    host.misbehave(Some(Fault::Status(500, None)));
    let body = failure(&subscriber);

    assert_eq!(body["event"], "sync_failed");
    assert_eq!(body["repository"]["repository_id"], id.as_str());
    assert_eq!(body["repository"]["owner"], "owner");
    assert_eq!(body["error"]["type"], "git_failure");
    assert_eq!(body["error"]["message"], body["error_message"]);
    assert!(body["error_type"].is_string());
    let breaker = &body["circuit_breaker"];
    assert_eq!((&breaker["status"], &breaker["threshold"]), (&json!("open"), &json!(5)));
    assert_eq!((&breaker["consecutive_failures"], &body["retry_count"]), (&json!(5), &json!(4)));
    assert!(breaker["cooldown_until"].is_string() && body["timestamp"].is_string());
    assert!(!body.to_string().contains("the-secret-token"));
    let shown = app.repository(&server, &id);
    assert_eq!(shown["breaker"]["state"], "open", "{shown}");
    assert_eq!(subscriber.model().notices.len(), 1, "once per opening");
    subscriber.assert_faultless();
}

#[test]
fn refused_credentials_are_told_as_a_failure_of_authentication() {
    let host = Host::start();
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "owner/name");
    host.demand_token("first-token");
    let server = slow_to_wait();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let id =
        app.watch_with(&server, &json!({ "url": host.url("owner/name"), "github_token": "first-token" }));
    app.wait_until_held(&server, &id, &project.head());
    assert_eq!(app.repository(&server, &id)["is_private"], true);

    host.demand_token("second-token");
    project.write("b", b"2");
    let second = project.commit("second");
    host.publish(&project, "owner/name");
    let body = failure(&subscriber);
    assert!(body["error_type"].as_str().is_some_and(|text| text.contains("auth")), "{body}");
    assert!(!body.to_string().contains("first-token"), "{body}");

    let path = format!("/api/repositories/{id}/token");
    let refused = app.ask(&server, "PATCH", &path, Some(&json!({ "github_token": "guess" })));
    assert_eq!((refused.status, &refused.json()["error"]), (422, &json!("Invalid GitHub token")));
    let replaced = app.ask(&server, "PATCH", &path, Some(&json!({ "github_token": "second-token" })));
    assert_eq!((replaced.status, replaced.json()), (200, json!({ "message": "Token updated successfully" })));
    app.wait_until_held(&server, &id, &second);
    subscriber.wait_for_tree(&id, &project.tree(&second));
    subscriber.assert_straight();
    assert!(!server.log().contains("first-token") && !server.log().contains("second-token"));
}

#[test]
fn a_revoked_installation_blocks_only_its_watch_until_it_gets_another_credential() {
    let (host, api, project) = (Host::start(), GithubApi::start(), Project::with(&[("a", "1")]));
    host.publish(&project, "owner/name");
    host.demand_token(&GithubApi::token(1));
    let open = Host::start();
    open.publish(&project, "owner/name");
    let server = slow_to_wait();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("owner/name"), "github_app": api.app() }));
    let other = app.watch_with(&server, &json!({ "url": open.url("owner/name") }));
    app.wait_until_held(&server, &id, &project.head());
    assert_eq!(api.seen().len(), 1, "registration, polls and fetches share one token");

    api.refuse(Some((401, "")));
    host.demand_token("nobody has this one");
    project.write("b", b"2");
    let second = project.commit("second");
    host.publish(&project, "owner/name");
    open.publish(&project, "owner/name");
    app.wait_until_held(&server, &other, &second);
    let shown = eventually("word on the revoked installation", SOON, || {
        let shown = app.repository(&server, &id);
        shown["last_error"].as_str().is_some_and(|text| text.contains("installation")).then_some(shown)
    });
    let text =
        "the credential cannot be used: the API refuses the GitHub App's key or installation with status 401";
    assert_eq!(shown["last_error"], text);
    assert!(app.repository(&server, &other)["last_error"].is_null(), "the other one does not notice");

    let path = format!("/api/repositories/{id}/token");
    let refused = app.ask(&server, "PATCH", &path, Some(&json!({ "github_app": api.app() })));
    assert_eq!(refused.status, 422, "{}", refused.json());
    host.demand_token("replacement");
    let replaced = app.ask(&server, "PATCH", &path, Some(&json!({ "token": "replacement" })));
    assert_eq!(replaced.status, 200, "{}", replaced.json());
    app.wait_until_held(&server, &id, &second);
    eventually("end of the error", SOON, || {
        app.repository(&server, &id)["last_error"].is_null().then_some(())
    });
    subscriber.assert_straight();
}

/// Deadlines of the Git engine short enough for a story, and long enough for a host on a busy machine.
fn slow_to_wait() -> Server {
    let mut server = Server::prepare()
        .with("git.read_timeout", "4s")
        .with("git.poll_timeout", "6s")
        .with("git.fetch_timeout", "8s")
        .with("git.least_rate_window", "2s");
    server.run();
    server
}

fn failure(subscriber: &Subscriber) -> Value {
    subscriber.wait_for("sync_failed", |model| {
        model.notices.iter().find(|notice| notice.action == "sync_failed").map(|notice| notice.body.clone())
    })
}

#[test]
fn a_repository_beside_one_of_the_same_name_without_the_suffix_is_not_mistaken_for_it() {
    let (host, server, subscriber) = (Host::start(), Server::start(), Subscriber::start());
    let (plain, suffixed) = (Project::with(&[("plain", "1")]), Project::with(&[("suffixed", "1")]));
    host.publish(&plain, "o/twin");
    host.publish(&suffixed, "o/twin.git");
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/twin.git") }));
    app.wait_until_held(&server, &id, &suffixed.head());
    assert_eq!(subscriber.mirror(&id), suffixed.tree("HEAD"));
    let other = app.watch_with(&server, &json!({ "url": host.url("o/twin") }));
    assert_ne!(id, other);
    app.wait_until_held(&server, &other, &plain.head());
    assert_eq!(subscriber.mirror(&other), plain.tree("HEAD"));
    suffixed.write("next", b"2");
    let next = suffixed.commit("next");
    host.publish(&suffixed, "o/twin.git");
    app.tell(&server, &id, "scan");
    app.wait_until_held(&server, &id, &next);
    assert_eq!(subscriber.mirror(&id), suffixed.tree("HEAD"));
}

#[test]
fn the_last_branch_of_a_pattern_goes_although_head_names_none() {
    let host = Host::start();
    let mut server = Server::prepare().with("git.branch_gone_after", "1s");
    server.run();
    let subscriber = Subscriber::start();
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "o/r");
    let repository = host.repository("o/r");
    repository.git(["update-ref", "refs/heads/release/1", &project.head()]);
    repository.git(["symbolic-ref", "HEAD", "refs/heads/nowhere"]);
    let delivery = json!({ "delivery": { "multi_branch": true } });
    let app = App::onboard_with(&server, &subscriber, &delivery);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r"), "branch": "release/*" }));
    app.wait_until_held(&server, &id, &project.head());
    assert_eq!(subscriber.mirror(&id), project.tree("HEAD"));
    repository.git(["update-ref", "-d", "refs/heads/release/1"]);
    eventually("the branch is gone, and its files with it", SOON, || {
        subscriber.mirror(&id).is_empty().then_some(())
    });
    subscriber.assert_straight();
}

#[test]
fn a_repository_that_lists_nothing_any_more_says_so_and_loses_nothing() {
    let (host, server, subscriber) = (Host::start(), slow_to_wait(), Subscriber::start());
    let project = Project::with(&[("a", "1")]);
    host.publish(&project, "o/r");
    let app = App::onboard(&server, &subscriber);
    let id = app.watch_with(&server, &json!({ "url": host.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());
    host.repository("o/r").git(["update-ref", "-d", "refs/heads/main"]);
    let shown = eventually("the reason", SOON, || {
        let shown = app.repository(&server, &id);
        (shown["effective_state"] == "source_failing").then_some(shown)
    });
    let reason = shown["effective_reason"].as_str().expect("a reason");
    assert!(reason.contains("lists no branch and no tag any more"), "{reason}");
    assert_eq!(subscriber.mirror(&id), project.tree("HEAD"), "it may be a mistake");
    project.write("b", b"2");
    let second = project.commit("second");
    host.publish(&project, "o/r");
    app.wait_until_held(&server, &id, &second);
    assert_eq!(subscriber.mirror(&id), project.tree("HEAD"));
    subscriber.assert_straight();
}
