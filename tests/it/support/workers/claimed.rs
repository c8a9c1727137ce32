//! A task as its claim brought it.

use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::Value;

/// The place of a change: cursor, round, position.
pub(crate) type Place = (String, i64, u64);

/// A task that a worker claimed, with its body.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    task: Value,
    /// How long the worker asked for.
    pub(super) lasts: Duration,
    /// Before this moment the claim has certainly not run out.
    pub(super) surely_until: Instant,
    /// After this moment the claim has certainly run out, if no clock is behind.
    pub(super) perhaps_until: Instant,
    /// Whether its worker ended it and heard so.
    pub(super) is_ended: bool,
}

impl Claimed {
    /// A task of the answer to a request that was sent at `asked`, and that came just now.
    pub(super) fn new(task: Value, lasts: Duration, asked: Instant) -> Self {
        let perhaps_until = Instant::now() + lasts;
        Self { task, lasts, surely_until: asked + lasts, perhaps_until, is_ended: false }
    }

    /// The claim was extended by a request that was sent at `asked`, and whose answer came just now.
    pub(super) fn extend(&mut self, asked: Instant) {
        self.surely_until = self.surely_until.max(asked + self.lasts);
        self.may_last_until(Instant::now() + self.lasts);
    }

    /// The claim may last until then.
    pub(super) fn may_last_until(&mut self, until: Instant) {
        self.perhaps_until = self.perhaps_until.max(until);
    }

    fn text(&self, field: &str) -> &str {
        self.task[field].as_str().expect("a text")
    }

    pub(crate) fn id(&self) -> &str {
        self.text("id")
    }

    pub(crate) fn token(&self) -> &str {
        self.text("token")
    }

    /// The same token with other bits.
    pub(super) fn forged_token(&self) -> String {
        let parts: Vec<&str> = self.token().split('.').collect();
        let flip = |digit: char| if digit == '0' { '1' } else { '0' };
        let bits: String = parts[1].chars().map(flip).collect();
        [parts[0], &bits, &parts[2..].join(".")].join(".")
    }

    pub(super) fn number(&self, field: &str) -> u64 {
        self.task[field].as_u64().expect("a number")
    }

    fn event(&self) -> &Value {
        &self.task["payload"]["event"]
    }

    pub(crate) fn file(&self) -> &Value {
        &self.task["payload"]["file"]
    }

    pub(crate) fn place(&self) -> Place {
        let event = self.event();
        let cursor = event["cursor"].as_str().expect("a cursor").to_owned();
        (cursor, event["round"].as_i64().expect("a round"), event["position"].as_u64().expect("a position"))
    }

    /// The watch and the branch that the change belongs to.
    pub(super) fn branch(&self) -> (String, String) {
        let watch = &self.task["payload"]["repository"]["repository_id"];
        let branch = &self.event()["branch"];
        (watch.as_str().expect("an id").to_owned(), branch.as_str().expect("a name").to_owned())
    }

    pub(crate) fn is_delete(&self) -> bool {
        self.event()["type"] == "file.deleted"
    }

    /// The bytes of its path.
    pub(crate) fn path(&self) -> Vec<u8> {
        match self.file()["path_base64"].as_str() {
            Some(text) => BASE64.decode(text.as_bytes()).expect("base64"),
            None => self.file()["path"].as_str().expect("a path").as_bytes().to_vec(),
        }
    }
}
