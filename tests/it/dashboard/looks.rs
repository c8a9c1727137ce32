//! How each page looks: at every width, in light and dark, to a screen reader; and its pictures.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{PLANTED, Scene, sign_in, wait_until_shown, write_picture};
use crate::support::{
    browser::Browser,
    patience::{SOON, eventually},
    server::Server,
    setting,
};

/// Widths in CSS pixels: a small phone, a tablet, a laptop, a large screen.
const WIDTHS: [u32; 4] = [360, 768, 1280, 2560];
/// The axe-core library, for tests only.
const AXE: &str = include_str!("../vendor/axe.min.js");
/// Pages of which the guide shows pictures.
const PICTURED: [&str; 36] = [
    "overview",
    "apps",
    "start",
    "app",
    "app-tokens",
    "hooks-of-app",
    "watches",
    "watch",
    "watch-rounds",
    "watch-changes",
    "letters",
    "letter",
    "deliveries",
    "deliveries-of-all",
    "delivery",
    "start-repository",
    "ledger-of-all",
    "subscription",
    "queues",
    "queue",
    "task",
    "schedules",
    "schedule",
    "audit",
    "tree",
    "breakers",
    "sources",
    "hooks",
    "replicas",
    "storage",
    "settings",
    "keys",
    "tokens",
    "watch-of-tasks",
    "queue-of-watch",
    "task-of-watch",
];

/// A fault of a page is seen for as long as this. Plots follow the width of the window with the next picture
/// of the screen, which a busy machine draws late.
const SETTLES: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// What is still found after a while; `None` as soon as nothing is.
fn lasting<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + SETTLES;
    loop {
        let found = look()?;
        if Instant::now() > until {
            return Some(found);
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Whether the plots of the page are drawn, or say that there is nothing to draw.
const DRAWN: &str = "return [...document.querySelectorAll('[data-plot]')]
    .every((one) => one.querySelector('canvas, p') !== null)";

fn set_theme(browser: &Browser, theme: &str) {
    browser.run("localStorage.setItem('tidings-theme', arguments[0])", &[json!(theme)]);
}

/// Makes every text of the page longer, as what actors, receivers and repositories say may be.
const STRETCH: &str =
    "const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const { currentNode: text, currentNode: { parentElement: host } } = walker;
        if (text.data.trim() && !host.closest('time, .button, option')) text.data += ` and ${'w'.repeat(60)}`;
    }";

#[test]
fn no_page_scrolls_sideways_at_any_width_with_short_and_long_words() {
    let scene = Scene::start().with_work(PLANTED);
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let mut all = Vec::new();
    for (name, path) in scene.pages() {
        scene.visit(&browser, &path);
        for words in ["its own words", "long words"] {
            if words == "long words" {
                browser.run(STRETCH, &[]);
            }
            for width in WIDTHS {
                browser.resize(width, 900);
                all.extend(overflow(&browser).map(|found| format!("{name}, {words}, {width} px: {found}")));
            }
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// By how much the page is wider than the window, and the first elements that make it so.
fn overflow(browser: &Browser) -> Option<Value> {
    let wider = "const most = document.documentElement.clientWidth;
        const out = [...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > most + 1);
        return [document.documentElement.scrollWidth - most, out.slice(0, 4).map((one) => one.outerHTML.slice(0, 90))]";
    lasting(|| Some(browser.run(wider, &[])).filter(|found| found[0] != 0))
}

#[test]
fn no_page_has_a_finding_of_axe_in_light_or_dark() {
    let scene = Scene::start().with_work(PLANTED);
    let Some(browser) = Browser::start() else { return };
    browser.go(&scene.url(""));
    browser.wait_for("Sign in");
    assert_eq!(findings(&browser), Vec::<String>::new(), "of the page to sign in");
    scene.sign_in(&browser, &scene.admin_token());
    let mut all = Vec::new();
    for theme in ["light", "dark"] {
        set_theme(&browser, theme);
        for (name, path) in scene.pages() {
            scene.visit(&browser, &path);
            all.extend(findings(&browser).into_iter().map(|finding| format!("{name}, {theme}: {finding}")));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// Pages of lists that are empty on a fresh server, and pages that are not.
const EMPTY: [&str; 6] = ["apps", "watches", "letters", "ledger", "queues", "schedules"];
const OTHERS: [&str; 10] = [
    "",
    "start",
    "deliveries",
    "tree",
    "audit",
    "system",
    "system?tab=sources",
    "system?tab=hooks",
    "system?tab=storage",
    "system?tab=tokens",
];

#[test]
fn on_a_fresh_server_each_page_says_that_nothing_is_there_yet() {
    let server = Server::start();
    let Some(browser) = Browser::start() else { return };
    let url = |path: &str| format!("http://{}/dashboard/{path}", server.address());
    let token = fs::read_to_string(server.data().join("admin-token")).expect("a token");
    browser.go(&url(""));
    sign_in(&browser, token.trim());
    let said = "return [...document.querySelectorAll('main .state strong')].map((one) => one.innerText)";
    let mut all = Vec::new();
    for theme in ["light", "dark"] {
        set_theme(&browser, theme);
        for path in EMPTY.iter().chain(&OTHERS) {
            browser.go(&url(path));
            wait_until_shown(&browser, path);
            let said = browser.run(said, &[]);
            let is_said = said.as_array().is_some_and(|texts| !texts.is_empty());
            assert!(is_said || !EMPTY.contains(path), "{path} says nothing");
            all.extend(findings(&browser).into_iter().map(|finding| format!("{path}, {theme}: {finding}")));
            for width in WIDTHS {
                browser.resize(width, 900);
                all.extend(overflow(&browser).map(|found| format!("{path}, {width} px: {found}")));
            }
            all.extend(browser.complaints().into_iter().map(|text| format!("{path}: {text}")));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// How questions of a page to the server end, each with the words that then stand where rows would be.
const ENDS: [(&str, &str); 4] = [
    ("() => new Promise(() => {})", "Loading …"),
    ("() => Promise.reject(new TypeError('gone'))", "The server does not answer"),
    ("async () => new Response('{\"title\":\"The store failed\"}', { status: 500 })", "The store failed"),
    (
        "async () => new Response('{\"detail\":\"It is not yours.\"}', { status: 403 })",
        "You may not see this",
    ),
];

#[test]
fn a_page_without_rows_says_why_and_has_no_finding_of_axe_in_light_or_dark() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.app.token);
    let mut all = Vec::new();
    for theme in ["light", "dark"] {
        set_theme(&browser, theme);
        for (end, words) in ENDS {
            scene.visit(&browser, "watches");
            browser.run(&format!("window.fetch = {end}"), &[]);
            browser.click_on("Queues");
            browser.wait_for(words);
            all.extend(findings(&browser).into_iter().map(|finding| format!("{words}, {theme}: {finding}")));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

fn findings(browser: &Browser) -> Vec<String> {
    lasting(|| Some(findings_now(browser)).filter(|found| !found.is_empty())).unwrap_or_default()
}

fn findings_now(browser: &Browser) -> Vec<String> {
    browser.run(AXE, &[]);
    let run = "const done = arguments[arguments.length - 1];
        axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => done(violations.flatMap(
            ({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 160)} ${node.failureSummary}`))))";
    let found = browser.run_async(run, &[]);
    found
        .as_array()
        .expect("findings")
        .iter()
        .map(|one| one.as_str().unwrap_or_default().to_owned())
        .collect()
}

/// The pictures of the guide: `TIDINGS_PICTURES=1` makes them again.
#[test]
fn every_pictured_page_shows_what_its_picture_names() {
    let scene = Scene::told("").with_work("");
    for role in ["viewer", "operator"] {
        scene.staff(role);
    }
    let narrow = json!({ "name": "redrives", "permissions": ["*:read", "dead-letters:redrive"] });
    assert_eq!(scene.app.ask(&scene.server, "POST", "/api/app/tokens", Some(&narrow)).status, 201);
    let pages = scene.pages();
    for name in PICTURED {
        assert!(pages.iter().any(|(known, _)| *known == name), "{name} is no page");
    }
    let guide = include_str!("../../../docs/dashboard.md");
    for picture in guide.split("(pictures/").skip(1).filter_map(|rest| rest.split(".png").next()) {
        let name = picture.trim_end_matches("-light").trim_end_matches("-dark");
        assert!(PICTURED.contains(&name), "no story makes the picture {picture} of the guide");
    }
    let Some(browser) = Browser::start() else { return };
    browser.resize(1280, 900);
    scene.sign_in(&browser, &scene.admin_token());
    let is_wanted = setting("TIDINGS_PICTURES").is_some();
    for theme in ["light", "dark"] {
        set_theme(&browser, theme);
        for (name, path) in pages.iter().filter(|(name, _)| PICTURED.contains(name)) {
            scene.visit(&browser, path);
            if *name == "start-repository" {
                browser.write("#field-url", &scene.repository_url());
                browser.wait_for("16 of 16 files match");
                browser.write("#field-include", "docs/**");
                browser.wait_for("12 of 16 files match");
            }
            let shown = browser.run("return document.documentElement.dataset.theme", &[]);
            assert_eq!(shown, theme, "{name}");
            eventually("its plots", SOON, || (browser.run(DRAWN, &[]) == true).then_some(()));
            let png = browser.picture();
            assert!(png.starts_with(b"\x89PNG") && png.len() > 5_000, "{name}");
            if is_wanted {
                write_picture(&format!("{name}-{theme}"), &png);
            }
        }
    }
}

/// Words of tables that are broken within: their letters stand in several lines.
const BROKEN_WORDS: &str = "
    const broken = [];
    for (const cell of document.querySelectorAll('main .table td, main .table th')) {
        const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
        for (let node = walker.nextNode(); node; node = walker.nextNode()) {
            if (node.parentElement.closest('code, .mono')) continue;
            for (const { 0: word, index } of node.data.matchAll(/[A-Za-z]{2,20}/g)) {
                const range = document.createRange();
                range.setStart(node, index);
                range.setEnd(node, index + word.length);
                const lines = new Set([...range.getClientRects()].map(({ top }) => Math.round(top)));
                if (lines.size > 1) broken.push(word);
            }
        }
    }
    return broken;";

/// Captions of tables that are wider than their place: their last columns are cut off.
const CUT_TABLES: &str = "
    const cut = [...document.querySelectorAll('main .card.rows')].filter((one) => one.scrollWidth > one.clientWidth + 1);
    return cut.map((one) => one.querySelector('caption').textContent)";

#[test]
fn no_table_breaks_a_word_or_is_cut_off_on_a_common_screen() {
    let scene = Scene::told("").with_work("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let mut tables = 0;
    for (name, path) in scene.pages() {
        scene.visit(&browser, &path);
        let broken = lasting(|| Some(browser.run(BROKEN_WORDS, &[])).filter(|words| *words != json!([])));
        assert_eq!(broken, None, "{name}");
        let cut = lasting(|| Some(browser.run(CUT_TABLES, &[])).filter(|tables| *tables != json!([])));
        assert_eq!(cut, None, "{name}");
        let count = browser.run("return document.querySelectorAll('main .table').length", &[]);
        tables += count.as_u64().expect("a number");
    }
    assert!(tables > 15, "{tables} tables were looked at");
}

#[test]
fn tabs_keep_their_places_whichever_is_chosen() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let places =
        "return [...document.querySelectorAll('.tabs a')].map((one) => one.getBoundingClientRect().left)";
    let of_system = |tab: &str| format!("system?tab={tab}");
    scene.visit(&browser, &of_system("breakers"));
    let first = browser.run(places, &[]);
    assert!(first.as_array().is_some_and(|tabs| tabs.len() > 5), "{first}");
    for tab in ["sources", "tokens"] {
        scene.visit(&browser, &of_system(tab));
        assert_eq!(browser.run(places, &[]), first, "{tab}");
    }
}

#[test]
fn no_page_logs_anything_in_the_browser() {
    let scene = Scene::told("").with_work("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    drop(browser.logged());
    for (name, path) in scene.pages().into_iter().filter(|(name, _)| *name != "not-found") {
        scene.visit(&browser, &path);
        assert_eq!(browser.logged(), Vec::<String>::new(), "{name}");
    }
}
