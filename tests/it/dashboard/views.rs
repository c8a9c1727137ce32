//! A page is what its address says, and texts of others are texts.

use serde_json::json;

use super::{PLANTED, REPOSITORY, Scene};
use crate::support::{
    browser::Browser,
    patience::{SOON, eventually},
};

#[test]
fn a_reload_and_a_shared_link_lead_to_the_same_view() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, "letters");
    browser.write("#q", "path:img/*-2.png");
    browser.click_on("Apply");
    browser.wait_for("img/picture-2.png");
    let is_filtered =
        || browser.text().contains("picture-2.png") && !browser.text().contains("picture-1.png");
    eventually("filter", SOON, || is_filtered().then_some(()));
    let shared = browser.url();
    assert!(shared.contains("q=path"), "{shared}");
    browser.reload();
    browser.wait_for("img/picture-2.png");
    assert!(is_filtered(), "{}", browser.text());
    scene.visit(&browser, "");
    browser.go(&shared);
    browser.wait_for("img/picture-2.png");
    assert!(is_filtered(), "{}", browser.text());
    let field = browser.run("return document.querySelector('#q').value", &[]);
    assert_eq!(field, "path:img/*-2.png", "the field shows the filter in force");
    browser.run("history.back()", &[]);
    browser.wait_for("Behind for longest");
}

#[test]
fn texts_of_others_are_shown_as_they_are_and_run_nothing() {
    let scene = Scene::start();
    // The path of a dead letter is such a text as well.
    scene.project.write("img/<img src=x onerror=window.planted=1>.png", b"planted");
    scene.project.commit("plant a letter");
    scene.host.publish(&scene.project, REPOSITORY);
    eventually("its letter", SOON, || (scene.letters().len() == 4).then_some(()));
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let mut seen = 0;
    let planted =
        "return [window.planted ?? null, document.querySelectorAll('main img, main script').length]";
    for (name, path) in scene.pages() {
        scene.visit(&browser, &path);
        assert_eq!(browser.run(planted, &[]), json!([null, 0]), "{name}");
        seen += usize::from(browser.text().contains("<img src=x onerror="));
        let complaints: Vec<_> = browser.complaints();
        let is_of_test = |text: &String| name == "not-found" && text.contains("app_none");
        assert!(complaints.iter().all(is_of_test), "{name}: {complaints:?}");
    }
    assert!(seen >= 4, "the planted texts were shown on {seen} pages");
    scene.visit(&browser, "letters");
    assert!(browser.text().contains("img/<img src=x onerror="), "the path of a letter is shown as it is");
    scene.visit(&browser, &format!("app?app={}", scene.app.id));
    assert!(browser.text().contains(PLANTED), "the description of the app is shown as it is");
}

#[test]
fn the_policy_of_the_pages_lets_no_planted_script_run() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    // As if a page had a hole: even then nothing runs, and nothing leaves.
    let hole = "window.refused = [];
        document.addEventListener('securitypolicyviolation', (event) => window.refused.push(event.violatedDirective));
        const script = document.createElement('script'); script.textContent = 'window.planted = 1';
        document.body.append(script);
        const host = document.createElement('div'); host.innerHTML = arguments[0]; document.body.append(host);
        fetch('http://127.0.0.1:9/').catch(() => {});
        return window.planted ?? null";
    assert_eq!(browser.run(hole, &[json!("<img src=x onerror='window.planted=1'>")]), json!(null));
    eventually("refusals", SOON, || {
        let refused = browser.run("return window.refused", &[]).to_string();
        (refused.contains("script-src") && refused.contains("connect-src")).then_some(())
    });
    assert_eq!(browser.run("return window.planted ?? null", &[]), json!(null));
}

#[test]
fn a_filter_that_is_refused_says_why_and_leaves_no_rows_of_before() {
    let scene = Scene::start();
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    for (path, row, filter) in [
        ("letters", "img/picture-1.png", "colour:red"),
        ("watches", "handbook", "state:("),
        ("ledger", "letter.parked", "colour:red"),
        ("deliveries", "docs/page-1.md", "colour:red"),
    ] {
        let rows = "return document.querySelector('main tbody')?.textContent ?? ''";
        scene.visit(&browser, path);
        eventually("rows", SOON, || browser.run(rows, &[]).as_str()?.contains(row).then_some(()));
        browser.write("#q", filter);
        browser.click_on("Apply");
        let alert = "return document.querySelector('main [role=alert]')?.textContent ?? ''";
        let says = eventually("a fault", SOON, || {
            Some(browser.run(alert, &[]).as_str()?.to_owned()).filter(|text| !text.is_empty())
        });
        assert!(says.contains("This filter cannot be readColumn "), "{path}: {says}");
        assert_eq!(browser.run(rows, &[]), "", "{path} shows rows of another filter");
        let kept = browser.run("return document.querySelector('#q').value", &[]);
        assert_eq!(kept, filter, "{path}: the filter can be corrected");
        // The same from a link, and back from there.
        browser.reload();
        eventually("a fault", SOON, || (browser.run(alert, &[]).as_str()? == says).then_some(()));
        browser.run("const q = document.querySelector('#q'); q.value = ''", &[]);
        browser.click_on("Apply");
        eventually("rows", SOON, || browser.run(rows, &[]).as_str()?.contains(row).then_some(()));
    }
}
