//! Histories that misbehave and entries that are odd: each has its defined event, its state or its
//! typed refusal, shown by the real server against real repositories.

mod entries;
mod lost;
mod patterns;
mod refused;
mod rewritten;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_entity::id::ObjectId;

use crate::support::{
    api::App,
    patience::{SOON, eventually},
    repository::Repository,
    server::Server,
    subscriber::Subscriber,
};

/// Longer texts are shown by their length.
const SHOWN: usize = 100;

/// A repository without a work tree, watched through a server.
struct Desk {
    repository: Repository,
    server: Server,
    subscriber: Subscriber,
    app: App,
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Server::prepare().with("git.every_max", "3");
        server.run();
        let subscriber = Subscriber::start();
        let app = App::onboard(&server, &subscriber);
        Self { repository: Repository::create(&folder.path().join("r.git")), server, subscriber, app, folder }
    }

    /// Watches it with these settings besides.
    fn watch(&self, settings: &Value) -> String {
        let mut body = settings.clone();
        body["url"] = json!(format!("file://{}", self.repository.path().display()));
        self.app.watch_with(&self.server, &body)
    }

    /// Waits until the app holds what a branch names now.
    fn hold(&self, id: &str, branch: &str) {
        let head = self.repository.resolve(&format!("refs/heads/{branch}"));
        self.app.wait_until_held(&self.server, id, &head.to_string());
    }

    /// Waits until the scan of the watch failed; its words.
    fn failure(&self, id: &str) -> String {
        eventually("failed scan", SOON, || {
            self.app.repository(&self.server, id)["last_error"].as_str().map(str::to_owned)
        })
    }

    /// The bodies that came of a watch, one a line; what is different each time is left out, and
    /// rounds are counted from 1.
    fn told(&self, id: &str) -> String {
        let model = self.subscriber.model();
        let bodies = model.bodies.iter().map(|body| serde_json::from_str::<Value>(body).expect("a body"));
        let (mut rounds, mut lines) = (Vec::new(), Vec::new());
        for mut body in bodies.filter(|body| body["repository"]["repository_id"] == id) {
            let fields = body.as_object_mut().expect("an object");
            fields.remove("repository");
            fields.remove("timestamp");
            let event = fields["event"].as_object_mut().expect("an object");
            event.remove("id");
            event.remove("cursor");
            let round = event["round"].as_i64().expect("a number");
            if rounds.last() != Some(&round) {
                rounds.push(round);
            }
            event["round"] = json!(rounds.len());
            shorten(&mut body);
            lines.push(body.to_string());
        }
        lines.join("\n")
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > SHOWN => {
            *text = format!("{}... {} bytes", text.chars().take(8).collect::<String>(), text.len());
        }
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

/// A tree of these entries as they are given, however malformed.
fn tree_of(repository: &Repository, entries: &[(&str, &[u8], ObjectId)]) -> ObjectId {
    let mut raw = Vec::new();
    for (mode, name, id) in entries {
        raw.extend_from_slice(mode.as_bytes());
        raw.push(b' ');
        raw.extend_from_slice(name);
        raw.push(0);
        raw.extend_from_slice(id.as_bytes());
    }
    repository.write_object("tree", &raw)
}
