//! A real Chromium, driven over the WebDriver protocol: what a person sees and does. The protocol is a few JSON
//! requests to chromedriver, which starts the browser and ends with it.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use super::{
    http,
    patience::{SOON, eventually, eventually_or},
    text_setting,
};

/// What an element is called in answers (WebDriver, 11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// How long a script or the load of a page may take. The usual 30 seconds are short on a busy machine.
const SCRIPT_MAX: Duration = Duration::from_secs(300);
/// How long an answer of the driver is waited for: longer than anything that it does.
const ANSWER_MAX: Duration = Duration::from_secs(360);
/// How often a browser is started that does not come up.
const STARTS: u32 = 3;
/// What the driver says where the page went away under a script: a page may load itself again.
const GONE: [&str; 4] =
    ["aborted by navigation", "execution context", "Cannot find context", "does not belong to the document"];
/// What the driver says where a field was drawn again, or is not shown yet: then nothing was typed.
const NOT_TYPED: [&str; 2] = ["stale element reference", "element not interactable"];
/// One browser at a time: each takes as much memory and processor as all other stories together.
static ONE: Mutex<()> = Mutex::new(());

/// A browser with one window.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _one: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one, once no other story has one; `None`: this machine has none.
    pub(crate) fn start() -> Option<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let program = text_setting("TIDINGS_CHROMEDRIVER").unwrap_or_else(|| "chromedriver".to_owned());
        let mut command = Command::new(&program);
        command.arg("--port=0").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = match command.spawn() {
            Ok(driver) => driver,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("skipped: there is no {program} here (Debian: chromium, chromium-driver)");
                return None;
            }
            Err(error) => panic!("{program} does not start: {error}"),
        };
        let mut lines = BufReader::new(driver.stdout.take().expect("an output")).lines();
        let port: u16 = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split("successfully on port ").nth(1)?.trim_end_matches('.').parse().ok())
            .expect("chromedriver says its port");
        // Whatever else it says is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut browser = Self { driver, address, session: String::new(), _one: one };
        let mut options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--force-device-scale-factor=1", "--lang=en",
        ] });
        if let Some(chromium) = text_setting("TIDINGS_CHROMIUM") {
            options["binary"] = json!(chromium);
        }
        let most = u64::try_from(SCRIPT_MAX.as_millis()).expect("minutes");
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": most, "pageLoad": most },
        } } });
        let made = browser.begun(&wanted);
        browser.session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
        browser.resize(1280, 900);
        Some(browser)
    }

    /// The session that the driver makes: a browser may not come up in time on a busy machine.
    fn begun(&self, wanted: &Value) -> Value {
        let mut faults = Vec::new();
        for _ in 0..STARTS {
            match self.tried("POST", "/session", Some(wanted)) {
                Ok(made) => return made,
                Err(error) => faults.push(error),
            }
        }
        panic!("no browser in {STARTS} starts: {faults:#?}");
    }

    fn command(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.tried(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn tried(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let path = format!("{}{path}", self.session);
        let reply = http::ask_within(ANSWER_MAX, self.address, method, &path, None, body);
        let reply = reply.map_err(|error| error.to_string())?;
        let value = reply.json()["value"].clone();
        if reply.status == 200 { Ok(value) } else { Err(value.to_string()) }
    }

    /// Goes to an address.
    pub(crate) fn go(&self, url: &str) {
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
        eventually("page that stays while a script runs", SOON, || {
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
        let metrics = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        } });
        self.command("POST", "/goog/cdp/execute", Some(&metrics));
        let size = "return [window.innerWidth, window.innerHeight]";
        eventually(&format!("{width} by {height}"), SOON, || {
            (self.run(size, &[]) == json!([width, height])).then_some(())
        });
    }

    /// The element that a CSS selector means, once it is there.
    fn element(&self, selector: &str) -> String {
        let asked = json!({ "using": "css selector", "value": selector });
        eventually(&format!("{selector} on {}", self.url()), SOON, || {
            let found = self.tried("POST", "/element", Some(&asked)).ok()?;
            found[ELEMENT].as_str().map(str::to_owned)
        })
    }

    /// Clicks on what a selector means, once that can be clicked.
    pub(crate) fn click(&self, selector: &str) {
        eventually(&format!("{selector} that can be clicked"), SOON, || {
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
        eventually(&format!("{text:?} that can be clicked on {}", self.url()), SOON, || {
            let one = self.run(found, &[json!(text)]);
            let path = format!("/element/{}/click", one[ELEMENT].as_str()?);
            self.tried("POST", &path, Some(&json!({}))).ok()
        });
    }

    /// Types into the field that a selector means.
    pub(crate) fn write(&self, selector: &str, text: &str) {
        let body = json!({ "text": text });
        eventually(&format!("{selector} that takes a text on {}", self.url()), SOON, || {
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
        eventually_or(&format!("{text:?}"), SOON, is_said, || self.shown());
    }

    /// A picture of what it shows, as PNG.
    pub(crate) fn picture(&self) -> Vec<u8> {
        let text = self.command("GET", "/screenshot", None);
        STANDARD.decode(text.as_str().expect("a picture")).expect("base64")
    }

    /// Calls a method of the DevTools protocol.
    pub(crate) fn devtools(&self, method: &str) -> Value {
        let body = json!({ "cmd": method, "params": {} });
        self.command("POST", "/goog/cdp/execute", Some(&body))
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
        if !self.session.is_empty() {
            drop(self.tried("DELETE", "", None));
        }
        // The browser is in the group of its driver.
        let _ended_before = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        drop(self.driver.wait());
    }
}
