//! Hosts that refuse, fail, ask for patience and answer doubtfully; a server that is killed.

use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::support::{database, github_api::GithubApi};

#[test]
fn what_is_refused_for_good_ends_with_one_entry_and_goes_on_with_another_credential() {
    for status in [401, 403, 404, 422] {
        let scene = Scene::start(StatusHost::Github);
        let first = scene.project.head();
        scene.forge.wait_for(&first, "success");
        scene.forge.script(move |_| Verdict::Refuse(status, "", "{}"));
        let head = scene.push(2);
        scene.wait_until_held(&head);
        let entry = eventually("its entry", SOON, || scene.entries().pop());
        let data = &entry["data"];
        assert_eq!((&data["http_status"], &data["commit"]), (&json!(status), &json!(head)), "{entry}");
        assert_eq!(entry["origin"], json!({ "kind": "outside", "name": "git" }), "{entry}");
        assert!(data["reason"].as_str().is_some_and(|reason| reason.contains(&status.to_string())), "{data}");
        let tries = || scene.forge.told().iter().filter(|told| told.commit == head).count();
        assert_eq!(tries(), 1, "it is not asked again");

        scene.forge.take_all();
        let path = format!("/api/repositories/{}/token", scene.watch);
        let body = json!({ "token": "another-token" });
        assert_eq!(scene.app.ask(&scene.server, "PATCH", &path, Some(&body)).status, 200);
        scene.forge.wait_for(&head, "success");
        let last = scene.forge.told().pop().expect("a status");
        assert_eq!(last.authorization, "Bearer another-token");
        assert_eq!(scene.entries().len(), 1, "one entry");
        scene.end();
    }
}

#[test]
fn doubtful_answers_are_told_again_until_the_host_shows_the_truth() {
    for kind in [StatusHost::Github, StatusHost::Gitlab, StatusHost::Gitea] {
        let scene = Scene::with(kind, impatient());
        scene.forge.wait_for(&scene.project.head(), "success");
        let mut number = 0;
        scene.forge.script(move |_| {
            number += 1;
            match number % 6 {
                1 => Verdict::TakeAndVanish,
                2 => Verdict::Refuse(500, "", "{}"),
                3 => Verdict::TakeAndHang,
                4 => Verdict::Vanish,
                5 => Verdict::Refuse(429, "retry-after: 1\r\n", "{}"),
                _ => Verdict::Take,
            }
        });
        let gate = scene.subscriber.hold_after(0);
        let mut heads = Vec::new();
        for files in [1, 2] {
            heads.push(scene.push(files));
            if files == 1 {
                scene.forge.wait_for(&heads[0], "pending");
                gate.open();
                scene.subscriber.accept_all();
            }
            scene.wait_until_held(heads.last().expect("a head"));
        }
        scene.forge.take_all();
        for head in &heads {
            scene.forge.wait_for(head, "success");
        }
        assert!(scene.entries().is_empty(), "{:?}", scene.entries());
        scene.end();
    }
}

#[test]
fn after_an_outage_and_kills_no_commit_is_pending_and_none_is_wrong() {
    let mut scene = Scene::with(StatusHost::Github, impatient());
    scene.forge.wait_for(&scene.project.head(), "success");
    scene.forge.script(|_| Verdict::Refuse(502, "", "{}"));
    let mut heads = Vec::new();
    for files in 1..=4 {
        heads.push(scene.push(files));
        scene.wait_until_held(heads.last().expect("a head"));
        scene.server.kill();
        scene.server.run();
    }
    // The last one is under way when the host takes one word, and the server dies before it hears that.
    let gate = scene.subscriber.hold_after(0);
    let before = heads.clone();
    // Words about the commits before would take all the places at this host.
    scene.forge.script(move |told| match before.contains(&told.commit) {
        true => Verdict::Refuse(502, "", "{}"),
        false => Verdict::TakeAndHang,
    });
    heads.push(scene.push(5));
    scene.forge.wait_for(heads.last().expect("a head"), "pending");
    scene.server.kill();
    scene.forge.take_all();
    gate.open();
    scene.subscriber.accept_all();
    scene.server.run();
    for head in &heads {
        scene.forge.wait_for(head, "success");
    }
    scene.end();
}

#[test]
fn a_host_that_asks_for_patience_gets_it_and_another_host_does_not_wait() {
    let scene = Scene::start(StatusHost::Github);
    scene.forge.wait_for(&scene.project.head(), "success");
    let other = Forge::start(StatusHost::Gitea);
    let project = Project::with(&[("a", "1")]);
    other.publish(&project);
    let body = json!({ "url": other.url(), "token": TOKEN, "status": "gitea" });
    let second = scene.app.watch_with(&scene.server, &body);
    other.wait_for(&project.head(), "success");

    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::<Instant>::new()));
    let noted = asked.clone();
    scene.forge.script(move |_| {
        let mut asked = noted.lock().expect("no panic");
        asked.push(Instant::now());
        // So long that a busy machine tells the other host meanwhile.
        if asked.len() == 1 { Verdict::Refuse(403, "retry-after: 20\r\n", "{}") } else { Verdict::Take }
    });
    let head = scene.push(1);
    eventually("the first request", SOON, || (!asked.lock().expect("no panic").is_empty()).then_some(()));
    project.write("b", b"1");
    let elsewhere = project.commit("two");
    other.publish(&project);
    other.wait_for(&elsewhere, "success");
    assert_eq!(asked.lock().expect("no panic").len(), 1, "the other host did not wait for this one");
    scene.forge.wait_for(&head, "success");
    let asked = asked.lock().expect("no panic").clone();
    assert!(asked[1] - asked[0] >= Duration::from_secs(20), "{:?}", asked[1] - asked[0]);
    assert!(scene.entries().is_empty(), "asking for patience is no refusal");
    scene.app.unwatch(&scene.server, &second);
    scene.end();
    other.assert_straight();
}

#[test]
fn after_nine_hundred_statuses_of_a_commit_the_last_one_stands() {
    let mut scene = Scene::with(StatusHost::Gitea, prepared().without("database.url"));
    let head = scene.project.head();
    scene.forge.wait_for(&head, "success");
    scene.server.kill();
    let known = "update commit_status set count = 899, told = wanted, next_at = null, is_claimed = false";
    database::change(&scene.server, known);
    scene.server.run();
    let gate = scene.subscriber.hold_after(0);
    scene.app.tell(&scene.server, &scene.watch, "resync");
    scene.forge.wait_for(&head, "pending");
    gate.open();
    scene.forge.wait_for(&head, "success");
    let words = scene.forge.words(&head);
    assert_eq!(words[words.len() - 2..], ["pending", "success"]);
    scene.wait_until_held(&head);
    scene.app.tell(&scene.server, &scene.watch, "resync");
    let entry = eventually("its entry", SOON, || scene.entries().pop());
    assert!(entry["data"]["reason"].as_str().is_some_and(|reason| reason.contains("900")), "{entry}");
    scene.app.tell(&scene.server, &scene.watch, "resync");
    let next = scene.push(1);
    scene.forge.wait_for(&next, "success");
    assert_eq!(scene.forge.words(&head), words, "nothing more is told");
    assert_eq!(scene.entries().len(), 1, "one entry");
    scene.end();
}

#[test]
fn a_github_app_tells_with_a_token_that_may_write_statuses_and_nothing_else() {
    let (mut server, subscriber) = (prepared(), Subscriber::start());
    server.run();
    let (forge, api) = (Forge::start(StatusHost::Github), GithubApi::start());
    let project = Project::with(&[("a", "1")]);
    forge.publish(&project);
    let app = App::onboard_with(&server, &subscriber, &json!({ "app_name": "docs" }));
    let body = json!({ "url": forge.url(), "github_app": forge.with_app(&api), "status": "auto" });
    let watch = app.watch_with(&server, &body);
    let shown = app.repository(&server, &watch);
    assert_eq!(shown["status"], json!({ "host": "github", "context": "tidings/docs/two" }));
    forge.wait_for(&project.head(), "success");
    let asked: Vec<Value> =
        api.seen().iter().map(|message| serde_json::from_slice(&message.body).expect("JSON")).collect();
    let reads = json!({ "permissions": { "contents": "read" } });
    let writes = json!({ "permissions": { "statuses": "write" } });
    assert_eq!(asked.iter().filter(|asked| **asked == writes).count(), 1, "{asked:?}");
    assert!(asked.iter().all(|asked| *asked == writes || *asked == reads), "{asked:?}");
    assert!(forge.told().iter().all(|told| told.authorization.starts_with("Bearer ghs_minted")));

    // A token that the host forgot is minted again once.
    let mut is_first = true;
    forge.script(move |_| match std::mem::replace(&mut is_first, false) {
        true => Verdict::Refuse(401, "", "{}"),
        false => Verdict::Take,
    });
    project.write("b", b"1");
    let head = project.commit("two");
    forge.publish(&project);
    forge.wait_for(&head, "success");
    forge.assert_straight();
}

#[test]
fn a_farewell_that_the_host_refuses_is_told_to_the_app() {
    let scene = Scene::start(StatusHost::Github);
    scene.forge.wait_for(&scene.project.head(), "success");
    let gate = scene.subscriber.hold_after(0);
    let head = scene.push(2);
    scene.forge.wait_for(&head, "pending");
    scene.forge.script(|_| Verdict::Refuse(401, "", "{}"));
    scene.app.unwatch(&scene.server, &scene.watch);
    let entry = eventually("its entry", SOON, || scene.entries().pop());
    let data = &entry["data"];
    assert_eq!((&data["commit"], &data["wanted"]), (&json!(head), &json!("cancelled")), "{entry}");
    assert_eq!(data["http_status"], json!(401), "{entry}");
    assert_eq!(scene.entries().len(), 1, "one entry");
    gate.open();
}

/// When a status is told next.
fn due(status: &Value) -> Option<SystemTime> {
    humantime::parse_rfc3339(status["next_attempt_at"].as_str()?).ok()
}

#[expect(
    clippy::disallowed_methods,
    reason = "moments of the server are compared with those of this machine"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[test]
fn a_host_that_takes_no_statuses_for_a_while_is_read_and_delivered_from_all_the_same() {
    for answer in [(429, "retry-after: 300\r\n"), (503, "retry-after: 999999999\r\n")] {
        let mut scene = Scene::start(StatusHost::Github);
        scene.forge.wait_for(&scene.project.head(), "success");
        scene.forge.script(move |_| Verdict::Refuse(answer.0, answer.1, "{}"));
        for files in 1..=3 {
            let head = scene.push(files);
            scene.wait_until_held(&head);
        }
        let told = || scene.forge.told().iter().filter(|told| !told.is_taken).count();
        eventually("the host is asked", SOON, || (told() > 0).then_some(()));
        let path = format!("/api/repositories/{}/statuses", scene.watch);
        let listed = || items(&scene.app.ask(&scene.server, "GET", &path, None).json());
        // A request that is under way is over within half a minute; the host asked for five.
        eventually("every status waits as long as the host asked", SOON, || {
            let nexts = listed().iter().filter_map(due).collect::<Vec<_>>();
            let soonest = nexts.iter().min()?;
            (soonest.duration_since(now()).ok()? > Duration::from_secs(60)).then_some(())
        });
        let asked = told();
        // Also a server that was started again waits as long as the host asked.
        scene.server.kill();
        scene.server.run();
        let head = scene.push(4);
        scene.wait_until_held(&head);
        let again = scene.forge.told().iter().filter(|told| !told.is_taken && told.commit != head).count();
        assert_eq!(again, asked, "nothing is asked again");
        let waiting = items(&scene.app.ask(&scene.server, "GET", &path, None).json());
        let waits = |status: &Value| status["next_attempt_at"].is_string() && status["tries"] == 1;
        assert!(waiting.iter().any(waits), "{waiting:?}");
    }
}
