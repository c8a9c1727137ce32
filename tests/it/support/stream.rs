//! A NATS server of its own with JetStream, in a temporary folder: asked, killed and started again. Where
//! there is none, there is no stream, and stories that need one say so and pass.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use async_nats::ConnectOptions;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    patience::{SOON, eventually},
    text_setting,
};

/// The server's binary, where it is not on the path.
const BINARY: &str = "TIDINGS_NATS_SERVER";
/// The stream of the stories, and what it takes.
const STREAM: &str = "GIT";
pub(crate) const PREFIX: &str = "git.changes";

/// A message as the stream keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) subject: String,
    /// Names in the spelling in which they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
    pub(crate) bytes: Vec<u8>,
}

impl Kept {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no {name}: {:?}", self.headers), |(_, value)| value.as_str())
    }
}

/// A server, running or not.
pub(crate) struct Nats {
    folder: TempDir,
    binary: PathBuf,
    arguments: Vec<String>,
    port: u16,
    /// How stories ask it, whatever it asks of others.
    user: Option<(String, String)>,
    server: Option<Child>,
}

impl Nats {
    /// A running server without a stream.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("", None)
    }

    /// The same with a configuration of its own; stories ask it as `user`.
    pub(crate) fn start_with(configuration: &str, user: Option<(&str, &str)>) -> Option<Self> {
        let nats = Self::start_unasked(configuration, user)?;
        let info = || nats.api("$JS.API.INFO", &json!({})).filter(|info| info["error"].is_null());
        eventually("JetStream", SOON, info);
        Some(nats)
    }

    /// The same without asking whether it is ready: it may take only those who encrypt.
    pub(crate) fn start_unasked(configuration: &str, user: Option<(&str, &str)>) -> Option<Self> {
        let binary = text_setting(BINARY).map(PathBuf::from).or_else(on_the_path);
        let Some(binary) = binary else {
            println!("skipped: there is no nats-server here ({BINARY} may name it)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("server.conf");
        fs::write(&file, configuration).expect("written");
        let text = |path: &Path| path.to_str().expect("utf-8").to_owned();
        let (store, ports) = (text(&folder.path().join("store")), text(folder.path()));
        let arguments =
            ["-c", &text(&file), "-js", "-a", "127.0.0.1", "-sd", &store, "--ports_file_dir", &ports];
        let arguments = arguments.map(str::to_owned).to_vec();
        let user = user.map(|(name, word)| (name.to_owned(), word.to_owned()));
        let mut nats = Self { folder, binary, arguments, port: 0, user, server: None };
        nats.run();
        Some(nats)
    }

    /// Starts it, again on the port that it had.
    pub(crate) fn run(&mut self) {
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).args(["-p", &port]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("a NATS server");
        let file = self.folder.path().join(format!("nats-server_{}.ports", child.id()));
        self.server = Some(child);
        let ports: Value = eventually("the server to say its port", SOON, || {
            serde_json::from_slice(&fs::read(&file).ok()?).ok()
        });
        let address = ports["nats"][0].as_str().expect("an address");
        self.port = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("killed");
            server.wait().expect("ended");
        }
    }

    /// Makes the stream, with more settings.
    pub(crate) fn make_stream(&self, more: &Value) {
        let mut stream = json!({ "name": STREAM, "subjects": [format!("{PREFIX}.>")] });
        for (key, value) in more.as_object().expect("an object") {
            stream[key] = value.clone();
        }
        let made = self.api(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &stream).expect("an answer");
        assert!(made["error"].is_null(), "{made}");
    }

    /// Changes the settings of the stream.
    pub(crate) fn change_stream(&self, more: &Value) {
        let now = self.api(&format!("$JS.API.STREAM.INFO.{STREAM}"), &json!({})).expect("an answer");
        let mut stream = now["config"].clone();
        for (key, value) in more.as_object().expect("an object") {
            stream[key] = value.clone();
        }
        let made = self.api(&format!("$JS.API.STREAM.UPDATE.{STREAM}"), &stream).expect("an answer");
        assert!(made["error"].is_null(), "{made}");
    }

    /// Takes the last message away.
    pub(crate) fn forget_last(&self) {
        let info = self.api(&format!("$JS.API.STREAM.INFO.{STREAM}"), &json!({})).expect("an answer");
        let last = json!({ "seq": info["state"]["last_seq"] });
        let gone = self.api(&format!("$JS.API.STREAM.MSG.DELETE.{STREAM}"), &last).expect("an answer");
        assert_eq!(gone["success"], json!(true), "{gone}");
    }

    /// What an app calls its address.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}/{PREFIX}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Everything that the stream has, in its order.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let info = self.api(&format!("$JS.API.STREAM.INFO.{STREAM}"), &json!({})).expect("an answer");
        let last = info["state"]["last_seq"].as_u64().expect("a number");
        let requests =
            (1..=last).map(|seq| (format!("$JS.API.STREAM.MSG.GET.{STREAM}"), json!({ "seq": seq })));
        let answers = self.ask(requests.collect()).expect("answers");
        // What was taken away leaves a hole.
        answers
            .iter()
            .map(|answer| &answer["message"])
            .filter(|message| !message.is_null())
            .map(kept)
            .collect()
    }

    fn api(&self, subject: &str, body: &Value) -> Option<Value> {
        self.ask(vec![(subject.to_owned(), body.clone())])?.pop()
    }

    /// Asks one after the other on one connection.
    fn ask(&self, requests: Vec<(String, Value)>) -> Option<Vec<Value>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let options = match &self.user {
                None => ConnectOptions::new(),
                Some((name, word)) => ConnectOptions::with_user_and_password(name.clone(), word.clone()),
            };
            let client = options.connect(format!("nats://127.0.0.1:{}", self.port)).await.ok()?;
            let mut answers = Vec::new();
            for (subject, body) in requests {
                let answer = client.request(subject, body.to_string().into()).await.ok()?;
                answers.push(serde_json::from_slice(&answer.payload).ok()?);
            }
            Some(answers)
        })
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn kept(message: &Value) -> Kept {
    let bytes = |key: &str| {
        let text = message[key].as_str().unwrap_or_default();
        BASE64_STANDARD.decode(text).expect("base64")
    };
    let (headers, body) = (String::from_utf8(bytes("hdrs")).expect("text"), bytes("data"));
    let headers = headers.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    });
    Kept {
        subject: message["subject"].as_str().expect("a subject").to_owned(),
        headers: headers.collect(),
        body: serde_json::from_slice(&body).expect("JSON"),
        bytes: body,
    }
}

fn on_the_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps it where only administrators look.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("nats-server")).find(|file| file.is_file())
}
