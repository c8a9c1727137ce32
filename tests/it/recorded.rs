//! The wire of clients that were written before sinks, names of watches and ledgers: each plays a fixed part
//! against the server, and all that is said in either direction must be, byte for byte, what a server of
//! that time said.
//!
//! The snapshots were recorded with such a server: `TIDINGS_STORY_OLDER` names its binary, and
//! `INSTA_UPDATE=always` writes what it says. A change of a snapshot breaks clients that are in use.

mod masks;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{
    git_host::Fault,
    patience::{SOON, eventually},
    project::Project,
    remote::Host,
    server::Server,
    subscriber::KEY,
    text_setting,
};
use masks::{Masks, values};

/// Fields that later versions added on purpose; a client that does not know a field passes over it.
const ADDED: [&str; 3] = ["\"through\":", "\"offset\":", "\"detail\":"];

/// Everything that was said, in its order.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<String>>>);

impl Wire {
    fn note(&self, what: &str, message: &str) {
        self.0.lock().expect("no panic").push(noted(what, message));
    }

    /// How many requests the client has received.
    fn received(&self) -> usize {
        self.0.lock().expect("no panic").iter().filter(|said| said.starts_with("### received")).count()
    }

    fn text(&self) -> String {
        let said = self.0.lock().expect("no panic").concat();
        let known = |text: String, field: &&str| values(&text, field, "").replace(&format!(",{field}"), "");
        Masks::default().cover(&ADDED.iter().fold(said, known))
    }
}

fn noted(what: &str, message: &str) -> String {
    format!("### {what}\n{message}\n")
}

/// A client: the server that it uses, and the address where it receives.
struct Client {
    server: Server,
    wire: Wire,
    receives_at: SocketAddr,
    token: Option<String>,
}

impl Client {
    /// One whose endpoint answers its first requests with these codes, and all others with 200.
    fn start(answers: &'static [u16]) -> Self {
        // An answer is written before the first round begins.
        let mut server = Server::prepare().with("delivery.first_delay", "1s");
        server.becomes(text_setting("TIDINGS_STORY_OLDER").map(PathBuf::from));
        server.run();
        let (wire, listener) = (Wire::default(), TcpListener::bind("127.0.0.1:0").expect("a port"));
        let receives_at = listener.local_addr().expect("an address");
        let heard = wire.clone();
        thread::spawn(move || {
            let mut answers = answers.iter();
            for stream in listener.incoming().flatten() {
                // One connection after the other: a delivery is sent when the one before it was answered.
                while let Some(request) = read(&stream) {
                    let code = answers.next().unwrap_or(&200);
                    heard.note(&format!("received, answered with {code}"), &request);
                    let answer = format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n");
                    if (&stream).write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        Self { server, wire, receives_at, token: None }
    }

    /// Asks, and notes both sides; the body of the answer.
    fn ask(&self, method: &str, path: &str, headers: &str, body: Option<&Value>) -> Value {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}");
        if let Some(token) = &self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        if !body.is_empty() {
            head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        let request = format!("{head}\r\n{body}");
        // What comes to the endpoint meanwhile is noted, and answered, after the answer to this request.
        let mut said = self.wire.0.lock().expect("no panic");
        let mut stream = TcpStream::connect(self.server.address()).expect("it listens");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        said.extend([noted("asked", &request), noted("answered", &answer)]);
        drop(said);
        let body = answer.split_once("\r\n\r\n").expect("a head").1;
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    /// Registers the client as an app.
    fn onboard(&mut self, more: &Value) {
        let mut body = json!({ "app_name": "client", "email": "client@example.org" });
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let answer = self.ask("POST", "/api/apps/onboard", "", Some(&body));
        self.token = Some(answer["token"].as_str().expect("a token").to_owned());
    }

    fn wait_for(&self, requests: usize) {
        eventually("requests", SOON, || (self.wire.received() >= requests).then_some(()));
    }
}

/// One request as it was sent; `None`: the connection ended.
fn read(stream: &TcpStream) -> Option<String> {
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().expect("a number"))];
    reader.read_exact(&mut body).ok()?;
    Some(head + std::str::from_utf8(&body).expect("JSON is text"))
}

#[test]
fn helix_sees_no_difference() {
    let (host, project) = (Host::start(), Project::with(&[("deck/card.md", "# One\n"), (".ignore", "x\n")]));
    project.write("image.bin", &(0..2_500_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    project.commit("an image");
    host.publish(&project, "cards/decks");
    let mut helix = Client::start(&[]);
    let endpoint = json!({ "base_url": format!("http://{}/functions/v1/docora-webhook", helix.receives_at),
                           "client_auth_key": KEY });
    helix.onboard(&endpoint);
    let url = json!({ "github_url": host.url("cards/decks") });
    let id = helix.ask("POST", "/api/repositories", "", Some(&url));
    let id = id["repository_id"].as_str().expect("an id").to_owned();
    helix.wait_for(9);
    project.write("deck/card.md", b"# Two\n");
    project.remove(".ignore");
    project.commit("an edit");
    host.push_main(&project, "cards/decks");
    helix.wait_for(11);

    let token = json!({ "github_token": "ghp_0123456789" });
    helix.ask("PATCH", &format!("/api/repositories/{id}/token"), "", Some(&token));
    // Helix names a type for a body that it does not send.
    let typed = "content-type: application/json\r\n";
    helix.ask("DELETE", &format!("/api/repositories/{id}"), typed, None);
    helix.ask("DELETE", &format!("/api/repositories/{id}"), typed, None);
    helix.ask("GET", "/api/nothing", "", None);
    helix.token = Some("docora_0000".into());
    helix.ask("POST", "/api/repositories", "", Some(&url));
    assert_snapshot!("helix", helix.wire.text());
}

#[test]
fn lumio_sees_no_difference() {
    let (host, project) = (Host::start(), Project::with(&[("a.md", "1"), ("b/c.md", "2")]));
    host.publish(&project, "cards/decks");
    // Its first answer comes before it has saved its registration.
    let mut lumio = Client::start(&[400]);
    lumio.onboard(&json!({ "base_url": format!("http://{}/hook", lumio.receives_at), "client_auth_key": KEY,
                           "website": "https://example.org", "description": "cards" }));
    let url = json!({ "github_url": host.url("cards/decks") });
    let id = lumio.ask("POST", "/api/repositories", "", Some(&url));
    let id = id["repository_id"].as_str().expect("an id").to_owned();
    lumio.wait_for(3);
    host.misbehave(Some(Fault::Status(404, None)));
    lumio.wait_for(4);
    host.misbehave(None);
    lumio.ask("POST", "/api/repositories", "", Some(&json!({ "github_url": "not an address" })));
    lumio.ask("POST", "/api/repositories", "", Some(&json!({ "github_url": host.url("cards/none") })));
    lumio.ask("DELETE", &format!("/api/repositories/{id}"), "", None);
    assert_snapshot!("lumio", lumio.wire.text());
}

#[test]
fn a_client_that_pulls_sees_no_difference() {
    let (host, project) = (Host::start(), Project::with(&[("a", "1"), ("b", "2"), ("c", "3")]));
    host.publish(&project, "o/r");
    let mut client = Client::start(&[]);
    client.onboard(&json!({}));
    let watch = json!({ "url": host.url("o/r"), "include": ["*"], "branch": "main" });
    let id = client.ask("POST", "/api/repositories", "", Some(&watch));
    let id = id["repository_id"].as_str().expect("an id").to_owned();
    let pending = format!("/api/repositories/{id}/pending?wait_seconds=30");
    let lent = client.ask("GET", &pending, "", None);
    let settled = json!({ "lease_id": lent["lease_id"], "accepted_through": 2,
                          "refused": [{ "position": 2, "reason": "not mine" }] });
    client.ask("POST", &format!("/api/repositories/{id}/settle"), "", Some(&settled));
    client.ask("GET", "/api/dead-letters?status=open", "", None);
    client.ask("GET", "/api/repositories?limit=1&cursor=nothing", "", None);
    client.ask("POST", &format!("/api/repositories/{id}/settle"), "", Some(&settled));
    client.ask("DELETE", &format!("/api/repositories/{id}"), "", None);
    assert_snapshot!("pull", client.wire.text());
}
