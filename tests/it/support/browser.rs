//! A real Chromium, driven over the WebDriver protocol: what a person sees and does. The protocol is a few JSON
//! requests to chromedriver. One browser serves all stories of a test process, one after the other ([`driver`]).

use std::{
    cell::RefCell,
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use self::driver::Driver;
use super::patience::{on_page, on_page_or};

mod driver;

/// What an element is called in answers (WebDriver, 11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What the driver says where the page went away under a script: a page may load itself again.
const GONE: [&str; 4] =
    ["aborted by navigation", "execution context", "Cannot find context", "does not belong to the document"];
/// What the driver says where a field was drawn again, or is not shown yet: then nothing was typed.
const NOT_TYPED: [&str; 2] = ["stale element reference", "element not interactable"];
/// The browser that the story before left. One at a time: each takes as much memory and processor as all other
/// stories together.
static KEPT: Mutex<Option<Driver>> = Mutex::new(None);

/// A browser with one window.
pub(crate) struct Browser {
    kept: MutexGuard<'static, Option<Driver>>,
    /// Where the story has been: what pages stored is cleared by their origins.
    origins: RefCell<BTreeSet<String>>,
}

impl Browser {
    /// The browser that the story before left, clean, or a new one, once no other story has it; `None`: this
    /// machine has none.
    pub(crate) fn start() -> Option<Self> {
        Self::of(KEPT.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same with processes that no story before has used: for stories that measure what a tab holds.
    pub(crate) fn start_anew() -> Option<Self> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        drop(kept.take());
        Self::of(kept)
    }

    fn of(mut kept: MutexGuard<'static, Option<Driver>>) -> Option<Self> {
        // A browser may have ended since the story before.
        if !kept.as_ref().is_some_and(Driver::answers) {
            drop(kept.take());
            *kept = Some(Driver::start()?);
        }
        let browser = Self { kept, origins: RefCell::default() };
        browser.resize(1280, 900);
        Some(browser)
    }

    fn driver(&self) -> &Driver {
        self.kept.as_ref().expect("a story has a browser until it ends")
    }

    fn command(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.tried(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn tried(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        self.driver().tried(method, path, body)
    }

    /// Goes to an address.
    pub(crate) fn go(&self, url: &str) {
        let origin = url.split('/').take(3).collect::<Vec<_>>().join("/");
        self.origins.borrow_mut().insert(origin);
        self.command("POST", "/url", Some(&json!({ "url": url })));
    }

    /// Opens another tab and shows it; the one before stays open, and nobody sees it.
    pub(crate) fn open_tab(&self) {
        let made = self.command("POST", "/window/new", Some(&json!({ "type": "tab" })));
        self.command("POST", "/window", Some(&json!({ "handle": made["handle"] })));
    }

    /// The address of the page that the browser shows.
    pub(crate) fn url(&self) -> String {
        self.command("GET", "/url", None).as_str().expect("an address").to_owned()
    }

    /// Loads the page again.
    pub(crate) fn reload(&self) {
        self.command("POST", "/refresh", Some(&json!({})));
    }

    /// Runs a function body in the page.
    pub(crate) fn run(&self, script: &str, arguments: &[Value]) -> Value {
        let body = json!({ "script": script, "args": arguments });
        on_page("page that stays while a script runs", || {
            match self.tried("POST", "/execute/sync", Some(&body)) {
                Ok(value) => Some(value),
                Err(error) if GONE.iter().any(|words| error.contains(words)) => None,
                Err(error) => panic!("{script}: {error}"),
            }
        })
    }

    /// Runs a function body that calls its last argument when it is done.
    pub(crate) fn run_async(&self, script: &str, arguments: &[Value]) -> Value {
        self.command("POST", "/execute/async", Some(&json!({ "script": script, "args": arguments })))
    }

    /// The size of the part of the window that shows the page, which has it when this returns.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        if let Err(error) = self.driver().devtools("Emulation.setDeviceMetricsOverride", &metrics) {
            panic!("{width} by {height}: {error}");
        }
        let size = "return [window.innerWidth, window.innerHeight]";
        on_page(&format!("{width} by {height}"), || {
            (self.run(size, &[]) == json!([width, height])).then_some(())
        });
    }

    /// The element that a CSS selector means, once it is there.
    fn element(&self, selector: &str) -> String {
        let asked = json!({ "using": "css selector", "value": selector });
        on_page(&format!("{selector} on {}", self.url()), || {
            let found = self.tried("POST", "/element", Some(&asked)).ok()?;
            found[ELEMENT].as_str().map(str::to_owned)
        })
    }

    /// Clicks on what a selector means, once that can be clicked.
    pub(crate) fn click(&self, selector: &str) {
        on_page(&format!("{selector} that can be clicked"), || {
            let path = format!("/element/{}/click", self.element(selector));
            self.tried("POST", &path, Some(&json!({}))).ok()
        });
    }

    /// Clicks on the link or button with this name or text, once it can be clicked.
    pub(crate) fn click_on(&self, text: &str) {
        let found = "const all = [...(document.querySelector('dialog[open]') ?? document).querySelectorAll('a, button')]
                .filter((element) => !element.disabled);
            const one = all.find((element) => element.getAttribute('aria-label') === arguments[0])
                ?? all.find((element) => element.textContent.trim() === arguments[0]);
            one?.scrollIntoView({ block: 'center' }); return one;";
        on_page(&format!("{text:?} that can be clicked on {}", self.url()), || {
            let one = self.run(found, &[json!(text)]);
            let path = format!("/element/{}/click", one[ELEMENT].as_str()?);
            self.tried("POST", &path, Some(&json!({}))).ok()
        });
    }

    /// Types into the field that a selector means.
    pub(crate) fn write(&self, selector: &str, text: &str) {
        let body = json!({ "text": text });
        on_page(&format!("{selector} that takes a text on {}", self.url()), || {
            let path = format!("/element/{}/value", self.element(selector));
            match self.tried("POST", &path, Some(&body)) {
                Ok(_) => Some(()),
                Err(error) if NOT_TYPED.iter().any(|words| error.contains(words)) => None,
                Err(error) => panic!("{selector}: {error}"),
            }
        });
    }

    /// Presses keys, wherever the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        let body = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.command("POST", "/actions", Some(&body));
    }

    /// What the page says.
    pub(crate) fn text(&self) -> String {
        self.run("return document.body.innerText", &[]).as_str().unwrap_or_default().to_owned()
    }

    /// The page that is shown and what it says, for messages.
    pub(crate) fn shown(&self) -> String {
        format!("on {}, which says {}", self.url(), self.text())
    }

    /// Waits until the page says this.
    pub(crate) fn wait_for(&self, text: &str) {
        let is_said = || self.text().contains(text).then_some(());
        on_page_or(&format!("{text:?}"), is_said, || self.shown());
    }

    /// A picture of what it shows, as PNG.
    pub(crate) fn picture(&self) -> Vec<u8> {
        let text = self.command("GET", "/screenshot", None);
        STANDARD.decode(text.as_str().expect("a picture")).expect("base64")
    }

    /// Calls a method of the DevTools protocol.
    pub(crate) fn devtools(&self, method: &str) -> Value {
        let answer = self.driver().devtools(method, &json!({}));
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Everything that the browser has logged since the last question, at any level.
    pub(crate) fn logged(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", Some(&json!({ "type": "browser" })));
        let entries = log.as_array().expect("entries").iter();
        entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What the browser complained about since the last question: faults of scripts, refusals by the policy,
    /// files and answers that did not come.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", Some(&json!({ "type": "browser" })));
        let severe = |entry: &Value| entry["level"] == "SEVERE" || entry["source"] == "security";
        let entries = log.as_array().expect("entries").iter().filter(|entry| severe(entry));
        entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // What a story that failed left in the browser is unknown.
        let cleaned = if thread::panicking() {
            Err("its story failed".to_owned())
        } else {
            self.driver().clean(&self.origins.borrow())
        };
        if let Err(reason) = cleaned {
            println!("the browser is not kept: {reason}");
            drop(self.kept.take());
        }
    }
}
