//! What a page says is so: of this path and no other one, in the digits that were sent, with every row to be found.

use serde_json::{Value, json};

use super::{REPOSITORY, Scene, hands::wait_until, sign_out};
use crate::support::{
    api::App,
    browser::Browser,
    patience::{SOON, eventually},
};

/// The paths in the rows of a page.
const PATHS: &str =
    "return [...document.querySelectorAll('main tbody td.wide:first-child a')].map((one) => one.textContent)";

#[test]
fn a_search_for_a_path_is_about_that_path() {
    let scene = Scene::told("");
    let names = ["app/[slug]/page.tsx", "app/s/page.tsx", "app/{a,b}.ts", "[x]*{y}.md"];
    names.iter().for_each(|name| scene.project.write(name, b"x"));
    scene.project.write_raw(b"docs/\xff\xfe.md", b"x");
    scene.project.commit("odd names");
    scene.host.publish(&scene.project, REPOSITORY);
    scene.app.wait_until_held(&scene.server, &scene.watch, &scene.project.head());
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    for name in names {
        scene.visit(&browser, "app");
        browser.write("#find-path", name);
        browser.click_on("Find");
        browser.wait_for("What became of this path.");
        eventually(name, SOON, || (browser.run(PATHS, &[]) == json!([name])).then_some(()));
    }
    scene.visit(&browser, "deliveries?path=app/**");
    browser.wait_for("Nothing was delivered under this very name.");
    assert_eq!(browser.run(PATHS, &[]).as_array().map(Vec::len), Some(3));
    // The page of a delivery leads to those of its path, also where its bytes are no text.
    let all = scene.app.ask(&scene.server, "GET", "/api/deliveries?limit=100", None).json();
    let odd = all["items"].as_array().expect("a list").iter().find(|row| row["path_base64"].is_string());
    let odd = odd.expect("a path that is no text");
    scene.visit(&browser, &format!("delivery?id={}", odd["id"].as_str().expect("an id")));
    browser.click_on("Deliveries of this path");
    eventually("its delivery", SOON, || (browser.run(PATHS, &[]) == json!([odd["path"]])).then_some(()));
}

#[test]
fn a_task_is_shown_in_the_digits_that_were_sent() {
    let scene = Scene::told("");
    let wish = "{\"command\":\"digits\",\"payload\":{\"id\":12345678901234567890,\"f\":1.0,\"e\":1e300}}";
    let body: Value = serde_json::from_str("{\"commands\":[\"digits\"]}").expect("JSON");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let send = "const [body, done] = arguments; fetch('/api/tasks', { method: 'POST', body,
        headers: { 'tidings-page': '1', 'content-type': 'application/json' } })
        .then(async (answer) => done((await answer.json()).id))";
    let id = browser.run_async(send, &[json!(wish)]).as_str().expect("an id").to_owned();
    scene.visit(&browser, &format!("task?id={id}"));
    browser.wait_for("\"id\": 12345678901234567890,\n  \"f\": 1.0,\n  \"e\": 1e300\n");
    browser.wait_for("No result yet");
    let given = scene.app.ask(&scene.server, "POST", "/api/tasks/claim", Some(&body)).json();
    let done = json!({ "token": given["tasks"][0]["token"], "result": null });
    let path = format!("/api/tasks/{id}/complete");
    assert_eq!(scene.app.ask(&scene.server, "POST", &path, Some(&done)).status, 200);
    browser.wait_for("succeeded");
    let result = "return document.querySelector('section[aria-label=Result]').innerText";
    let shown = browser.run(result, &[]);
    assert!(!shown.as_str().expect("a text").contains("yet"), "{shown}");
}

#[test]
fn a_payload_of_100_000_nested_arrays_is_shown() {
    let scene = Scene::told("");
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let wish = format!("{{\"command\":\"deep\",\"payload\":{nested}}}");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let send = "const [body, done] = arguments; fetch('/api/tasks', { method: 'POST', body,
        headers: { 'tidings-page': '1', 'content-type': 'application/json' } })
        .then(async (answer) => done((await answer.json()).id))";
    let id = browser.run_async(send, &[json!(wish)]).as_str().expect("an id").to_owned();
    scene.visit(&browser, &format!("task?id={id}"));
    let payload = "const text = document.querySelector('pre[aria-label=Payload]').textContent;
        return [text.length, text.replace(/\\s/g, '').length]";
    let shown = browser.run(payload, &[]);
    assert_eq!(shown[1], 200_000, "every bracket: {shown}");
    assert!(shown[0].as_u64().is_some_and(|length| length < 210_000), "{shown}");
    assert!(browser.complaints().is_empty());
}

#[test]
fn every_token_and_every_redrive_is_on_some_page() {
    let scene = Scene::told("");
    let admin = scene.admin_token();
    for number in 0..52 {
        let body = json!({ "name": format!("token-{number:02}"), "role": "viewer" });
        let made =
            scene.server.ask("POST", "/api/admin/tokens", Some(&admin), Some(&body)).expect("an answer");
        assert_eq!(made.status, 201, "{}", made.json());
    }
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &admin);
    scene.visit(&browser, "system?tab=tokens");
    assert!(!browser.text().contains("token-51"));
    browser.run("scrollTo(0, document.body.scrollHeight)", &[]);
    browser.click_on("Next page");
    browser.wait_for("token-51");
    let place = "return [scrollY, document.activeElement.tagName]";
    wait_until(&browser, "the top of the next page", place, &json!([0, "H1"]));
}

#[test]
fn the_content_of_a_delete_of_a_file_that_the_app_never_had_is_known_to_be_none() {
    let scene = Scene::told("");
    scene.app.patch(&scene.server, &scene.watch, &json!({ "exclude": ["img/**"] }));
    let deleted = eventually("deletes that were refused", SOON, || {
        let letters = scene.app.ask(&scene.server, "GET", "/api/dead-letters?limit=100", None).json();
        let letters = letters["items"].as_array()?.clone();
        letters.into_iter().find(|letter| letter["operation"] == "delete")
    });
    let id = deleted["delivery_id"].as_str().expect("an id");
    let shown = scene.app.ask(&scene.server, "GET", &format!("/api/deliveries/{id}/content"), None);
    assert_eq!(shown.status, 200, "{}", shown.json());
    let shown = shown.json();
    assert!(["old", "new", "diff"].iter().all(|part| shown[part].is_null()), "{shown}");
}

#[test]
fn forward_shows_the_choice_that_the_address_holds_and_the_path_that_it_names() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, "letters");
    let choose = "const one = document.querySelector('#choice-status'); one.value = 'all';
        one.dispatchEvent(new Event('change', { bubbles: true }))";
    browser.run(choose, &[]);
    let chosen = |expected: &str| {
        eventually(expected, SOON, || {
            let shown = browser.run("return document.querySelector('#choice-status')?.value ?? null", &[]);
            (shown == expected && browser.url().contains("status=all") == (expected == "all")).then_some(())
        });
    };
    chosen("all");
    browser.run("history.back()", &[]);
    chosen("");
    browser.run("history.forward()", &[]);
    chosen("all");
    scene.visit(
        &browser,
        &format!("watch?app={}&id={}&tab=changes&path=docs/page-1.md", scene.app.id, scene.watch),
    );
    assert_eq!(browser.run("return document.querySelector('#change-path').value", &[]), "docs/page-1.md");
}

#[test]
fn letters_that_somebody_else_dismissed_are_chosen_no_more_and_the_keyboard_stays_where_it_was() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    scene.visit(&browser, "letters");
    for name in ["img/picture-1.png", "img/picture-2.png"] {
        browser.click(&format!("input[aria-label='Select {name}']"));
    }
    browser.wait_for("2 chosen");
    let letters = scene.letters();
    let gone = letters.iter().find(|letter| letter["path"] == "img/picture-1.png").expect("its letter");
    let path = format!("/api/dead-letters/{}/dismiss", gone["dead_letter_id"].as_str().expect("an id"));
    assert_eq!(scene.app.ask(&scene.server, "POST", &path, None).status, 200);
    browser.wait_for("1 chosen");
    browser.click_on("Choose none");
    // A question that is taken back leads to its button again.
    browser.click_on("Dismiss all");
    browser.wait_for("Dismiss 2 dead letters?");
    browser.press("\u{e00c}");
    let focus = "return document.activeElement.textContent.trim()";
    eventually("the button", SOON, || (browser.run(focus, &[]) == "Dismiss all").then_some(()));
    // A link of an app's own says to the staff what it lacks, and the title does not load for ever.
    sign_out(&browser);
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, &format!("watch?id={}", scene.watch));
    browser.wait_for("For the staff it needs the app as well");
    assert_eq!(browser.run("return document.title", &[]), "Not shown · Tidings");
}

#[test]
fn an_endpoint_to_which_nothing_was_sent_is_not_called_good_and_an_unknown_tab_shows_the_first() {
    let scene = Scene::told("");
    let quiet = App::onboard_with(&scene.server, &scene.receiver, &json!({ "app_name": "quiet" }));
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, &format!("app?app={}", quiet.id));
    browser.wait_for("No watch has sent anything yet");
    assert!(!browser.text().contains("The endpoint takes deliveries"));
    scene.visit(&browser, &format!("watch?app={}&id={}&tab=nowhere", scene.app.id, scene.watch));
    browser.wait_for("Scans");
    scene.visit(&browser, &format!("watch?app={}&id={}&tab=settings", scene.app.id, scene.watch));
    browser.wait_for("Follows");
    let follows =
        "const name = [...document.querySelectorAll('dt')].find((one) => one.textContent === 'Follows');
        return name?.nextElementSibling?.textContent ?? ''";
    assert_eq!(browser.run(follows, &[]), "default branch");
}
