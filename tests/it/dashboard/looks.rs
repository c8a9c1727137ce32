//! How each page looks: at every width, in light and dark, to a screen reader; and its pictures.

use serde_json::{Value, json};

use super::{Scene, write_picture};
use crate::support::{browser::Browser, setting};

/// Widths in CSS pixels: a small phone, a tablet, a laptop, a large screen.
const WIDTHS: [u32; 4] = [360, 768, 1280, 2560];
/// The axe-core library, for tests only.
const AXE: &str = include_str!("../vendor/axe.min.js");
/// Pages of which the guide shows pictures.
const PICTURED: [&str; 14] = [
    "overview",
    "app",
    "watch",
    "letters",
    "letter",
    "deliveries-of-all",
    "delivery",
    "start-repository",
    "ledger-of-all",
    "queues",
    "schedules",
    "schedule",
    "audit",
    "tree",
];

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
fn no_page_scrolls_sideways_at_any_width_whatever_its_texts_say() {
    let scene = Scene::start();
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

/// By how much the page is wider than the window at this moment, and the first elements that make it so.
fn overflow(browser: &Browser) -> Option<Value> {
    let wider = "const most = document.documentElement.clientWidth;
        const out = [...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > most + 1);
        return [document.documentElement.scrollWidth - most, out.slice(0, 4).map((one) => one.outerHTML.slice(0, 90))]";
    let found = browser.run(wider, &[]);
    (found[0] != 0).then_some(found)
}

#[test]
fn no_page_has_a_finding_of_axe_in_light_or_dark() {
    let scene = Scene::start();
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

fn findings(browser: &Browser) -> Vec<String> {
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

/// The pictures of the guide: `TIDINGS_PICTURES=1` makes them anew.
#[test]
fn every_pictured_page_shows_what_its_picture_names() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    browser.resize(1280, 900);
    scene.sign_in(&browser, &scene.admin_token());
    let is_wanted = setting("TIDINGS_PICTURES").is_some();
    for theme in ["light", "dark"] {
        set_theme(&browser, theme);
        for (name, path) in scene.pages().into_iter().filter(|(name, _)| PICTURED.contains(name)) {
            scene.visit(&browser, &path);
            if name == "start-repository" {
                browser.write("#field-url", &scene.repository_url());
                browser.wait_for("16 of 16 files match");
                browser.write("#field-include", "docs/**");
                browser.wait_for("12 of 16 files match");
            }
            let shown = browser.run("return document.documentElement.dataset.theme", &[]);
            assert_eq!(shown, theme, "{name}");
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

#[test]
fn no_table_breaks_a_word_on_a_common_screen() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let mut tables = 0;
    for (name, path) in scene.pages() {
        scene.visit(&browser, &path);
        assert_eq!(browser.run(BROKEN_WORDS, &[]), json!([]), "{name}");
        let count = browser.run("return document.querySelectorAll('main .table').length", &[]);
        tables += count.as_u64().expect("a number");
    }
    assert!(tables > 15, "{tables} tables were looked at");
}

#[test]
fn no_page_logs_anything_in_the_browser() {
    let scene = Scene::told("");
    let Some(browser) = Browser::start() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    drop(browser.logged());
    for (name, path) in scene.pages().into_iter().filter(|(name, _)| *name != "not-found") {
        scene.visit(&browser, &path);
        assert_eq!(browser.logged(), Vec::<String>::new(), "{name}");
    }
}
