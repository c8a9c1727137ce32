//! An S3 server of its own (moto, behind botocore's check of every signature): told to refuse, to cut
//! answers, killed and started again. Where there is none, stories that need one say so and pass.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{http, python_server::PythonServer, server::Server, text_setting};

/// A Python that finds moto, where `python3` does not.
const PYTHON: &str = "TIDINGS_MOTO";
/// What the server runs.
const PROGRAM: &str = include_str!("s3d.py");
/// The key that it takes.
pub(crate) const KEY: &str = "STORIESKEY";
pub(crate) const SECRET: &str = "PLANTEDs3/Secret+K8vQ=";
pub(crate) const NAME: &str = "stories";
const REGION: &str = "eu-central-1";

/// The server, running or not.
pub(crate) struct S3 {
    folder: TempDir,
    python: String,
    port: u16,
    running: Option<PythonServer>,
}

impl S3 {
    /// Runs one with an empty bucket.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let python = text_setting(PYTHON).unwrap_or_else(|| "python3".to_owned());
        let known = Command::new(&python).args(["-c", "import moto"]).stderr(Stdio::null()).status();
        if !known.is_ok_and(|status| status.success()) {
            println!(
                "skipped: there is no moto here (pip install moto[s3,server]; {PYTHON} may name its Python)"
            );
            return None;
        }
        fs::write(folder.path().join("s3d.py"), PROGRAM).expect("written");
        let mut server = Self { folder, python, port: 0, running: None };
        server.run();
        Some(server)
    }

    /// Starts it, again on the port that it had. What it kept is gone.
    pub(crate) fn run(&mut self) {
        let mut command = Command::new(&self.python);
        command.arg(self.path("s3d.py")).arg(self.folder.path()).arg(self.port.to_string());
        let running = PythonServer::start(&mut command);
        self.port = running.port;
        self.running = Some(running);
    }

    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How it behaves from now on.
    pub(crate) fn behave(&self, how: &Value) {
        // Whole at once: the server reads the file at any moment.
        let fresh = self.path("behaviour.fresh");
        fs::write(&fresh, how.to_string()).expect("written");
        fs::rename(fresh, self.path("behaviour.json")).expect("renamed");
    }

    /// The server with its artifacts here.
    pub(crate) fn keeps_for(&self, server: Server, prefix: &str) -> Server {
        server
            .with("artifacts.s3_endpoint", &format!("http://127.0.0.1:{}", self.port))
            .with("artifacts.s3_bucket", NAME)
            .with("artifacts.s3_region", REGION)
            .with("artifacts.s3_prefix", prefix)
            .with("artifacts.s3_access_key", KEY)
            .with("artifacts.s3_secret_key", SECRET)
            .with("artifacts.s3_part_bytes", "5242880")
    }

    fn told(&self, path: &str) -> Value {
        let request = format!("GET /-/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let address = ([127, 0, 0, 1], self.port).into();
        http::raw(address, request.as_bytes()).expect("an answer").json()
    }

    /// The keys of its objects.
    pub(crate) fn keys(&self) -> Vec<String> {
        let keys = self.told("keys")["keys"].clone();
        serde_json::from_value(keys).expect("texts")
    }

    /// The keys of uploads in parts that have not ended.
    pub(crate) fn uploads(&self) -> Vec<String> {
        let uploads: Vec<(String, String)> =
            serde_json::from_value(self.told("keys")["uploads"].clone()).expect("pairs");
        uploads.into_iter().map(|(key, _)| key).collect()
    }

    /// Puts an object there behind the server's back.
    pub(crate) fn plant(&self, key: &str, body: &str) {
        self.told(&format!("put?key={key}&body={body}"));
    }

    /// Each request that came, oldest first.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("requests.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or(json!(null))).collect()
    }
}
