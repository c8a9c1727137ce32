//! From nothing to a first delivery in the browser, by mouse and by keyboard; and what a change did to its file.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    PLANTED, REPOSITORY, Scene, sign_out,
    walks::{tab_to, tab_until},
};
use crate::support::{
    api::items,
    browser::Browser,
    inbox::Inbox,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
};

const ENTER: &str = "\u{e007}";
const SPACE: &str = " ";
const DOWN: &str = "\u{e015}";
const TOKEN: &str = "reads-the-plans";
/// From the first press to the first delivery: far more than a person's browser takes, which is not as busy.
const SETUP_MAX: Duration = Duration::from_secs(300);

/// The value of a secret that the page shows once.
pub(super) fn shown_secret(browser: &Browser, label: &str) -> String {
    let read = "return [...document.querySelectorAll('.secret')]
        .find((one) => one.querySelector('.label').textContent === arguments[0])?.querySelector('code').textContent ?? null";
    eventually(label, SOON, || browser.run(read, &[json!(label)]).as_str().map(str::to_owned))
}

/// Paths of the changes that arrived, in their order.
fn arrived(inbox: &Inbox) -> Vec<String> {
    let letters = inbox.letters();
    let changes = letters.iter().filter(|letter| letter.data()["file"]["path"].is_string());
    changes.map(|letter| letter.data()["file"]["path"].as_str().expect("a path").to_owned()).collect()
}

#[test]
fn an_app_is_set_up_with_the_mouse_and_its_first_delivery_arrives() {
    let scene = Scene::start();
    let inbox = Inbox::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let began = Instant::now();
    browser.click_on("Apps");
    browser.click_on("Register an app");
    browser.wait_for("The app that receives");
    browser.write("#field-app_name", "x");
    browser.click_on("Register the app");
    browser.wait_for("Must have 3 to 100 characters");
    assert_eq!(browser.run("return document.activeElement.id", &[]), "field-app_name", "the first fault");
    browser.write("#field-app_name", " newsroom");
    browser.write("#field-email", "news@example.org");
    browser.write("#field-base_url", &inbox.url());
    browser.click_on("Register the app");
    browser.wait_for("Copy both now");
    let secret = shown_secret(&browser, "Signing secret: the app checks signatures with it");
    browser.click_on("Send a test");
    browser.wait_for("The endpoint took the test: 200");
    browser.wait_for("Name a repository to see which of its files match.");
    browser.write("#field-url", &scene.repository_url());
    browser.wait_for("17 of 17 files match");
    browser.write("#field-include", "docs/**\n");
    browser.wait_for("13 of 17 files match");
    browser.write("#field-exclude", "docs/page-1*.md");
    browser.wait_for("9 of 17 files match");
    let listed = browser.run("return document.querySelector('.paths').innerText", &[]);
    let listed = listed.as_str().expect("paths").to_owned();
    assert!(listed.contains("docs/page-2.md") && !listed.contains("page-12"), "{listed}");
    assert_eq!(arrived(&inbox), Vec::<String>::new(), "a look sends nothing");
    browser.click_on("Watch this repository");
    browser.wait_for("The app has everything");
    browser.wait_for("docs/page-2.md");
    eventually("nine files", SOON, || (arrived(&inbox).len() == 9).then_some(()));
    assert!(began.elapsed() < SETUP_MAX, "from nothing to a first delivery took {:?}", began.elapsed());
    let letters = inbox.letters();
    assert!(letters.iter().all(|letter| letter.is_signed_with(&[&secret])), "the secret that was shown");
    // The address holds where somebody is; the secrets are gone.
    browser.reload();
    browser.wait_for("The app has everything");
    assert!(!browser.text().contains("Copy both now"));
    let severe: Vec<_> =
        browser.complaints().into_iter().filter(|text| !text.contains("apps/onboard")).collect();
    assert_eq!(severe, Vec::<String>::new());
}

/// Goes to a field by its label, and types.
fn type_into(browser: &Browser, label: &str, text: &str) {
    tab_until(browser, "return document.activeElement.labels?.[0]?.textContent.trim() ?? ''", label);
    browser.press(text);
}

/// Goes to a group of choices, and down by this many.
fn choose(browser: &Browser, name: &str, down: usize) {
    tab_until(browser, "return document.activeElement.name ?? ''", name);
    (0..down).for_each(|_| browser.press(DOWN));
}

#[test]
fn a_private_repository_is_watched_with_the_keyboard_alone_for_an_app_that_asks() {
    let scene = Scene::start();
    let host = Host::start_apart();
    let project = Project::with(&[("plans/one.md", "one"), ("plans/two.md", "two"), ("notes.txt", "n")]);
    host.publish(&project, "acme/plans");
    host.demand_token(TOKEN);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    tab_to(&browser, "Register an app");
    browser.press(ENTER);
    browser.wait_for("The app that receives");
    type_into(&browser, "Name of the app", "planner");
    type_into(&browser, "Contact", "plans@example.org");
    choose(&browser, "receives", 1);
    tab_to(&browser, "Register the app");
    browser.press(ENTER);
    browser.wait_for("The app asks for its changes; nothing is sent.");
    let token = shown_secret(&browser, "Token: the app sends it to the API");
    type_into(&browser, "Address of the repository", &host.url("acme/plans"));
    browser.wait_for("a private repository needs a token");
    choose(&browser, "access", 1);
    type_into(&browser, "Token", "wrong");
    browser.wait_for("the Git host refuses the token");
    (0.."wrong".len()).for_each(|_| browser.press("\u{e003}"));
    browser.press(TOKEN);
    browser.wait_for("3 of 3 files match");
    type_into(&browser, "Include", "plans/**");
    browser.wait_for("2 of 3 files match");
    tab_to(&browser, "Watch this repository");
    browser.press(SPACE);
    browser.wait_for("Changes are ready to be asked for");
    let ask = |path: &str| scene.server.ask("GET", path, Some(&token), None).expect("an answer").json();
    let watches = ask("/api/repositories");
    let watch = &items(&watches)[0];
    let pending =
        ask(&format!("/api/repositories/{}/pending", watch["repository_id"].as_str().expect("an id")));
    assert!(pending.to_string().contains("plans/two.md"), "{pending}");
    browser.wait_for("plans/two.md");
    assert_eq!((&watch["is_private"], &watch["has_token"]), (&json!(true), &json!(true)));
    assert_eq!(watch["include"], json!(["plans/**"]));
}

/// Keeps what the page sends to the server, beside sending it.
const NOTE_SENT: &str = "window.sent = []; const send = window.fetch;
    window.fetch = (path, wish) => { if (wish?.body) window.sent.push([path, JSON.parse(wish.body)]); return send(path, wish); }";

#[test]
fn a_github_app_is_asked_for_a_preview_as_soon_as_all_of_it_is_written() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    scene.visit(&browser, "start");
    browser.run(NOTE_SENT, &[]);
    browser.click("input[name=access][value=github-app]");
    browser.write("#field-app_id", "4711");
    browser.write("#field-installation_id", "815");
    browser.write("#field-private_key", "no key");
    browser.write("#field-url", &scene.repository_url());
    let app = json!({ "app_id": "4711", "installation_id": 815, "private_key": "no key" });
    let sent = eventually("a preview", SOON, || {
        let sent = browser.run("return window.sent.at(-1) ?? null", &[]);
        (sent[1]["url"] == scene.repository_url()).then_some(sent)
    });
    assert_eq!((&sent[0], &sent[1]["github_app"]), (&json!("/api/repositories/preview"), &app), "{sent}");
    // The key is none, which the form says.
    let is_refused = "return document.querySelector('#field-app_id').getAttribute('aria-invalid')";
    eventually("a fault of the App", SOON, || (browser.run(is_refused, &[]) == "true").then_some(()));
}

#[test]
fn an_app_watches_another_repository_by_itself() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    browser.click_on("Watches");
    browser.click_on("Watch a repository");
    browser.wait_for("Changes are sent to");
    browser.write("#field-url", "http://127.0.0.1:1/nowhere/at-all");
    browser.wait_for("Port 1 is never reached");
    let beside = browser.run("return document.querySelector('#field-url-fault')?.textContent ?? ''", &[]);
    assert!(beside.to_string().contains("Port 1 is never reached"), "beside the address: {beside}");
    let (_, viewer) = scene.staff("viewer");
    sign_out(&browser);
    scene.sign_in(&browser, &viewer);
    scene.visit(&browser, "start");
    browser.wait_for("You may not do this");
    assert!(!browser.text().contains("Register the app"));
}

#[test]
fn what_a_change_did_to_its_file_is_shown_and_runs_nothing() {
    let scene = Scene::start();
    scene.project.write("docs/page-1.md", format!("page one {PLANTED}\n").as_bytes());
    scene.project.write("docs/blob.bin", b"\0\x01\x02");
    scene.project.write("docs/large.txt", "a line\n".repeat(30_000).as_bytes());
    scene.project.commit("say more");
    scene.host.publish(&scene.project, REPOSITORY);
    scene.app.wait_until_held(&scene.server, &scene.watch, &scene.project.head());
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let open = |path: &str| {
        scene.visit(&browser, &format!("deliveries?app={}&path={path}", scene.app.id));
        browser.click_on(path);
        browser.wait_for("What changed in the file");
    };
    open("docs/page-1.md");
    let lines = "return [...document.querySelectorAll('.diff .line')].map((one) => one.className + ' ' + one.textContent.trim())";
    eventually("two lines", SOON, || {
        let lines = browser.run(lines, &[]).to_string();
        (lines.contains("line gone -page 1") && lines.contains("line added +page one <img src=x"))
            .then_some(())
    });
    let planted =
        "return [window.planted ?? null, document.querySelectorAll('main img, main script').length]";
    assert_eq!(browser.run(planted, &[]), json!([null, 0]));
    open("docs/blob.bin");
    browser.wait_for("The content after is no text (3 bytes).");
    open("docs/large.txt");
    browser.wait_for("The content after is larger than 128 KiB");
    // Contents are for people who may send them again.
    let (_, viewer) = scene.staff("viewer");
    let delivery = browser.run("return new URL(location.href).searchParams.get('id')", &[]);
    let path =
        format!("/api/admin/apps/{}/deliveries/{}/content", scene.app.id, delivery.as_str().expect("an id"));
    let ask = |token: &str| scene.server.ask("GET", &path, Some(token), None).expect("an answer").status;
    assert_eq!((ask(&viewer), ask(&scene.staff("operator").1), ask(&scene.admin_token())), (403, 200, 200));
    let own = path.replace(&format!("/admin/apps/{}", scene.app.id), "");
    let of = |token: &str| scene.server.ask("GET", &own, Some(token), None).expect("an answer").status;
    assert_eq!((of(&scene.app.token), of(&scene.away.token)), (200, 404), "of another app it is not there");
    sign_out(&browser);
    scene.sign_in(&browser, &viewer);
    scene.visit(&browser, &format!("delivery?app={}&id={}", scene.app.id, delivery.as_str().expect("an id")));
    browser.wait_for("Your token lacks the permission contents:read.");
}

#[test]
fn a_path_is_found_over_all_apps_and_all_ledgers_are_live() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    browser.write("#find-path", "img/picture-2.png");
    browser.click_on("Find");
    browser.wait_for("What became of this path.");
    browser.wait_for("search index");
    browser.wait_for("parked");
    let rows = "return [...document.querySelectorAll('tbody tr')].map((row) => row.innerText)";
    // The words of the page stand in its filters as well.
    let found = eventually("rows with the path", SOON, || {
        Some(browser.run(rows, &[]).to_string()).filter(|found| found.contains("picture-2"))
    });
    assert!(!found.contains("picture-1"), "{found}");
    scene.visit(&browser, "ledger");
    let is_live = "return [...document.querySelectorAll('.badge')].some((one) => one.textContent === 'live')";
    eventually("live ledgers", SOON, || (browser.run(is_live, &[]) == true).then_some(()));
    let before = browser.run("return performance.timeOrigin", &[]);
    let of = |app: &crate::support::api::App, watch: &str| app.tell(&scene.server, watch, "pause");
    of(&scene.app, &scene.watch);
    eventually("an entry with its app", SOON, || {
        let rows = browser.run(rows, &[]);
        let rows = rows.as_array()?;
        let is_it = |row: &serde_json::Value| {
            let row = row.as_str().unwrap_or_default();
            row.contains("watch.paused") && row.contains("search index")
        };
        (rows.iter().filter(|row| is_it(row)).count() == 1).then_some(())
    });
    assert_eq!(browser.run("return performance.timeOrigin", &[]), before, "the page was never loaded again");
}
