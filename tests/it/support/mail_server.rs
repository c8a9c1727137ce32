//! A mail server of its own (aiosmtpd) with TLS and a login: told to refuse, to vanish, killed and started again.
//! Where there is none, stories that need one say so and pass.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    patience::{SOON, eventually},
    python_server::PythonServer,
    server::Server,
    text_setting,
};

/// The folder that holds aiosmtpd, where Python does not find it by itself.
const LIBRARIES: &str = "TIDINGS_AIOSMTPD";
/// What the server runs.
const PROGRAM: &str = include_str!("smtpd.py");
/// The login that it takes.
pub(crate) const USER: &str = "tidings";
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A mail that the server took.
#[derive(Clone, Debug)]
pub(crate) struct Mail(Value);

impl Mail {
    /// A header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> String {
        let all = self.0["headers"].as_array().expect("a list");
        let found =
            all.iter().find(|pair| pair[0].as_str().is_some_and(|known| known.eq_ignore_ascii_case(name)));
        found.map_or(String::new(), |pair| pair[1].as_str().expect("a text").to_owned())
    }

    /// The names of its headers.
    pub(crate) fn header_names(&self) -> Vec<String> {
        let all = self.0["headers"].as_array().expect("a list");
        all.iter().map(|pair| pair[0].as_str().expect("a text").to_owned()).collect()
    }

    /// Whom the envelope named.
    pub(crate) fn to(&self) -> Vec<&str> {
        self.0["to"].as_array().expect("a list").iter().filter_map(Value::as_str).collect()
    }

    pub(crate) fn text(&self) -> &str {
        self.0["text"].as_str().expect("a text")
    }

    pub(crate) fn html(&self) -> &str {
        self.0["html"].as_str().expect("a text")
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0["bytes"].as_u64().expect("a number")
    }

    /// Whether it came encrypted, and who was logged in.
    pub(crate) fn way(&self) -> (bool, &str) {
        (self.0["encrypted"] == true, self.0["user"].as_str().unwrap_or_default())
    }

    /// The numbers of the entries that it names.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let number = |line: &str| {
            let rest = line.strip_prefix("entry: ").or_else(|| line.strip_prefix('#'))?;
            rest.split(' ').next()?.trim().parse().ok()
        };
        self.text().lines().filter_map(number).collect()
    }
}

/// The server, running or not.
pub(crate) struct MailServer {
    folder: TempDir,
    libraries: Option<String>,
    tls: &'static str,
    port: u16,
    running: Option<PythonServer>,
}

impl MailServer {
    /// Runs one with this encryption: `implicit`, `starttls` or `none`.
    pub(crate) fn start(tls: &'static str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Self { folder, libraries: text_setting(LIBRARIES), tls, port: 0, running: None };
        let known = server.python().args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
        if !known.is_ok_and(|status| status.success()) {
            println!(
                "skipped: there is no aiosmtpd here (Debian's python3-aiosmtpd; {LIBRARIES} may name its folder)"
            );
            return None;
        }
        let mut root = CertificateParams::new(Vec::new()).expect("parameters");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer =
            CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let leaf = leaf.signed_by(&key, &issuer).expect("signed");
        for (name, text) in [
            ("ca.pem", issuer.pem()),
            ("cert.pem", leaf.pem()),
            ("key.pem", key.serialize_pem()),
            ("smtpd.py", PROGRAM.to_owned()),
        ] {
            fs::write(server.path(name), text).expect("written");
        }
        server.run();
        Some(server)
    }

    fn python(&self) -> Command {
        let mut command = Command::new("python3");
        if let Some(libraries) = &self.libraries {
            command.env("PYTHONPATH", libraries);
        }
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it, again on the port that it had.
    pub(crate) fn run(&mut self) {
        let mut command = self.python();
        command.arg(self.path("smtpd.py")).arg(self.folder.path()).arg(self.tls).arg(self.port.to_string());
        let running = PythonServer::start(&mut command);
        self.port = running.port;
        self.running = Some(running);
    }

    /// Kills the mail server with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// Settings with which a server of the stories sends through it.
    pub(crate) fn used_by(&self, server: Server) -> Server {
        server
            .with("mail.server", "localhost")
            .with("mail.port", &self.port.to_string())
            .with("mail.tls", self.tls)
            .with("mail.username", USER)
            .with("mail.password", PASSWORD)
            .with("mail.from", "Tidings <tidings@story.example>")
            .with("mail.allow", "contact,@example.org")
            .with("mail.digest_interval", "1s")
            .with("egress.ca_file", self.path("ca.pem").to_str().expect("utf-8"))
    }

    /// How it behaves from now on; see `smtpd.py`.
    pub(crate) fn behave(&self, how: &Value) {
        let fresh = self.path("behaviour.new");
        fs::write(&fresh, how.to_string()).expect("written");
        fs::rename(fresh, self.path("behaviour.json")).expect("renamed");
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        // A last line without an end is still being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Everything that it took, in order.
    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.lines("mails.jsonl").into_iter().map(Mail).collect()
    }

    /// Everything that it took, once there are this many.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Mail> {
        eventually(&format!("{count} mails"), SOON, || {
            Some(self.mails()).filter(|mails| mails.len() >= count)
        })
    }

    /// The tries to log in: who, whether that was right, whether it came encrypted.
    pub(crate) fn logins(&self) -> Vec<(String, bool, bool)> {
        let of = |line: &Value| {
            let user = line["user"].as_str().expect("a text").to_owned();
            (user, line["good"] == json!(true), line["encrypted"] == json!(true))
        };
        self.lines("logins.jsonl").iter().map(of).collect()
    }
}
