//! What the staff does about the server, and what an app does about its queues, schedules, subscriptions and dead
//! letters: each walk by mouse and then with the keyboard alone, or with the keyboard where another story has the
//! mouse.

use serde_json::{Value, json};

use super::{
    Scene, failed_task,
    hands::{Hand, wait_until},
};
use crate::support::{
    api::{App, items},
    browser::Browser,
    inbox::Inbox,
    patience::{SOON, eventually},
    subscriber::{Answer, Subscriber},
};

/// What stands in each row of a list, in one text; the numbers behind plots are no list.
const ROWS: &str =
    "const rows = [...document.querySelectorAll('main tbody tr')].filter((row) => !row.closest('details'));
    return rows.map((row) => row.innerText)";

/// Waits until there are rows, and each has this text.
fn wait_for_rows(browser: &Browser, text: &str) {
    eventually(&format!("rows with {text:?} alone on {}", browser.url()), SOON, || {
        let rows = browser.run(ROWS, &[]);
        let rows = rows.as_array()?;
        let is_meant = |row: &Value| row.as_str().is_some_and(|row| row.contains(text));
        (!rows.is_empty() && rows.iter().all(is_meant)).then_some(())
    });
}

fn keys(scene: &Scene) -> Vec<Value> {
    items(&scene.server.ask_as_admin("GET", "/api/admin/keys").json())
}

#[test]
fn keys_are_rotated_and_the_former_one_is_taken_out_with_each_hand() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    for hand in Hand::BOTH {
        let former = keys(&scene)[0]["id"].as_str().expect("an id").to_owned();
        scene.visit(&browser, "system?tab=keys");
        hand.confirm(&browser, "Rotate", "Create a new key?", "Rotate");
        eventually("a second key", SOON, || (keys(&scene).len() == 2).then_some(()));
        hand.confirm(&browser, "Seal again", "Seal older values again?", "Seal them");
        browser.wait_for("sealed by the newest key.");
        hand.confirm(&browser, &format!("Take out {former}"), "Take this key out?", "Take it out");
        eventually("one key", SOON, || (keys(&scene).len() == 1).then_some(()));
        assert_ne!(keys(&scene)[0]["id"], json!(former), "{hand:?}");
    }
}

#[test]
fn the_lists_of_the_staff_are_filtered_with_each_hand_and_a_link_shows_the_same() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let refusing = Subscriber::start();
    refusing.script(|_| Answer::Refuse(503));
    for hand in Hand::BOTH {
        scene.visit(&browser, "");
        hand.follow(&browser, "Audit log");
        hand.press(&browser, "Check the whole log");
        browser.wait_for("The log is whole: ");
        hand.write(&browser, "Action", "post_api_session");
        hand.follow(&browser, "Apply");
        wait_for_rows(&browser, "post_api_session");
        let shared = browser.url();
        hand.follow(&browser, "Supervision tree");
        hand.write(&browser, "Filter", "deliverer");
        hand.follow(&browser, "Apply");
        let leaves = "const leaves = [...document.querySelectorAll('.tree li')].filter((one) => !one.querySelector('ul'));
            return [...new Set(leaves.map((one) => one.querySelector('.name')?.textContent ?? ''))]";
        wait_until(&browser, "deliverers alone", leaves, &json!(["deliverer"]));
        // An actor that starts is shown by itself.
        let app = App::onboard_with(&scene.server, &refusing, &json!({ "app_name": "one more app" }));
        app.watch_with(&scene.server, &json!({ "url": scene.repository_url() }));
        browser.wait_for(&app.id);
        hand.follow(&browser, "System");
        hand.follow(&browser, "Settings");
        hand.write(&browser, "Filter", "git.poll_m");
        hand.follow(&browser, "Apply");
        wait_for_rows(&browser, "git.poll_m");
        hand.follow(&browser, "Sources");
        hand.choose(&browser, "State", "false");
        wait_for_rows(&browser, &scene.repository_url());
        hand.follow(&browser, "Hooks");
        hand.choose(&browser, "Verdict", "refused");
        browser.wait_for("No hook with this verdict");
        hand.follow(&browser, "Ledger");
        hand.choose(&browser, "What", "letter.parked");
        wait_for_rows(&browser, "letter.parked");
        browser.go(&shared);
        wait_for_rows(&browser, "post_api_session");
    }
}

#[test]
fn a_subscription_is_paused_resumed_tested_and_removed_with_each_hand() {
    let scene = Scene::told("");
    let inbox = Inbox::start();
    let sink = json!({ "name": "pager", "filter": "", "sink": { "url": inbox.url() } });
    assert_eq!(scene.app.ask(&scene.server, "POST", "/api/subscriptions", Some(&sink)).status, 201);
    let ask = |path: &str| scene.app.ask(&scene.server, "GET", path, None).json();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    for (hand, name) in [(Hand::Mouse, "pager"), (Hand::Keyboard, "ops")] {
        let subscription = items(&ask("/api/subscriptions")).into_iter().find(|one| one["name"] == name);
        let id = subscription.expect("it is there")["subscription_id"].as_str().expect("an id").to_owned();
        let state = |wanted: &str| {
            let path = format!("/api/subscriptions/{id}");
            eventually(wanted, SOON, || (ask(&path)["state"] == wanted).then_some(()));
        };
        scene.visit(&browser, "ledger");
        hand.follow(&browser, name);
        browser.wait_for("Where it stands");
        hand.press(&browser, "Pause");
        state("paused");
        hand.press(&browser, "Resume");
        state("active");
        hand.press(&browser, "Send a test");
        browser.wait_for("The endpoint took the test");
        hand.confirm(&browser, "Remove", &format!("Remove {name}?"), "Remove");
        browser.wait_for("The subscription is removed.");
        let left = items(&ask("/api/subscriptions"));
        assert!(left.iter().all(|one| one["name"] != name), "{left:?}");
    }
}

#[test]
fn dead_letters_are_dismissed_and_redriven_with_each_hand_and_redrives_are_cancelled() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    for (hand, path) in [(Hand::Mouse, "img/picture-1.png"), (Hand::Keyboard, "img/picture-2.png")] {
        let before = scene.letters().len();
        scene.visit(&browser, "app");
        hand.follow(&browser, "Dead letters");
        hand.tick(&browser, &format!("Select {path}"));
        browser.wait_for("1 chosen");
        hand.confirm(&browser, "Dismiss", "Dismiss 1 dead letter?", "Dismiss");
        eventually("a letter less", SOON, || (scene.letters().len() == before - 1).then_some(()));
        scene.visit(&browser, "app?tab=redrives");
        hand.confirm(&browser, "Cancel all redrives", "Cancel all redrives?", "Cancel them");
        browser.wait_for("Cancelled; 0 dead letters are open again.");
    }
    scene.receiver.accept_all();
    scene.visit(&browser, "letters");
    Hand::Keyboard.confirm(&browser, "Redrive all", "Redrive 1 dead letter?", "Redrive them");
    browser.wait_for("A redrive of 1 dead letter was asked for.");
    eventually("no letter", SOON, || scene.letters().is_empty().then_some(()));
    scene.visit(&browser, "app?tab=redrives");
    let progress = "return document.querySelector('[role=progressbar][aria-label=\"Progress of the redrive\"]')?.getAttribute('aria-valuenow')";
    wait_until(&browser, "the whole redrive", progress, &json!("100"));
}

#[test]
fn a_queue_is_redriven_and_purged_with_the_keyboard_alone() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let (hand, app) = (Hand::Keyboard, &scene.app);
    failed_task(&scene.server, app, "");
    hand.follow(&browser, "Queues");
    hand.follow(&browser, "index");
    hand.choose(&browser, "State", "failed");
    wait_for_rows(&browser, "the index is full");
    hand.confirm(&browser, "Redrive", "Redrive 2 tasks?", "Redrive them");
    browser.wait_for("2 tasks are ready again.");
    hand.confirm(&browser, "Purge", "Purge index?", "Remove them");
    browser.wait_for("tasks are removed.");
    let counts = app.ask(&scene.server, "GET", "/api/queues/index", None).json()["counts"].clone();
    assert_eq!(counts["ready"].as_u64().unwrap_or(0), 0, "{counts}");
}

#[test]
fn a_schedule_is_made_changed_paused_and_removed_with_the_keyboard_alone() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let (hand, app) = (Hand::Keyboard, &scene.app);
    let schedule = || app.ask(&scene.server, "GET", "/api/schedules/rome", None).json();
    hand.follow(&browser, "Schedules");
    hand.follow(&browser, "Create a schedule");
    hand.write(&browser, "Name", "rome");
    hand.write(&browser, "Cron line", "0 3 * * *");
    hand.write(&browser, "Time zone", "Europe/Rome");
    hand.write(&browser, "Command of its tasks", "index");
    hand.press(&browser, "Create the schedule");
    browser.wait_for("The next tick is in");
    assert_eq!((&schedule()["cron"], &schedule()["zone"]), (&json!("0 3 * * *"), &json!("Europe/Rome")));
    hand.follow(&browser, "Change");
    hand.write(&browser, "Cron line", "0 4 1 * *");
    hand.press(&browser, "Change the schedule");
    eventually("the changed line", SOON, || (schedule()["cron"] == "0 4 1 * *").then_some(()));
    browser.wait_for("The next tick is in");
    hand.confirm(&browser, "Pause", "Pause rome?", "Pause");
    browser.wait_for("The schedule rests");
    hand.press(&browser, "Resume");
    browser.wait_for("It goes on with the ticks from now on.");
    hand.confirm(&browser, "Create a task now", "Create a task now?", "Create it");
    browser.wait_for("is created. The ticks stay as they are.");
    hand.confirm(&browser, "Remove", "Remove rome?", "Remove");
    browser.wait_for("rome is removed.");
    assert_eq!(app.ask(&scene.server, "GET", "/api/schedules/rome", None).status, 404);
}

#[test]
fn a_path_is_found_and_its_last_answer_read_with_the_keyboard_alone() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let hand = Hand::Keyboard;
    hand.write(&browser, "Path, or a glob such as docs/**", "img/picture-2.png");
    hand.press(&browser, "Find");
    browser.wait_for("What became of this path.");
    wait_for_rows(&browser, "img/picture-2.png");
    hand.choose(&browser, "State", "parked");
    wait_for_rows(&browser, "parked");
    hand.follow(&browser, "img/picture-2.png");
    browser.wait_for("422 not taken");
    browser.wait_for("pictures are not indexed");
    // The answer is a part of the page that the keyboard reaches, to scroll it.
    let answer =
        "return document.querySelector('.tries details[open] [role=group]').getAttribute('aria-label')";
    let answer = browser.run(answer, &[]).as_str().expect("a name").to_owned();
    hand.press(&browser, &answer);
    assert_eq!(browser.run("return document.activeElement.innerText.includes('pictures are')", &[]), true);
}
