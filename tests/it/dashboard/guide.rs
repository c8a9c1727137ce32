//! The walks of docs/operating.md and docs/dashboard.md, each by mouse and then with the keyboard alone: who is
//! signed in, why an app is behind, what is repaired, and what an app is given.

use serde_json::{Value, json};

use super::{
    REPOSITORY, Scene,
    hands::{Hand, wait_until},
};
use crate::{
    hooks::{digits, send},
    support::{
        api::{App, items},
        browser::Browser,
        inbox::Inbox,
        patience::{SOON, eventually},
        project::Project,
        remote::Host,
    },
};

/// The heading of the page.
const HEADING: &str = "return document.querySelector('h1')?.textContent.trim() ?? ''";

/// Waits for a fact about a watch.
fn wait_for_watch(scene: &Scene, app: &App, watch: &str, field: &str, value: &Value) {
    eventually(&format!("{field} that is {value}"), SOON, || {
        (app.repository(&scene.server, watch)[field] == *value).then_some(())
    });
}

/// The name of a watch as links show it.
fn name_of(scene: &Scene, app: &App, watch: &str) -> String {
    app.repository(&scene.server, watch)["repository"].as_str().expect("a name").to_owned()
}

/// The value of a field that shows something once.
fn shown_once(browser: &Browser, field: &str) -> String {
    let read = "return document.getElementById(arguments[0])?.value ?? null";
    eventually(field, SOON, || browser.run(read, &[json!(field)]).as_str().map(str::to_owned))
}

#[test]
fn a_person_signs_in_chooses_a_theme_and_signs_out_everywhere_with_each_hand() {
    let scene = Scene::told("");
    let token = scene.admin_token();
    let Some(browser) = Browser::start() else { return };
    for (hand, button, theme) in
        [(Hand::Mouse, "Dark theme", "dark"), (Hand::Keyboard, "Light theme", "light")]
    {
        browser.go(&scene.url(""));
        browser.wait_for("With the token of an app");
        hand.write(&browser, "Token", &token);
        hand.press(&browser, "Sign in");
        wait_until(&browser, "the overview", HEADING, &json!("Overview"));
        hand.press(&browser, button);
        wait_until(&browser, theme, "return document.documentElement.dataset.theme", &json!(theme));
        hand.confirm(&browser, "Sign out everywhere", "Sign out everywhere?", "Sign out everywhere");
        browser.wait_for("With the token of an app");
        let asked = "const done = arguments[0]; fetch('/api/session').then((answer) => done(answer.status))";
        assert_eq!(browser.run_async(asked, &[]), 401, "{hand:?}");
    }
}

#[test]
fn why_an_app_is_behind_is_found_from_the_overview_to_the_answer_with_each_hand() {
    let scene = Scene::told("");
    let admin = scene.admin_token();
    let watches = scene.away.ask(&scene.server, "GET", "/api/repositories", None).json();
    let name = watches["items"][0]["repository"].as_str().expect("a name").to_owned();
    let keep_open = format!("/api/admin/breakers/endpoint/{}/open", scene.away.id);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &admin);
    for hand in Hand::BOTH {
        scene.visit(&browser, "");
        hand.follow(&browser, "All that are behind");
        wait_until(&browser, "the watches", HEADING, &json!("Watches"));
        hand.follow(&browser, &name);
        wait_until(&browser, "the watch", HEADING, &json!(name));
        // The change at the head is on the page of the watch, and leads to what the receiver said of it.
        let head =
            "return document.querySelector('section[aria-label=Branches] .sub a')?.textContent ?? null";
        let path =
            eventually("the change at the head", SOON, || browser.run(head, &[]).as_str().map(str::to_owned));
        hand.follow(&browser, &path);
        wait_until(&browser, "the delivery", HEADING, &json!(path));
        browser.wait_for("503 not taken");
        hand.follow(&browser, "Deliveries of this path");
        browser.wait_for("What became of this path.");

        let opened = scene.server.ask("POST", &keep_open, Some(&admin), Some(&json!({})));
        assert!(opened.is_ok_and(|reply| (200..300).contains(&reply.status)));
        scene.visit(&browser, "");
        hand.follow(&browser, "System");
        browser.wait_for("docs site");
        hand.confirm(&browser, "Close the breaker of docs site", "Close the breaker?", "Close it");
        browser.wait_for("The next try goes at once.");
    }
}

#[test]
fn a_watch_is_paused_resumed_scanned_tested_and_sent_again_with_each_hand() {
    let scene = Scene::told("");
    let (app, watch) = (&scene.app, &scene.watch);
    let name = name_of(&scene, app, watch);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &app.token);
    for hand in Hand::BOTH {
        scene.visit(&browser, "watches");
        hand.follow(&browser, &name);
        wait_until(&browser, "the watch", HEADING, &json!(name));
        hand.confirm(&browser, "Pause", "Pause this watch?", "Pause");
        wait_for_watch(&scene, app, watch, "state", &json!("paused"));
        hand.press(&browser, "Resume");
        wait_for_watch(&scene, app, watch, "state", &json!("active"));
        hand.press(&browser, "Scan now");
        browser.wait_for("The Git host is asked soon.");
        hand.press(&browser, "Send a test");
        browser.wait_for("The endpoint took the test");
        hand.confirm(&browser, "Resync", "Deliver everything again?", "Resync");
        browser.wait_for("A resync was asked for.");
        // From its rounds to one of their changes, and what that did to its file.
        hand.follow(&browser, "Rounds");
        browser.wait_for("resync");
        hand.follow(&browser, "main");
        browser.wait_for("settled.");
        hand.follow(&browser, "docs/page-1.md");
        wait_until(&browser, "the delivery", HEADING, &json!("docs/page-1.md"));
        browser.wait_for("What changed in the file");
    }
}

#[test]
fn a_refused_credential_is_replaced_with_each_hand() {
    let scene = Scene::told("");
    let host = Host::start_apart();
    let project = Project::with(&[("plans/one.md", "one")]);
    host.publish(&project, "acme/plans");
    host.demand_token("reads-the-plans");
    let app = &scene.app;
    let body = json!({ "url": host.url("acme/plans"), "token": "reads-the-plans" });
    let watch = app.watch_with(&scene.server, &body);
    app.wait_until_held(&scene.server, &watch, &project.head());
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &app.token);
    for (hand, token) in [(Hand::Mouse, "reads-them-today"), (Hand::Keyboard, "reads-them-tomorrow")] {
        host.demand_token(token);
        wait_for_watch(&scene, app, &watch, "effective_state", &json!("credential_refused"));
        scene.visit(&browser, &format!("watch?id={watch}"));
        browser.wait_for("Replace the token, here or with tidings repository token.");
        let replace = |token: &str| {
            hand.press(&browser, "Replace the token");
            browser.wait_for("Replace the token?");
            hand.write(&browser, "New token", token);
            hand.press(&browser, "Replace it");
        };
        replace("reads-nothing");
        browser.wait_for("It did not work: ");
        replace(token);
        browser.wait_for("The repository is read with the new token.");
        hand.press(&browser, "Scan now");
        wait_for_watch(&scene, app, &watch, "effective_state", &json!("active"));
    }
}

#[test]
fn a_watch_whose_own_sink_said_410_goes_on_with_each_hand() {
    let scene = Scene::told("");
    let (app, inbox) = (&scene.app, Inbox::start());
    let sink = json!({ "kind": "endpoint", "url": inbox.url() });
    let body = json!({ "url": scene.repository_url(), "watch_name": "deploy", "sink": sink });
    let watch = app.watch_with(&scene.server, &body);
    app.wait_until_held(&scene.server, &watch, &scene.project.head());
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &app.token);
    for (hand, file) in [(Hand::Mouse, "docs/one.md"), (Hand::Keyboard, "docs/two.md")] {
        inbox.script(|_| 410);
        scene.project.write(file, b"more");
        let head = scene.project.commit(file);
        scene.host.publish(&scene.project, REPOSITORY);
        wait_for_watch(&scene, app, &watch, "effective_state", &json!("sink_disabled"));
        inbox.script(|_| 200);
        scene.visit(&browser, &format!("watch?id={watch}"));
        browser.wait_for("Resume the watch once the sink is back.");
        hand.press(&browser, "Resume");
        app.wait_until_held(&scene.server, &watch, &head);
    }
}

#[test]
fn an_app_is_disabled_and_enabled_and_given_a_narrow_token_with_each_hand() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    for (hand, name) in [(Hand::Mouse, "reads"), (Hand::Keyboard, "looks")] {
        scene.visit(&browser, &format!("app?app={}", scene.app.id));
        hand.confirm(&browser, "Disable", "Disable search index?", "Disable");
        browser.wait_for("Nothing is sent to this app");
        hand.press(&browser, "Enable");
        browser.wait_for("The app is served again.");
        hand.follow(&browser, "Tokens");
        hand.press(&browser, "Create a token");
        hand.write(&browser, "What it is for", name);
        hand.write(&browser, "Permissions", "*:read");
        hand.press(&browser, "Create it");
        let token = shown_once(&browser, "new-token");
        hand.press(&browser, "I have copied it");
        browser.wait_for("The token is created.");
        let ask = |method: &str, path: &str| {
            scene.server.ask(method, path, Some(&token), None).expect("an answer").status
        };
        assert_eq!(ask("GET", "/api/app"), 200, "{hand:?}");
        assert_eq!(ask("POST", &format!("/api/repositories/{}/pause", scene.watch)), 403, "{hand:?}");
        hand.confirm(&browser, &format!("Revoke {name}"), &format!("Revoke {name}?"), "Revoke");
        eventually("a token that opens nothing", SOON, || (ask("GET", "/api/app") == 401).then_some(()));
    }
}

/// Tells the hook at an address of a push to `main` of a repository, as GitHub does; the status of the answer.
pub(super) fn push(scene: &Scene, (address, secret): (&str, &str), repository: &str, name: &str) -> u16 {
    let url = scene.host.url(repository);
    let repository = json!({ "full_name": repository, "clone_url": format!("{url}.git"), "html_url": url });
    let body = json!({
        "ref": "refs/heads/main", "before": "0".repeat(40), "after": "1".repeat(40), "repository": repository,
        "commits": [{ "id": "1".repeat(40), "message": "one" }], "pushed_at": name,
    });
    let body = body.to_string().into_bytes();
    let signature = format!("sha256={}", digits(secret, &body));
    let fields = [
        ("x-github-delivery", name),
        ("x-github-event", "push"),
        ("x-hub-signature-256", &signature),
        ("content-type", "application/json"),
    ];
    let path = address.find("/hooks/").map(|at| &address[at..]).expect("a path");
    send(&scene.server, path, &fields, &body).status
}

#[test]
fn a_hook_is_made_used_given_another_secret_and_removed_with_each_hand() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    for (hand, name) in [(Hand::Mouse, "pushes"), (Hand::Keyboard, "pulls")] {
        scene.visit(&browser, "app");
        hand.follow(&browser, "Hooks");
        hand.press(&browser, "Create a hook");
        hand.write(&browser, "Name", name);
        hand.press(&browser, "Create it");
        let (address, secret) = (shown_once(&browser, "hook-address"), shown_once(&browser, "hook-secret"));
        hand.press(&browser, "I have copied both");
        assert!(address.starts_with(&format!("http://{}/hooks/", scene.server.address())), "{address}");
        assert_eq!(push(&scene, (&address, &secret), REPOSITORY, name), 202, "{hand:?}");
        scene.visit(&browser, "app?tab=hooks");
        let row = format!(
            "const row = [...document.querySelectorAll('main tbody tr')].find((one) => one.innerText.includes('{name}'));
            return row?.innerText.includes('accepted') ?? false"
        );
        wait_until(&browser, "what came of the push", &row, &json!(true));
        let question = format!("Give {name} a new secret?");
        hand.confirm(&browser, &format!("New secret of {name}"), &question, "Create it");
        assert_ne!(shown_once(&browser, "hook-secret"), secret);
        hand.press(&browser, "I have copied both");
        browser.wait_for(&format!("{name} has a new secret."));
        // The page of the watch names the hooks that bring its pushes.
        scene.visit(&browser, &format!("watch?id={}", scene.watch));
        browser.wait_for(&format!("{name} of github: accepted"));
        scene.visit(&browser, "app?tab=hooks");
        hand.confirm(&browser, &format!("Remove {name}"), &format!("Remove {name}?"), "Remove");
        browser.wait_for("No hook");
        assert_eq!(scene.app.ask(&scene.server, "GET", "/api/hooks", None).json()["items"], json!([]));
    }
}

#[test]
fn a_hook_that_came_before_its_watch_is_judged_again_with_each_hand() {
    let scene = Scene::told("");
    let hook = json!({ "name": "pushes", "provider": "github" });
    let made = scene.app.ask(&scene.server, "POST", "/api/hooks", Some(&hook)).json();
    let text = |field: &str| made[field].as_str().expect("a text").to_owned();
    let (address, secret) = (text("path"), text("secret"));
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    for (hand, repository) in [(Hand::Mouse, "acme/plans"), (Hand::Keyboard, "acme/notes")] {
        scene.host.publish(&Project::with(&[("one.md", "one")]), repository);
        push(&scene, (&address, &secret), repository, repository);
        let receipts = items(&scene.server.ask_as_admin("GET", "/api/admin/receipts").json());
        let id = receipts[0]["receipt_id"].as_str().expect("an id");
        let again = format!("Judge again {id}");
        scene.visit(&browser, "system?tab=hooks");
        hand.press(&browser, &again);
        browser.wait_for("The hook is ignored: unknown repository.");
        scene.app.watch_with(&scene.server, &json!({ "url": scene.host.url(repository) }));
        hand.press(&browser, &again);
        browser.wait_for("The hook is accepted: the Git host is asked soon.");
        let shown = scene.server.ask_as_admin("GET", &format!("/api/admin/receipts/{id}")).json();
        assert_eq!(shown["verdict"], "accepted", "{hand:?}: {shown}");
        assert!(shown["replayed_at"].is_string(), "{hand:?}: {shown}");
    }
}

#[test]
fn a_round_is_replayed_with_each_hand() {
    let scene = Scene::told("");
    let (app, watch) = (&scene.app, &scene.watch);
    let rounds = || {
        let path = format!("/api/repositories/{watch}/rounds");
        items(&app.ask(&scene.server, "GET", &path, None).json())
    };
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &app.token);
    for (hand, file) in [(Hand::Mouse, "docs/one.md"), (Hand::Keyboard, "docs/two.md")] {
        let before = scene.project.head();
        scene.project.write(file, b"more");
        let head = scene.project.commit(file);
        scene.host.publish(&scene.project, REPOSITORY);
        app.wait_until_held(&scene.server, watch, &head);
        let round = rounds()[0]["round"].clone();
        scene.visit(&browser, &format!("watch?id={watch}&tab=rounds"));
        let question = format!("Replay main from {}?", &before[..10]);
        hand.confirm(&browser, &format!("Replay of round {round}"), &question, "Replay");
        browser.wait_for("A replay was asked for.");
        let replay = eventually("a replay", SOON, || {
            rounds().into_iter().find(|row| {
                row["kind"] == "replay"
                    && row["state"] == "finished"
                    && row["round"].as_i64() > round.as_i64()
            })
        });
        // The app may have anything at the three paths with open dead letters: they are sent again as well.
        assert_eq!(replay["total"], 1 + 3, "{hand:?}: {replay}");
    }
}
