//! A tab that stays open for days: what it holds does not grow with refreshes and with entries that come.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{Scene, walks::wait_until_live};
use crate::support::{
    browser::Browser,
    inbox::Inbox,
    length,
    patience::{SOON, eventually},
};

/// Refreshes of each page, as many as a tab makes in some 15 minutes, unless `TIDINGS_STORY_REFRESHES` says
/// otherwise.
const REFRESHES: u64 = 200;
/// Refreshes in one command to the browser, which has five minutes for it.
const REFRESHES_AT_ONCE: u64 = 25;
/// Entries that come while the page of the ledger is open, unless `TIDINGS_STORY_ENTRIES` says otherwise.
const ENTRIES: u64 = 3_000;
/// Most entries that the page keeps of those that came.
const ENTRIES_KEPT: u64 = 200;
/// Most rows of the page, those of its first answer included.
const ROWS_MAX: u64 = 250;
/// What may come to what a tab holds: caches of the browser, and rows that differ.
const NODES_GROWTH: f64 = 600.0;
const LISTENERS_GROWTH: f64 = 60.0;
const HEAP_GROWTH_BYTES: f64 = (4 << 20) as f64;
/// Looks at what a tab holds before it counts as grown, and the time between two of them.
const LOOKS: u32 = 60;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// What the tab holds after its garbage was collected.
#[derive(Clone, Copy, Debug)]
struct Held {
    heap_bytes: f64,
    nodes: f64,
    listeners: f64,
}

impl Held {
    fn by(browser: &Browser) -> Self {
        browser.devtools("Performance.enable");
        for _ in 0..2 {
            browser.devtools("HeapProfiler.collectGarbage");
        }
        let metrics = browser.devtools("Performance.getMetrics");
        let metrics = metrics["metrics"].as_array().expect("metrics").clone();
        let of = |name: &str| {
            let found = metrics.iter().find(|metric| metric["name"] == name);
            found.and_then(|metric| metric["value"].as_f64()).expect("a number")
        };
        Self { heap_bytes: of("JSHeapUsedSize"), nodes: of("Nodes"), listeners: of("JSEventListeners") }
    }

    fn is_no_more_than(self, before: Self) -> bool {
        self.nodes - before.nodes < NODES_GROWTH
            && self.listeners - before.listeners < LISTENERS_GROWTH
            && self.heap_bytes - before.heap_bytes < HEAP_GROWTH_BYTES
    }
}

/// The tab holds no more than before. On a busy machine a frame that is still to be drawn keeps nodes alive for a
/// moment after a collection; what leaks is still there in every later look.
fn assert_holds_no_more(browser: &Browser, before: Held, what: &str) {
    let mut looks = Vec::new();
    for _ in 0..LOOKS {
        looks.push(Held::by(browser));
        if looks.last().is_some_and(|held| held.is_no_more_than(before)) {
            return;
        }
        thread::sleep(BETWEEN_LOOKS);
    }
    panic!("{what}: the tab held {before:?}, then {looks:?}");
}

/// Asks for the page's data again and draws the page, as the tab does by itself every few seconds.
fn refresh(browser: &Browser, times: u64) {
    let script = "const [times, done] = arguments;
        const main = document.querySelector('script[type=module]').src;
        import(new URL('core/router.js', main)).then(async ({ refresh }) => {
            for (let time = 0; time < times; time += 1) await refresh();
            done(true);
        }, (error) => done(String(error)));";
    for _ in 0..times / REFRESHES_AT_ONCE {
        assert_eq!(browser.run_async(script, &[json!(REFRESHES_AT_ONCE)]), true);
    }
}

#[test]
fn a_page_that_is_refreshed_for_long_holds_no_more_than_before() {
    let scene = Scene::start();
    let Some(browser) = Browser::start_anew() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    let (app, watch) = (&scene.app.id, &scene.watch);
    let times = length("TIDINGS_STORY_REFRESHES", REFRESHES, REFRESHES / 2);
    for path in [
        String::new(),
        "watches".to_owned(),
        format!("watch?app={app}&id={watch}"),
        format!("app?app={app}"),
        format!("queue?app={app}&command=index"),
        "tree".to_owned(),
    ] {
        scene.visit(&browser, &path);
        refresh(&browser, REFRESHES_AT_ONCE);
        let before = Held::by(&browser);
        refresh(&browser, times);
        assert_holds_no_more(&browser, before, &path);
    }
}

/// Ends tasks that have a callback, each of which makes an entry of the ledger.
fn make_entries(scene: &Scene, inbox: &Inbox, count: u64) {
    let ask = |path: &str, body: &Value| {
        let reply = scene.app.ask(&scene.server, "POST", path, Some(body));
        assert!((200..300).contains(&reply.status), "{path}: {}", reply.json());
        reply.json()
    };
    let task = json!({ "command": "busy", "webhook": inbox.url() });
    for _ in 0..count / 100 {
        ask("/api/tasks/batch", &json!({ "tasks": vec![&task; 100] }));
        let given = ask("/api/tasks/claim", &json!({ "commands": ["busy"], "count": 100 }));
        let given = given["tasks"].as_array().expect("tasks").clone();
        let items: Vec<Value> = given.iter().map(|task| json!({ "token": task["token"] })).collect();
        assert_eq!(items.len(), 100);
        ask("/api/tasks/batch/complete", &json!({ "items": items }));
    }
}

#[test]
fn a_live_page_of_a_busy_ledger_keeps_a_bounded_number_of_entries() {
    let scene = Scene::start();
    let inbox = Inbox::start();
    let Some(browser) = Browser::start_anew() else { return };
    scene.sign_in(&browser, &scene.admin_token());
    scene.visit(&browser, &format!("ledger?app={}", scene.app.id));
    wait_until_live(&browser);
    let kept = "const [done] = arguments;
        const main = document.querySelector('script[type=module]').src;
        import(new URL('core/router.js', main)).then(({ state }) => done([
            state.local.entries?.length ?? 0, document.querySelectorAll('section[aria-label=Entries] tbody tr').length,
            state.local.entries?.[0]?.entry_id ?? null]));";
    let shown = || browser.run_async(kept, &[]);
    let wait_for_newest = || {
        let page = scene.app.ask(&scene.server, "GET", "/api/ledger?limit=1", None).json();
        let newest = page["items"][0]["entry_id"].clone();
        assert!(newest.is_string(), "{page}");
        eventually("the newest entry", SOON, || (shown()[2] == newest).then_some(()));
    };
    // As many as the page keeps, so that what comes afterwards only replaces entries.
    make_entries(&scene, &inbox, 400);
    wait_for_newest();
    // With fresh data the page shows the kept entries and no others, so that both looks are at equal rows.
    refresh(&browser, REFRESHES_AT_ONCE);
    let before = Held::by(&browser);
    make_entries(&scene, &inbox, length("TIDINGS_STORY_ENTRIES", ENTRIES, ENTRIES / 3));
    wait_for_newest();
    let numbers = shown();
    assert!(numbers[0].as_u64().is_some_and(|entries| entries <= ENTRIES_KEPT), "{numbers}");
    assert!(numbers[1].as_u64().is_some_and(|rows| (100..=ROWS_MAX).contains(&rows)), "{numbers}");
    // Where an entry came between the last answer and the stream, the next refresh shows as many again.
    eventually("a page of the kept entries alone", SOON, || {
        refresh(&browser, REFRESHES_AT_ONCE);
        (shown()[1] == ENTRIES_KEPT).then_some(())
    });
    assert_holds_no_more(&browser, before, "ledger");
    // A page that is left closes its stream and holds nothing of it.
    scene.visit(&browser, "apps");
    refresh(&browser, REFRESHES_AT_ONCE);
    assert_eq!(shown()[0], 0);
}
