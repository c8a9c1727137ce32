//! What a press does, and nothing else: no watch is taken over, no pause is lifted, no other change is given up.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{REPOSITORY, Scene, making::shown_secret, walks::fixed};
use crate::support::{
    api::{App, items},
    browser::Browser,
    inbox::Inbox,
    patience::{SOON, eventually},
    subscriber::{Answer, Subscriber},
};

/// A token of the app that may do this alone.
fn narrowed(scene: &Scene, permissions: &[&str]) -> String {
    let wish = json!({ "name": permissions[0], "permissions": permissions });
    let made = scene.app.ask(&scene.server, "POST", "/api/app/tokens", Some(&wish));
    assert_eq!(made.status, 201, "{}", made.json());
    made.json()["token"].as_str().expect("a token").to_owned()
}

fn ask(scene: &Scene, token: &str, path: &str, body: &Value) -> (u16, Value) {
    let reply = scene.server.ask("POST", path, Some(token), Some(body)).expect("an answer");
    (reply.status, reply.json())
}

#[test]
fn a_repository_that_is_watched_already_gets_a_second_watch_by_a_name_and_is_replaced_after_a_question() {
    let scene = Scene::told("");
    let inbox = Inbox::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let before = scene.receiver.applied().len();
    let fill = || {
        scene.visit(&browser, "start");
        browser.write("#field-url", &scene.repository_url());
        browser.write("#field-include", "docs/page-1.md");
        browser.click("input[name=goes][value=endpoint]");
        browser.write("#field-sink_url", &inbox.url());
        browser.wait_for("1 of 16 files match");
        browser.click_on("Watch this repository");
        browser.wait_for("The app watches this already");
    };
    let of = |id: &str| scene.app.repository(&scene.server, id);
    fill();
    assert_eq!((&of(&scene.watch)["include"], &of(&scene.watch)["sink"]), (&json!([]), &Value::Null));
    browser.write("#field-watch_name", "deploy");
    browser.click_on("Watch this repository");
    browser.wait_for("The app has everything");
    // The key of the new sink is shown, and no other one signs what goes there.
    let secret =
        shown_secret(&browser, "Signing secret: the receiver of this watch checks signatures with it");
    let letters = eventually("the one file", SOON, || {
        let letters = inbox.letters();
        letters.iter().any(|letter| letter.data()["file"]["path"] == "docs/page-1.md").then_some(letters)
    });
    assert!(letters.iter().all(|letter| letter.is_signed_with(&[&secret])));
    let all = items(&scene.app.ask(&scene.server, "GET", "/api/repositories", None).json());
    assert_eq!((all.len(), &of(&scene.watch)["include"]), (2, &json!([])));
    assert_eq!(scene.receiver.applied().len(), before, "the first watch sent nothing more");

    fill();
    browser.click_on("Change that watch instead");
    browser.wait_for("Replace the settings of the watch?");
    browser.click_on("Cancel");
    assert_eq!(of(&scene.watch)["include"], json!([]));
    browser.click_on("Change that watch instead");
    browser.click_on("Replace them");
    eventually("the settings of the form", SOON, || {
        (of(&scene.watch)["include"] == json!(["docs/page-1.md"])).then_some(())
    });
}

#[test]
fn who_may_only_make_watches_replaces_none() {
    let scene = Scene::told("");
    let maker = narrowed(&scene, &["watches:create"]);
    let body = json!({ "url": scene.repository_url(), "include": ["docs/page-1.md"] });
    let (status, refused) = ask(&scene, &maker, "/api/repositories", &body);
    assert_eq!((status, &refused["type"]), (403, &json!("urn:tidings:problem:permission-required")));
    assert!(refused["detail"].to_string().contains("watches:update"), "{refused}");
    let kept = scene.app.repository(&scene.server, &scene.watch);
    assert_eq!((&kept["include"], kept["branches"][0]["round"].is_null()), (&json!([]), true));
    let mut other = body.clone();
    other["watch_name"] = json!("deploy");
    assert_eq!(ask(&scene, &maker, "/api/repositories", &other).0, 201, "a watch of its own");
    let mut careful = body.clone();
    careful["if_watched"] = json!("refuse");
    let (status, refused) = ask(&scene, &scene.app.token, "/api/repositories", &careful);
    assert_eq!((status, &refused["type"]), (409, &json!("urn:tidings:problem:already-watched")));
    assert!(refused["detail"].to_string().contains(&scene.watch), "{refused}");
    let both = narrowed(&scene, &["watches:create", "watches:update"]);
    let (status, replaced) = ask(&scene, &both, "/api/repositories", &body);
    assert_eq!((status, &replaced["repository_id"]), (201, &json!(scene.watch)));
    assert_eq!(replaced["include"], json!(["docs/page-1.md"]));
}

#[test]
fn a_resync_of_a_paused_watch_waits_until_it_is_resumed() {
    let scene = Scene::told("");
    scene.app.tell(&scene.server, &scene.watch, "pause");
    let before = scene.receiver.applied().len();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    scene.visit(&browser, &format!("watch?id={}", scene.watch));
    browser.click_on("Resync");
    browser.wait_for("The watch stays paused: the resync begins when it is resumed.");
    browser.click("dialog button[type=submit]");
    browser.wait_for("A resync was asked for.");
    // The same by a token that may not resume it.
    let resyncs = narrowed(&scene, &["watches:resync"]);
    let path = format!("/api/repositories/{}/resync", scene.watch);
    assert_eq!(ask(&scene, &resyncs, &path, &json!({})).0, 202);
    let paused = scene.app.repository(&scene.server, &scene.watch);
    assert_eq!((&paused["state"], &paused["effective_state"]), (&json!("paused"), &json!("paused")));
    assert_eq!(scene.receiver.applied().len(), before);
    browser.click_on("Resume");
    eventually("everything once more", SOON, || {
        (scene.receiver.applied().len() >= before + 13).then_some(())
    });
}

#[test]
fn a_sign_out_that_fails_says_so() {
    let mut scene = Scene::told("");
    scene.server = fixed(scene.server);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    scene.server.kill();
    browser.click_on("Sign out");
    browser.wait_for("You are still signed in: The server does not answer.");
    assert!(!browser.text().contains("With the token of an app"));
    scene.server.run();
    browser.click_on("Sign out");
    browser.wait_for("With the token of an app");
    let asked = "const done = arguments[0]; fetch('/api/session').then((answer) => done(answer.status))";
    assert_eq!(browser.run_async(asked, &[]), 401);
}

#[test]
fn a_server_that_is_silent_is_told_from_one_that_works() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    scene.visit(&browser, "watches");
    scene.server.signal(Signal::STOP);
    eventually("a banner", SOON, || browser.text().contains("This is how it was at").then_some(()));
    scene.server.signal(Signal::CONT);
    eventually("no banner", SOON, || (!browser.text().contains("This is how it was at")).then_some(()));
}

#[test]
fn many_tabs_leave_the_server_open_for_the_next_one() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let is_live = "return [...document.querySelectorAll('.badge')].some((one) => one.textContent === 'live')";
    for _ in 0..8 {
        scene.visit(&browser, "ledger");
        eventually("a live ledger", SOON, || (browser.run(is_live, &[]) == true).then_some(()));
        browser.open_tab();
    }
    scene.visit(&browser, "watches");
    browser.wait_for("handbook");
}

#[test]
fn a_schedule_keeps_its_webhook_and_so_does_a_task_that_is_created_now() {
    let scene = Scene::told("");
    let inbox = Inbox::start();
    let body = json!({ "cron": "0 3 * * *", "command": "index", "payload": 1, "webhook": inbox.url() });
    assert_eq!(scene.app.ask(&scene.server, "PUT", "/api/schedules/told", Some(&body)).status, 200);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    scene.visit(&browser, "schedule?name=told&tab=change");
    browser.click_on("Change the schedule");
    browser.wait_for("The next tick is in");
    let kept = scene.app.ask(&scene.server, "GET", "/api/schedules/told", None).json();
    assert_eq!(kept["webhook"], json!(inbox.url()));
    browser.wait_for(&inbox.url());
    browser.click_on("Create a task now");
    browser.click_on("Create it");
    browser.wait_for("is created. The ticks stay as they are.");
    let tasks = scene.app.ask(&scene.server, "GET", "/api/tasks?limit=1", None).json();
    assert_eq!(tasks["items"][0]["webhook"], json!(inbox.url()), "{tasks}");
    // What is removed is told, and the list follows.
    scene.visit(&browser, "schedule?name=told");
    let loaded = browser.run("return performance.timeOrigin", &[]);
    browser.click_on("Remove");
    browser.click("dialog button[type=submit]");
    browser.wait_for("told is removed.");
    browser.wait_for("Tasks that are created at moments of a clock.");
    assert_eq!(browser.run("return performance.timeOrigin", &[]), loaded, "the page was not loaded again");
}

#[test]
fn a_skip_names_its_change_and_gives_no_other_one_up() {
    let scene = Scene::told("");
    let stubborn = Subscriber::start();
    let app = App::onboard_with(&scene.server, &stubborn, &json!({ "app_name": "stubborn" }));
    let ids = ["one", "two"].map(|name| {
        let body = json!({ "url": scene.repository_url(), "watch_name": name });
        app.watch_with(&scene.server, &body)
    });
    for id in &ids {
        app.wait_until_held(&scene.server, id, &scene.project.head());
    }
    stubborn.script(|_| Answer::Refuse(500));
    for number in 0..15 {
        scene.project.write(format!("f{number:02}"), b"2");
    }
    scene.project.commit("fifteen files");
    scene.host.publish(&scene.project, REPOSITORY);
    for id in &ids {
        app.wait_for_state(&scene.server, id, "blocked");
    }
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &app.token);
    // What the page of the app says of an endpoint that takes nothing.
    browser.wait_for("The endpoint does not take everything");
    let [id, other] = &ids;
    scene.visit(&browser, &format!("watch?id={id}"));
    assert!(!browser.text().contains("left"), "no estimate of what stands still: {}", browser.text());
    let head = || {
        let branch = app.repository(&scene.server, id)["branches"][0].clone();
        let (round, position) = (branch["round"]["round"].clone(), branch["round"]["position"].as_u64());
        let all = app.ask(&scene.server, "GET", &format!("/api/repositories/{id}/changes"), None).json();
        let change = items(&all)[usize::try_from(position.expect("a position")).expect("small")].clone();
        (json!({ "cursor": branch["cursor"], "round": round, "position": position }), change)
    };
    let (first, change) = head();
    let path = change["path"].as_str().expect("a path").to_owned();
    browser.click_on("Skip one change");
    browser.wait_for(&format!("Skip {path} on main?"));
    // The head moves on while the question is open.
    assert_eq!(ask(&scene, &app.token, &format!("/api/repositories/{id}/skip"), &first).0, 202);
    eventually("another head", SOON, || (head().0 != first).then_some(()));
    let skipped = || {
        let letters = items(&app.ask(&scene.server, "GET", "/api/dead-letters?limit=100", None).json());
        letters.iter().filter(|letter| letter["reason"] == "skipped").count()
    };
    assert_eq!(skipped(), 1);
    browser.click_on("Skip it");
    browser.wait_for("It did not work: ");
    assert_eq!(skipped(), 1, "no other change is given up");
    // Where nothing moves meanwhile, the change that is named is given up.
    scene.visit(&browser, &format!("watch?id={other}"));
    browser.click_on("Skip one change");
    browser.wait_for(" on main?");
    browser.click_on("Skip it");
    eventually("a second letter", SOON, || (skipped() == 2).then_some(()));
}
