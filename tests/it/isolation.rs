//! One app's receiver is no other app's problem, and one app's credential opens nothing for another.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    api::App,
    git_host::Fault,
    patience::{SOON, eventually},
    project::Project,
    puller::Puller,
    remote::Host,
    server::Server,
    subscriber::{Answer, Subscriber},
};

/// How long most of several turns took at most: the median, which a few slow turns of a busy machine do not move.
pub(crate) fn usual(turns: &[Duration]) -> Duration {
    let mut sorted = turns.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[test]
fn a_receiver_that_hangs_drips_floods_or_redirects_does_not_slow_another_app() {
    let project = Project::with(&[("a", "1"), ("b", "1")]);
    let canary = Subscriber::start();
    let redirect =
        format!("HTTP/1.1 307 over there\r\nlocation: {}/create\r\ncontent-length: 0\r\n\r\n", canary.url());
    let headers = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(1 << 20));
    let lines: String = (0..10_000).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
    let misdeeds = [
        Answer::Hang,
        Answer::Drip,
        Answer::Flood,
        Answer::Vanish,
        Answer::Say(redirect.into_bytes()),
        Answer::Say(headers.into_bytes()),
        Answer::Say(many.into_bytes()),
        Answer::Say(b"220 I am no web server\r\n".to_vec()),
    ];
    // Who waits for attempts at hostile receivers waits for at least this long in each round.
    let mut server = Server::prepare().with("delivery.attempt_timeout", "15s");
    server.run();
    let hostile: Vec<(Subscriber, App, String)> = misdeeds
        .into_iter()
        .map(|misdeed| {
            let subscriber = Subscriber::start();
            subscriber.script(move |_| misdeed.clone());
            let app = App::onboard(&server, &subscriber);
            let id = app.watch(&server, &project);
            (subscriber, app, id)
        })
        .collect();
    for (subscriber, _, _) in &hostile {
        subscriber.wait_for("attempt at each hostile receiver", |model| (model.requests > 0).then_some(()));
    }
    let before = server.resident();

    let good = Subscriber::start();
    let app = App::onboard(&server, &good);
    let id = app.watch(&server, &project);
    let mut waits = Vec::new();
    for round in 0..30 {
        project.write("a", format!("round {round}").as_bytes());
        let head = project.commit("next");
        let began = Instant::now();
        good.wait_for_tree(&id, &project.tree(&head));
        waits.push(began.elapsed());
    }

    // Who is held up by others waits for each round; a busy machine makes a few of them slow.
    assert!(usual(&waits) < Duration::from_secs(10), "the good app waited {waits:?}");
    good.assert_straight();
    assert_eq!(canary.model().requests, 0, "a redirect was followed");
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    for (subscriber, _, _) in &hostile {
        // 64 KiB of an answer are read, plus what lies in the buffers of two sockets.
        assert!(subscriber.flooded() < 200 << 20, "{} bytes were read", subscriber.flooded());
        subscriber.accept_all();
    }
    for (subscriber, app, id) in &hostile {
        // An open breaker probes at least once a minute.
        eventually("mirror of a receiver that is well again", 2 * SOON, || {
            (subscriber.mirror(id).len() == 2).then_some(())
        });
        subscriber.wait_for_tree(id, &project.tree("HEAD"));
        app.wait_until_held(&server, id, &project.head());
        subscriber.assert_faultless();
    }
}

#[test]
fn a_receiver_that_is_slow_with_a_large_file_keeps_no_memory_from_another_app() {
    let (twice_the_memory, a_part_of_it) = ("x".repeat(2 << 20), "y".repeat(100 << 10));
    let large = Project::with(&[("large", twice_the_memory.as_str())]);
    let ordinary = Project::with(&[("a", a_part_of_it.as_str())]);
    // Who waits for memory that the attempt at the slow receiver holds waits for longer than the story does.
    let server = Server::prepare().with("delivery.memory_bytes", "1048576");
    let mut server = server.with("delivery.attempt_timeout", "10m");
    server.run();
    let slow = Subscriber::start();
    slow.script(|_| Answer::Hang);
    let hostile = App::onboard(&server, &slow);
    hostile.watch(&server, &large);
    slow.wait_for("attempt at the slow receiver", |model| (model.requests > 0).then_some(()));

    let good = Subscriber::start();
    let app = App::onboard(&server, &good);
    let id = app.watch(&server, &ordinary);
    good.wait_for_tree(&id, &ordinary.tree("HEAD"));
    let puller = Puller::onboard(&server);
    let pulled = puller.app.watch(&server, &ordinary);
    let pending = eventually("a pending change", SOON, || puller.ask(&server, &pulled, "wait_seconds=20"));
    assert_eq!(pending["to"], 1, "{pending}");
}

#[test]
fn a_private_repository_of_one_app_gives_no_byte_to_another() {
    let host = Host::start_apart();
    let project = Project::with(&[("public.txt", "everyone may read this")]);
    host.publish(&project, "team/project");
    let mut server = Server::prepare();
    server.run();
    let (with_token, without) = (Subscriber::start(), Subscriber::start());
    let (insider, outsider) = (App::onboard(&server, &with_token), App::onboard(&server, &without));
    let first = project.head();
    let url = host.url("team/project");
    let outside = outsider.watch_with(&server, &json!({ "url": url }));
    outsider.wait_until_held(&server, &outside, &first);
    let public = without.mirror(&outside);

    host.demand_token("secret-of-the-team");
    project.write("private.txt", b"the crown jewels");
    let second = project.commit("private from now on");
    host.publish(&project, "team/project");
    let inside = insider.watch_with(&server, &json!({ "url": url, "token": "secret-of-the-team" }));
    insider.wait_until_held(&server, &inside, &second);
    with_token.wait_for_tree(&inside, &project.tree(&second));

    // The outsider asks in every way there is.
    outsider.tell(&server, &outside, "scan");
    outsider.tell(&server, &outside, "resync");
    for token in [None, Some("guess"), Some("secret-of-the-tea")] {
        let reply = outsider.ask(
            &server,
            "POST",
            "/api/repositories",
            Some(&json!({ "url": url, "token": token.unwrap_or("no") })),
        );
        assert_eq!(reply.status, 404, "{}", reply.json());
    }
    let reply =
        outsider.ask(&server, "POST", "/api/repositories", Some(&json!({ "url": url, "start": second })));
    assert_eq!(reply.status, 404, "{}", reply.json());
    for (method, path) in [
        ("GET", format!("/api/repositories/{inside}")),
        ("POST", format!("/api/repositories/{inside}/resync")),
        ("POST", format!("/api/repositories/{inside}/scan")),
        ("DELETE", format!("/api/repositories/{inside}")),
        ("PATCH", format!("/api/repositories/{inside}")),
    ] {
        let body = (method == "PATCH").then(|| json!({ "state": "paused" }));
        assert_eq!(outsider.ask(&server, method, &path, body.as_ref()).status, 404, "{method} {path}");
    }
    eventually("error of the outsider's source", SOON, || {
        let shown = outsider.repository(&server, &outside);
        shown["last_error"].is_string().then_some(())
    });

    assert_eq!(without.mirror(&outside), public, "the outsider keeps what was public, and no more");
    let model = without.model();
    for change in &model.applied {
        assert_eq!(change.commit, first, "a commit that its own source never reported");
    }
    let told = format!("{:?}{:?}", model.notices, model.applied);
    assert!(
        !told.contains("jewels") && !told.contains("private.txt") && !told.contains("secret-of-the-team")
    );
    drop(model);
    let shown = outsider.repository(&server, &outside);
    assert_ne!(shown["branches"][0]["head_commit"], second.as_str(), "not even the name of the commit");
    assert!(!server.log().contains("secret-of-the-team"), "the log holds the credential");
    with_token.assert_straight();
}

#[test]
fn a_git_host_that_hangs_holds_up_no_repository_of_another_host() {
    let (hanging, healthy) = (Host::start_apart(), Host::start_apart());
    let project = Project::with(&[("a", "1")]);
    hanging.publish(&project, "o/r");
    healthy.publish(&project, "o/r");
    let server = Server::start();
    let subscriber = Subscriber::start();
    let app = App::onboard(&server, &subscriber);
    let ids: Vec<String> = [&hanging, &healthy]
        .into_iter()
        .map(|host| app.watch_with(&server, &json!({ "url": host.url("o/r") })))
        .collect();
    for id in &ids {
        app.wait_until_held(&server, id, &project.head());
    }

    hanging.misbehave(Some(Fault::Hang));
    for round in 0..5 {
        project.write("a", format!("round {round}").as_bytes());
        project.commit("next");
        hanging.publish(&project, "o/r");
        healthy.publish(&project, "o/r");
        subscriber.wait_for_tree(&ids[1], &project.tree("HEAD"));
    }
    assert_eq!(subscriber.mirror(&ids[0]), project.tree("HEAD~5"));

    subscriber.assert_straight();
}

#[test]
fn repositories_of_one_app_that_hang_hold_up_no_other_app_at_the_same_host_name() {
    // Their ports differ, so that both are one host to the server.
    let (hanging, healthy) = (Host::start(), Host::start());
    let project = Project::with(&[("a", "1")]);
    healthy.publish(&project, "o/r");
    let server = Server::start();
    let (other_side, good) = (Subscriber::start(), Subscriber::start());
    let (other, app) = (App::onboard(&server, &other_side), App::onboard(&server, &good));
    for number in 0..6 {
        hanging.publish(&project, &format!("o/{number}"));
        let url = hanging.url(&format!("o/{number}"));
        let id = other.watch_with(&server, &json!({ "url": url }));
        other.wait_until_held(&server, &id, &project.head());
    }
    let id = app.watch_with(&server, &json!({ "url": healthy.url("o/r") }));
    app.wait_until_held(&server, &id, &project.head());

    hanging.misbehave(Some(Fault::Hang));
    // Beside four listings that hang, the polls of the healthy repository come and go.
    eventually("listings that hang", SOON, || {
        let shown = server.ask_as_admin("GET", "/api/admin/overview").json();
        let scanning =
            shown["hosts"].as_array()?.iter().find(|host| host["host"] == "127.0.0.1")?["scanning"].as_u64();
        (scanning? >= 4).then_some(())
    });
    let mut waits = Vec::new();
    for round in 0..5 {
        let began = Instant::now();
        project.write("a", format!("round {round}").as_bytes());
        let head = project.commit("next");
        healthy.push_main(&project, "o/r");
        app.wait_until_held(&server, &id, &head);
        waits.push(began.elapsed());
    }
    // A listing that hangs ends after 40 seconds.
    assert!(usual(&waits) < Duration::from_secs(10), "pushes took {waits:?}");

    good.assert_straight();
}
