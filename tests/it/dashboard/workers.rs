//! Tasks of watches in the browser: a queue that a watch fills, from its form to the end of its last task.

use serde_json::{Value, json};

use super::{REPOSITORY, Scene, Work, claim_tasks, walks::tab_to};
use crate::support::{
    api::App,
    browser::Browser,
    patience::{SOON, eventually},
    server::Server,
};

const ENTER: &str = "\u{e007}";

fn say(server: &Server, app: &App, task: &Value, verb: &str, mut body: Value) {
    body["token"] = task["token"].clone();
    let path = format!("/api/tasks/{}/{verb}", task["id"].as_str().expect("an id"));
    let reply = app.ask(server, "POST", &path, Some(&body));
    assert_eq!(reply.status, 200, "{}", reply.json());
}

/// The facts of a section, by their names.
fn facts(browser: &Browser, section: &str) -> Value {
    let read = "const names = [...document.querySelectorAll(`section[aria-label=\"${arguments[0]}\"] dt`)];
        return Object.fromEntries(names.map((name) => [name.innerText, name.nextElementSibling.innerText]))";
    browser.run(read, &[json!(section)])
}

fn wait_for_fact(browser: &Browser, section: &str, name: &str, value: &str) {
    eventually(&format!("{name} that is {value}"), SOON, || {
        (facts(browser, section)[name] == value).then_some(())
    });
}

fn of_work(scene: &Scene) -> &Work {
    scene.work.as_ref().expect("a watch that fills a queue")
}

#[test]
fn an_app_for_workers_is_set_up_and_the_page_follows_their_tasks_to_the_last() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, "start");
    browser.write("#field-app_name", "thumbnails");
    browser.write("#field-email", "thumbs@example.org");
    browser.click("input[name=receives][value=tasks]");
    assert_eq!(browser.run("return document.querySelector('#field-base_url')", &[]), Value::Null);
    browser.click_on("Register the app");
    browser.wait_for("Workers claim the tasks of the app; nothing is sent.");
    let token = "return [...document.querySelectorAll('.secret')][0].querySelector('code').textContent";
    let token = browser.run(token, &[]).as_str().expect("a token").to_owned();
    let chosen = browser.run("return document.querySelector('input[name=goes]:checked').value", &[]);
    assert_eq!(chosen, "tasks", "what was said of the app holds for its first repository");
    browser.write("#field-url", &scene.repository_url());
    browser.write("#field-include", "img/**");
    browser.wait_for("3 of 16 files match");
    browser.click_on("Watch this repository");
    browser.wait_for("Is required: the command of the tasks, which workers name");
    let at = browser.run("return document.activeElement.id", &[]);
    assert_eq!(at, "field-sink_command", "the fault is at its field");
    browser.write("#field-sink_command", "thumb");
    browser.click_on("Watch this repository");
    browser.wait_for("Tasks are ready for workers");
    browser.wait_for("tidings worker start thumb --exec PROGRAM");
    browser.wait_for("img/picture-2.png");
    let app = browser.run("return new URL(location.href).searchParams.get('app')", &[]);
    let app = App { id: app.as_str().expect("an id").to_owned(), token, onboarded: Value::Null };
    let tasks = claim_tasks(&scene.server, &app, "thumb", 3);
    browser.wait_for("A worker has the first task");
    say(&scene.server, &app, &tasks[0], "complete", json!({}));
    browser.wait_for("Workers are at it");
    tasks[1..].iter().for_each(|task| say(&scene.server, &app, task, "complete", json!({})));
    browser.wait_for("Workers did everything");
    let severe: Vec<_> =
        browser.complaints().into_iter().filter(|text| !text.contains("repositories")).collect();
    assert_eq!(severe, Vec::<String>::new());
}

#[test]
fn a_watch_that_fills_a_queue_shows_its_tasks_and_what_to_do_when_they_die() {
    let scene = Scene::told("").with_work("");
    let work = of_work(&scene);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, &format!("watch?app={}&id={}", work.app.id, work.watch));
    // 16 files, of which 2 have ended, and 8 may be tasks at once.
    for (name, value) in [
        ("Queue", "render"),
        ("Unfinished", "8; at most 8 of a branch"),
        ("With workers", "1"),
        ("Not yet tasks", "6 changes"),
        ("Waits", "The next change waits until a task of the branch ends."),
    ] {
        wait_for_fact(&browser, "Tasks", name, value);
    }
    let buttons = "return [...document.querySelectorAll('main .button')].map((one) => one.innerText)";
    let shown = browser.run(buttons, &[]).to_string();
    assert!(!shown.contains("Send a test"), "nothing is sent to a queue: {shown}");

    // Ten die one after another: each has one attempt.
    for _ in 0..10 {
        let task = claim_tasks(&scene.server, &work.app, "render", 1).remove(0);
        say(&scene.server, &work.app, &task, "nack", json!({ "reason": "no font" }));
    }
    browser.wait_for("10 tasks in a row are dead: only the oldest is tried");
    browser.wait_for("Repair the workers. One task at a time is tried");
    wait_for_fact(&browser, "Tasks", "Dead in a row", "10; 10 block the branch");
    let shown = browser.run(buttons, &[]).to_string();
    assert!(!shown.contains("Skip one change") && !shown.contains("Resume"), "they do nothing here: {shown}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_of_a_task_leads_to_its_change_and_says_what_its_end_did() {
    let scene = Scene::told("").with_work("");
    let work = of_work(&scene);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    browser.click_on("Queues");
    browser.click_on("render");
    browser.wait_for("Filled by");
    let path = work.claimed["payload"]["file"]["path"].as_str().expect("a path").to_owned();
    browser.click_on(&path);
    browser.wait_for("The change");
    let shown = facts(&browser, "The change");
    let delivery = work.claimed["payload"]["event"]["id"].as_str().expect("an id");
    for (name, value) in [
        ("Path", path.as_str()),
        ("Change", "created"),
        ("Watch", &format!("{REPOSITORY}, main")),
        ("Commit", &scene.project.head()[..10]),
        ("Delivery", delivery),
    ] {
        assert_eq!(shown[name], value, "{name}: {shown}");
    }
    browser.wait_for("\"step\": \"layout\"");
    say(&scene.server, &work.app, &work.claimed, "fail", json!({ "error": "the page is a loop" }));
    browser.wait_for("The task ended without success");
    // A reload and a shared link say the same.
    browser.reload();
    browser.wait_for("The task ended without success");
    browser.click_on("its dead letter");
    browser.wait_for("its worker failed it for good");
    assert_eq!(facts(&browser, "Why it is a dead letter")["Last word"], "the page is a loop");
    browser.click_on("Redrive");
    browser.wait_for("It becomes a task again, as its branch is now.");
    let ended = browser.complaints();
    assert!(ended.iter().all(|text| text.contains("/tasks/")), "{ended:?}");

    // The letters of the app, with the reasons of workers.
    scene.visit(&browser, &format!("letters?app={}&status=all", work.app.id));
    browser.wait_for("this page has no title");
    browser.wait_for("its worker failed it for good");
    // The page of a delivery leads to the task, and says what became of the change.
    let next = claim_tasks(&scene.server, &work.app, "render", 1).remove(0);
    let delivery = next["payload"]["event"]["id"].as_str().expect("an id");
    scene.visit(&browser, &format!("delivery?app={}&id={delivery}", work.app.id));
    browser.wait_for("Workers do this change");
    browser.wait_for("The payload");
    browser.click_on(next["id"].as_str().expect("an id"));
    browser.wait_for("Where it stands");
    say(&scene.server, &work.app, &next, "complete", json!({}));
    browser.wait_for("The task was completed");
    let path = next["payload"]["file"]["path"].as_str().expect("a path");
    browser.click_on(&format!("The delivery of {path}"));
    browser.wait_for("A worker ended it");
}

#[test]
fn a_task_of_a_watch_is_found_and_cancelled_with_the_keyboard_alone() {
    let scene = Scene::told("").with_work("");
    let work = of_work(&scene);
    let Some(browser) = Browser::start() else { return };
    // What nobody has is cancelled at once.
    say(&scene.server, &work.app, &work.claimed, "complete", json!({}));
    scene.sign_in(&browser, &work.app.token);
    tab_to(&browser, "Queues");
    browser.press(ENTER);
    browser.wait_for("Work that programs claim and end.");
    tab_to(&browser, "render");
    browser.press(ENTER);
    browser.wait_for("Filled by");
    let first = "return document.querySelector('section[aria-label=Tasks] tbody tr td a')?.innerText ?? null";
    let path = eventually("a task", SOON, || browser.run(first, &[]).as_str().map(str::to_owned));
    tab_to(&browser, &path);
    browser.press(ENTER);
    browser.wait_for("The change");
    tab_to(&browser, "Cancel");
    browser.press(ENTER);
    browser.wait_for("Its change becomes a dead letter, which can be redriven later.");
    tab_to(&browser, "Cancel it");
    browser.press(ENTER);
    browser.wait_for("The task ended without success");
    let letters = work.app.dead_letters(&scene.server);
    let of_person = letters.iter().find(|letter| letter["path"] == json!(path)).expect("a letter");
    assert_eq!((&of_person["reason"], &of_person["command"]), (&json!("skipped"), &json!("render")));

    tab_to(&browser, "Watches");
    browser.press(ENTER);
    browser.wait_for(REPOSITORY);
    tab_to(&browser, "Watch a repository");
    browser.press(ENTER);
    browser.wait_for("Name a repository to see which of its files match.");
    let chosen = browser.run("return [...document.querySelectorAll('input[name=goes]')].length", &[]);
    assert_eq!(chosen, 5, "the app, another address, a consumer that asks, a stream, workers");
}
