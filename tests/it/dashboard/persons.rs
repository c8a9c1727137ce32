//! Who sees what: a viewer reads no contents, a tab acts for nobody but the person that it shows, and a narrowed
//! token gets the pages that it may see.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Scene, sign_out};
use crate::support::{
    api::{App, items},
    browser::Browser,
    patience::{SOON, eventually},
};

#[test]
fn who_may_not_read_contents_sees_no_payload_of_a_watch() {
    let scene = Scene::told("");
    let sink = json!({ "kind": "tasks", "command": "embed" });
    let body = json!({ "url": scene.repository_url(), "watch_name": "embed", "sink": sink });
    scene.app.watch_with(&scene.server, &body);
    let tasks = eventually("tasks", SOON, || {
        let page = scene.app.ask(&scene.server, "GET", "/api/tasks?command=embed", None).json();
        page["items"].as_array().filter(|tasks| !tasks.is_empty()).cloned()
    });
    let id = tasks[0]["id"].as_str().expect("an id").to_owned();
    let made = |body: Value| {
        let made = scene.app.ask(&scene.server, "POST", "/api/app/tokens", Some(&body)).json();
        made["token"].as_str().expect("a token").to_owned()
    };
    let own = format!("/api/tasks/{id}");
    let of_staff = format!("/api/admin/apps/{}/tasks/{id}", scene.app.id);
    let codeq = format!("/v1/codeq/tasks/{id}");
    let ask = |path: &str, token: &str| {
        let reply = scene.server.ask("GET", path, Some(token), None).expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    };
    let [viewer, operator] = ["viewer", "operator"].map(|role| scene.staff(role).1);
    let reader = made(json!({ "name": "reads", "permissions": ["tasks:read"] }));
    let worker = made(json!({ "name": "works", "permissions": ["tasks:read", "tasks:claim"] }));
    for (path, token, is_shown) in [
        (&of_staff, &viewer, false),
        (&of_staff, &operator, true),
        (&own, &scene.app.token, true),
        (&own, &reader, false),
        (&own, &worker, true),
    ] {
        let task = ask(path, token);
        assert_eq!(task["payload"]["file"].is_object(), is_shown, "{path}: {task}");
        assert_eq!(task["payload_left_out"] == "permission", !is_shown, "{path}: {task}");
    }
    assert_eq!(ask(&codeq, &reader)["payload"], "null");
    assert!(ask(&codeq, &worker)["payload"].as_str().expect("a text").contains("\"file\""));
    // A task that nobody made of a file is shown as before.
    let plain = format!("/api/admin/apps/{}/tasks/{}", scene.app.id, scene.task);
    assert_eq!(ask(&plain, &viewer)["payload"]["page"], 1);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &viewer);
    scene.visit(&browser, &format!("task?app={}&id={id}", scene.app.id));
    browser.wait_for("your token lacks the permission contents:read");
}

#[test]
fn a_tab_does_nothing_for_a_person_that_it_does_not_show() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    scene.visit(&browser, "app");
    browser.wait_for("search index");
    // What another tab of this browser does, and then a press in this one.
    let watch = scene.away.ask(&scene.server, "GET", "/api/repositories", None).json();
    let path =
        format!("/api/repositories/{}/pause", watch["items"][0]["repository_id"].as_str().expect("an id"));
    let other = "const [token, path, done] = arguments; (async () => {
        const send = (path, page, body) => fetch(path, { method: 'POST', body: JSON.stringify(body),
            headers: { 'tidings-page': page, 'content-type': 'application/json' } });
        const shown = await (await fetch('/api/session')).json();
        await send('/api/session', '1', { token });
        const answer = await send(path, shown.token_id, {});
        done([answer.status, (await answer.json()).type]); })()";
    let answer = browser.run_async(other, &[json!(scene.away.token), json!(path)]);
    assert_eq!(answer, json!([409, "urn:tidings:problem:other-person"]));
    // The page shows the other person by itself.
    eventually("the other app", SOON, || {
        let text = browser.text();
        (text.contains("docs site") && !text.contains("search index")).then_some(())
    });
    let away: &App = &scene.away;
    let shown = away.ask(&scene.server, "GET", "/api/repositories", None).json();
    assert_eq!(shown["items"][0]["state"], "active");
}

#[test]
fn a_narrowed_token_gets_the_pages_that_it_may_see() {
    let scene = Scene::told("");
    let letter = scene.letters()[0].clone();
    let id = letter["dead_letter_id"].as_str().expect("an id");
    let wish = json!({ "name": "letters", "permissions": ["dead-letters:read"] });
    let made = scene.app.ask(&scene.server, "POST", "/api/app/tokens", Some(&wish)).json();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, made["token"].as_str().expect("a token"));
    browser.wait_for("Changes that became dead letters, and why.");
    browser.click_on(letter["path"].as_str().expect("a path"));
    browser.wait_for("Why it is a dead letter");
    assert!(browser.url().contains(id), "{}", browser.url());
    sign_out(&browser);
    let admin = scene.admin_token();
    let wish = json!({ "name": "sources", "permissions": ["sources:read"] });
    let made = scene.server.ask("POST", "/api/admin/tokens", Some(&admin), Some(&wish)).expect("an answer");
    scene.sign_in(&browser, made.json()["token"].as_str().expect("a token"));
    // The one link that there is leads to the one part that may be seen.
    browser.wait_for("No source fails");
    let links =
        "return [...document.querySelectorAll('.links a, .tabs a')].map((one) => one.textContent.trim())";
    assert_eq!(browser.run(links, &[]), json!(["System", "Sources"]));
}

#[test]
fn whoever_is_signed_out_is_told_why() {
    let scene = Scene::told("");
    let (id, viewer) = scene.staff("viewer");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &viewer);
    scene.visit(&browser, "watches");
    let admin = scene.admin_token();
    let path = format!("/api/admin/tokens/{id}");
    assert_eq!(scene.server.ask("DELETE", &path, Some(&admin), None).expect("an answer").status, 204);
    browser.wait_for("You are signed out: the session has ended, or its token was revoked.");
}

#[test]
fn a_token_for_some_commands_sees_their_queues_and_only_links_that_it_may_follow() {
    let scene = Scene::told("");
    let ask = |method: &str, path: &str, token: &str, body: Option<&Value>| {
        let reply = scene.server.ask(method, path, Some(token), body).expect("an answer");
        assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.json());
        reply.json()
    };
    for command in ["embed", "embed-large", "mail"] {
        let (task, schedule) =
            (json!({ "command": command, "payload": 1 }), json!({ "cron": "0 3 * * *", "command": command }));
        ask("POST", "/api/tasks", &scene.app.token, Some(&task));
        ask("PUT", &format!("/api/schedules/of-{command}"), &scene.app.token, Some(&schedule));
    }
    let permissions = ["queues:read", "schedules:read", "tasks:read"];
    let wish = json!({ "name": "works", "permissions": permissions, "commands": ["embed*"] });
    let made = ask("POST", "/api/app/tokens", &scene.app.token, Some(&wish));
    let token = made["token"].as_str().expect("a token");
    let names = |path: &str, field: &str| {
        let page = ask("GET", path, token, None);
        let names: Vec<Value> = items(&page).iter().map(|row| row[field].clone()).collect();
        (json!(names), page["next_cursor"].as_str().map(str::to_owned))
    };
    assert_eq!(names("/api/queues", "command"), (json!(["embed", "embed-large"]), None));
    assert_eq!(names("/api/schedules", "name"), (json!(["of-embed", "of-embed-large"]), None));
    let (first, next) = names("/api/queues?limit=1", "command");
    let next = format!("/api/queues?limit=1&cursor={}", next.expect("a second page"));
    assert_eq!((first, names(&next, "command")), (json!(["embed"]), (json!(["embed-large"]), None)));
    assert_eq!(ask("GET", "/api/session", token, None)["commands"], json!(["embed*"]));

    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, token);
    let links = "return [...document.querySelectorAll('.links a, main a[href^=\"/dashboard/\"]')]
        .map((one) => one.getAttribute('href'))";
    let (mut seen, mut open) = (BTreeSet::new(), vec!["queues".to_owned()]);
    while let Some(path) = open.pop() {
        scene.visit(&browser, &path);
        let text = browser.text();
        assert!(!text.contains("You may not see this"), "{path}: {text}");
        for link in browser.run(links, &[]).as_array().expect("links") {
            let path = link.as_str().expect("an address").trim_start_matches("/dashboard/").to_owned();
            if seen.insert(path.clone()) {
                open.push(path);
            }
        }
    }
    assert!(seen.iter().any(|path| path.starts_with("task?")), "{seen:?}");
    assert!(!seen.iter().any(|path| path.contains("mail")), "{seen:?}");
}
