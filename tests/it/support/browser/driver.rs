//! A chromedriver and the browser that it starts. Stories hand one to each other, since a start of both costs
//! more than the walk of a short story. Between two stories the browser loses all that the first one left in it.
//!
//! Driver and browser end with the test process, however that ends. A shell waits for the end of its input, which
//! comes with the end of [`Driver`] or of the process. Then the shell kills driver and browser and removes their
//! files.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{http, text_setting};

/// How long a script or the load of a page may take. The usual 30 seconds are short on a busy machine.
const SCRIPT_MAX: Duration = Duration::from_secs(300);
/// How long an answer of the driver is waited for: longer than anything that it does.
const ANSWER_MAX: Duration = Duration::from_secs(360);
/// How often a browser is started that does not come up.
const STARTS: u32 = 3;
/// The script of the shell: `$1` is the process group of the driver, `$2` the folder of its files.
const UNTIL_INPUT_ENDS: &str = "read -r _; kill -s KILL -- \"-$1\"; rm -rf \"$2\"";

/// A chromedriver with one browser.
pub(super) struct Driver {
    driver: Child,
    /// The shell that ends driver and browser.
    shell: Child,
    address: SocketAddr,
    /// The path of the session, below which commands to the browser are; empty until there is a browser.
    session: String,
    /// The folder of the browser's profile.
    _files: TempDir,
}

/// Why a driver does not run.
enum NotStarted {
    /// This machine has no such program.
    Missing,
    /// It ended without a port: the one that it chooses may be taken for the other family of addresses.
    Ended,
}

impl Driver {
    /// Starts a driver and a browser; `None`: this machine has no chromedriver.
    pub(super) fn start() -> Option<Self> {
        let program = text_setting("TIDINGS_CHROMEDRIVER").unwrap_or_else(|| "chromedriver".to_owned());
        for _ in 0..STARTS {
            match Self::without_browser(&program) {
                Ok(mut started) => {
                    let made = started.begun(&capabilities());
                    started.session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
                    return Some(started);
                }
                Err(NotStarted::Missing) => {
                    println!("skipped: there is no {program} here (Debian: chromium, chromium-driver)");
                    return None;
                }
                Err(NotStarted::Ended) => {}
            }
        }
        panic!("{program} ended in each of {STARTS} starts");
    }

    fn without_browser(program: &str) -> Result<Self, NotStarted> {
        let files = TempDir::new().expect("a folder");
        let mut command = Command::new(program);
        command.arg("--port=0").env("TMPDIR", files.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = match command.spawn() {
            Ok(driver) => driver,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(NotStarted::Missing),
            Err(error) => panic!("{program} does not start: {error}"),
        };
        let mut shell = shell_that_ends(&driver, files.path());
        let mut lines = BufReader::new(driver.stdout.take().expect("an output")).lines();
        let port: Option<u16> = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split("successfully on port ").nth(1)?.trim_end_matches('.').parse().ok());
        let Some(port) = port else {
            driver.wait().expect("it ended");
            // The wait closes the input of the shell, which ends by that.
            shell.wait().expect("it ended");
            return Err(NotStarted::Ended);
        };
        // Whatever else it says is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Self { driver, shell, address, session: String::new(), _files: files })
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

    /// Gives a command to the browser.
    ///
    /// # Errors
    /// What the driver says of a command that failed, or that it does not answer.
    pub(super) fn tried(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let path = format!("{}{path}", self.session);
        let reply = http::ask_within(ANSWER_MAX, self.address, method, &path, None, body);
        let reply = reply.map_err(|error| error.to_string())?;
        let value = reply.json()["value"].clone();
        if reply.status == 200 { Ok(value) } else { Err(value.to_string()) }
    }

    /// Calls a method of the DevTools protocol.
    ///
    /// # Errors
    /// Those of [`Self::tried`].
    pub(super) fn devtools(&self, method: &str, parameters: &Value) -> Result<Value, String> {
        let body = json!({ "cmd": method, "params": parameters });
        self.tried("POST", "/goog/cdp/execute", Some(&body))
    }

    /// Whether the browser is still there.
    pub(super) fn answers(&self) -> bool {
        self.tried("GET", "/window/handles", None).is_ok()
    }

    /// Leaves one fresh tab, in which nothing of the story before is: no page and no history, no emulated size, no
    /// cookie, no cached file, nothing that pages of these origins stored, and no line of the log.
    ///
    /// # Errors
    /// Those of [`Self::tried`]. Such a browser is of no use to another story.
    pub(super) fn clean(&self, origins: &BTreeSet<String>) -> Result<(), String> {
        let former = self.tried("GET", "/window/handles", None)?;
        let fresh = self.tried("POST", "/window/new", Some(&json!({ "type": "tab" })))?;
        for handle in former.as_array().into_iter().flatten() {
            self.show(handle)?;
            self.tried("DELETE", "/window", None)?;
        }
        self.show(&fresh["handle"])?;
        self.devtools("Network.clearBrowserCookies", &json!({}))?;
        self.devtools("Network.clearBrowserCache", &json!({}))?;
        for origin in origins {
            let all = json!({ "origin": origin, "storageTypes": "all" });
            self.devtools("Storage.clearDataForOrigin", &all)?;
        }
        self.tried("POST", "/se/log", Some(&json!({ "type": "browser" })))?;
        Ok(())
    }

    fn show(&self, handle: &Value) -> Result<Value, String> {
        self.tried("POST", "/window", Some(&json!({ "handle": handle })))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            drop(self.tried("DELETE", "", None));
        }
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
        drop(self.driver.wait());
    }
}

/// The shell that ends a driver with its browser, which is in the same process group, and removes their files.
/// The shell has a group of its own, so that a terminal that interrupts the tests does not interrupt the shell.
fn shell_that_ends(driver: &Child, files: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", UNTIL_INPUT_ENDS, "sh"]).arg(driver.id().to_string()).arg(files).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("sh")
}

/// What the browser shall be like.
fn capabilities() -> Value {
    let mut options = json!({ "args": [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--force-device-scale-factor=1", "--lang=en",
    ] });
    if let Some(chromium) = text_setting("TIDINGS_CHROMIUM") {
        options["binary"] = json!(chromium);
    }
    let most = u64::try_from(SCRIPT_MAX.as_millis()).expect("minutes");
    json!({ "capabilities": { "alwaysMatch": {
        "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        "timeouts": { "script": most, "pageLoad": most },
    } } })
}
