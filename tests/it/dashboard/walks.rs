//! The walks of the guide: signing in, from a figure to its cause, sending again, and watching what happens.

use serde_json::json;

use super::Scene;
use crate::support::{
    browser::Browser,
    patience::{SOON, eventually, eventually_or},
    server::Server,
};

/// Keys of the keyboard, as WebDriver names them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const SPACE: &str = " ";
/// Presses of Tab that lead once around a page.
const PRESSES: usize = 80;

#[test]
fn a_person_signs_in_finds_dead_letters_and_redrives_them() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    browser.go(&format!("http://{}/", scene.server.address()));
    assert_eq!(browser.url(), scene.url(""), "a browser is led to the dashboard");
    browser.write("#token", "tdg_00000000_wrong");
    browser.click_on("Sign in");
    browser.wait_for("This token is not known here");
    scene.sign_in(&browser, &scene.admin_token());
    browser.wait_for("Overview");
    browser.click_on("Apps");
    browser.click_on("search index");
    browser.wait_for("The endpoint takes deliveries");
    let watched = scene.app.repository(&scene.server, &scene.watch);
    browser.click_on(watched["repository"].as_str().expect("a name"));
    browser.wait_for("in sync");
    browser.wait_for(&scene.project.head()[..10]);
    browser.click_on("3 dead letters");
    browser.wait_for("img/picture-2.png");
    browser.wait_for("pictures are not indexed");
    browser.click("input[aria-label='Select img/picture-2.png']");
    browser.wait_for("1 chosen");
    scene.receiver.accept_all();
    browser.click_on("Redrive");
    browser.wait_for("A redrive of 1 dead letter was asked for.");
    eventually("the picture at the receiver", SOON, || (scene.letters().len() == 2).then_some(()));
    browser.wait_for("Redrives");
    let is_gone = || (!browser.text().contains("img/picture-2.png")).then_some(());
    eventually("the page without the redriven dead letter", SOON, is_gone);
    browser.click_on("Redrive all");
    browser.wait_for("Redrive 2 dead letters?");
    browser.click_on("Redrive them");
    browser.wait_for("A redrive of 2 dead letters was asked for.");
    browser.wait_for("No open dead letters");
    eventually("no letter", SOON, || scene.letters().is_empty().then_some(()));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_person_finds_the_task_that_failed_redrives_it_and_pauses_its_queue() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    browser.click_on("Queues");
    browser.click_on("index");
    browser.wait_for("the index is full");
    browser.click_on(&scene.task);
    browser.wait_for("\"page\": 1");
    browser.click_on("Redrive");
    browser.wait_for("The task is ready again.");
    browser.click_on("Cancel");
    browser.wait_for("Cancel this task?");
    browser.click_on("Cancel it");
    browser.wait_for("The task is cancelled.");
    browser.click_on("index");
    browser.wait_for("Numbers");
    browser.click_on("Pause");
    browser.wait_for("Pause index?");
    browser.click("dialog button[type=submit]");
    browser.wait_for("Nothing of it is handed out.");
    let claim = json!({ "commands": ["index"] });
    assert_eq!(scene.app.ask(&scene.server, "POST", "/api/tasks/claim", Some(&claim)).status, 204);
    browser.click_on("Resume");
    browser.wait_for("Its tasks are handed out again.");
    browser.click_on("Purge");
    browser.wait_for("Purge index?");
    browser.click_on("Remove them");
    browser.wait_for("1 task is removed.");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_letter_is_dismissed_only_after_a_question() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    browser.click_on("Dead letters");
    browser.click_on("img/picture-1.png");
    browser.wait_for("the receiver refused it");
    browser.click_on("Dismiss");
    browser.wait_for("Dismiss this dead letter?");
    browser.click_on("Cancel");
    assert_eq!(scene.letters().len(), 3, "who cancels changes nothing");
    browser.click_on("Dismiss");
    browser.wait_for("Dismiss this dead letter?");
    browser.run("document.querySelector('dialog form').requestSubmit()", &[]);
    browser.wait_for("The dead letter is dismissed.");
    assert_eq!(scene.letters().len(), 2);
}

/// Presses Tab until what has the focus says this.
pub(super) fn tab_to(browser: &Browser, text: &str) {
    let focused = "const at = document.activeElement;
        return (at.getAttribute('aria-label') ?? at.textContent ?? '').trim()";
    tab_until(browser, focused, text);
}

/// Presses Tab until a function body says this of what has the focus, which a slow page may not show yet.
pub(super) fn tab_until(browser: &Browser, said: &str, wanted: &str) {
    let presses = || {
        (0..PRESSES).find_map(|_| {
            browser.press(TAB);
            (browser.run(said, &[]) == wanted).then_some(())
        })
    };
    eventually_or(&format!("{wanted:?} that the keyboard reaches"), SOON, presses, || browser.shown());
}

#[test]
fn a_dead_letter_is_redriven_with_the_keyboard_alone() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    browser.go(&scene.url(""));
    browser.wait_for("Sign in");
    browser.run("document.querySelector('#token').value = arguments[0]", &[json!(scene.app.token)]);
    tab_to(&browser, "Sign in");
    browser.press(ENTER);
    browser.wait_for("search index");
    tab_to(&browser, "Dead letters");
    browser.press(ENTER);
    browser.wait_for("img/picture-3.png");
    scene.receiver.accept_all();
    tab_to(&browser, "Select img/picture-3.png");
    browser.press(SPACE);
    browser.wait_for("1 chosen");
    browser.run("document.activeElement.blur()", &[]);
    tab_to(&browser, "Redrive");
    browser.press(ENTER);
    browser.wait_for("A redrive of 1 dead letter was asked for.");
    eventually("the picture at the receiver", SOON, || (scene.letters().len() == 2).then_some(()));
}

#[test]
fn a_queue_is_paused_and_goes_on_with_the_keyboard_alone() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let reach = |text: &str| {
        browser.run("document.activeElement.blur()", &[]);
        tab_to(&browser, text);
        browser.press(ENTER);
    };
    reach("Queues");
    let row = "return [...document.querySelectorAll('main tbody a')].some((one) => one.textContent.trim() === 'index')";
    eventually("the queue", SOON, || (browser.run(row, &[]) == true).then_some(()));
    reach("index");
    browser.wait_for("Numbers");
    reach("Pause");
    browser.wait_for("Pause index?");
    // The question holds the focus until it is answered.
    tab_to(&browser, "Pause");
    let is_within = "return document.activeElement.closest('dialog') !== null";
    assert_eq!(browser.run(is_within, &[]), true, "the keyboard does not leave the question");
    browser.press(ENTER);
    browser.wait_for("Nothing of it is handed out.");
    let claim = json!({ "commands": ["index"] });
    assert_eq!(scene.app.ask(&scene.server, "POST", "/api/tasks/claim", Some(&claim)).status, 204);
    reach("Resume");
    browser.wait_for("Its tasks are handed out again.");
    assert_eq!(scene.app.ask(&scene.server, "POST", "/api/tasks/claim", Some(&claim)).status, 200);
}

#[test]
fn what_happens_is_shown_by_itself_also_after_a_restart() {
    let mut scene = Scene::start();
    scene.server = fixed(scene.server);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, &format!("ledger?app={}", scene.app.id));
    wait_until_live(&browser);
    let pause = |verb: &str| scene.app.tell(&scene.server, &scene.watch, verb);
    pause("pause");
    browser.wait_for("watch.paused");
    let before = browser.run("return performance.timeOrigin", &[]);
    scene.server.kill();
    browser.wait_for("connecting again");
    browser.wait_for("The server does not answer. This is how it was at");
    scene.server.run();
    wait_until_live(&browser);
    scene.app.tell(&scene.server, &scene.watch, "resume");
    browser.wait_for("watch.resumed");
    assert_eq!(browser.run("return performance.timeOrigin", &[]), before, "the page was never loaded again");
}

/// Waits until the stream of the ledger is there, and the page says that all is new.
pub(super) fn wait_until_live(browser: &Browser) {
    let is_live = "return [...document.querySelectorAll('.badge')].some((one) => one.textContent === 'live')
        && document.querySelector('.banner') === null";
    eventually("live ledger", SOON, || (browser.run(is_live, &[]) == true).then_some(()));
}

/// The same server, which listens at the same address whenever it starts: what a browser comes back to.
pub(super) fn fixed(mut server: Server) -> Server {
    let address = server.address().to_string();
    server.kill();
    let mut server = server.with("server.listen", &address);
    server.run();
    server
}

#[test]
fn an_app_sees_its_own_things_and_nothing_of_others() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    browser.wait_for("The endpoint takes deliveries");
    assert!(browser.url().ends_with("/dashboard/app"), "{}", browser.url());
    let text = browser.text();
    for word in ["Supervision tree", "Audit log", "docs site", "System"] {
        assert!(!text.contains(word), "{word} is nothing for an app: {text}");
    }
    // Whatever the address says, an app gets itself.
    scene.visit(&browser, &format!("app?app={}", scene.away.id));
    browser.wait_for("search index");
    assert!(!browser.text().contains("docs site"));
    scene.visit(&browser, "tree");
    browser.wait_for("This page is for the staff of this server.");
}

#[test]
fn a_narrowed_token_sees_the_buttons_that_it_may_press() {
    let scene = Scene::start();
    let wish = json!({ "name": "redrives", "permissions": ["*:read", "dead-letters:redrive"] });
    let made = scene.app.ask(&scene.server, "POST", "/api/app/tokens", Some(&wish)).json();
    let token = made["token"].as_str().expect("a token");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, token);
    browser.wait_for("The endpoint takes deliveries");
    let letter = scene.letters()[0]["dead_letter_id"].as_str().expect("an id").to_owned();
    for (path, expected) in [
        ("app".to_owned(), vec![]),
        ("watches".to_owned(), vec![]),
        (format!("watch?id={}", scene.watch), vec![]),
        ("letters".to_owned(), vec!["Redrive all"]),
        (format!("letter?id={letter}"), vec!["Redrive"]),
        ("ledger".to_owned(), vec![]),
        ("start".to_owned(), vec![]),
    ] {
        scene.visit(&browser, &path);
        let acting = acting(&browser);
        assert_eq!(acting, expected, "{path}");
    }
    let links = "return [...document.querySelectorAll('main a.button')].map((one) => one.textContent.trim())";
    for path in ["app", "watches"] {
        scene.visit(&browser, path);
        assert_eq!(browser.run(links, &[]), json!([]), "{path}");
    }
}

/// The buttons of a page that change something.
fn acting(browser: &Browser) -> Vec<String> {
    let buttons = "return [...document.querySelectorAll('main button')].map((one) => one.textContent.trim())";
    let harmless = ["Apply", "Find", "Check the whole log", "Try again"];
    let found = browser.run(buttons, &[]);
    let found = found.as_array().expect("buttons").iter().filter_map(|one| one.as_str());
    found.filter(|one| !harmless.contains(one)).map(str::to_owned).collect()
}

#[test]
fn a_viewer_sees_no_button_that_it_may_not_press() {
    let scene = Scene::start();
    let (_, viewer) = scene.staff("viewer");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &viewer);
    for (name, path) in scene.pages() {
        scene.visit(&browser, &path);
        let acting = acting(&browser);
        assert!(acting.is_empty(), "{name} shows a viewer {acting:?}");
    }
}
