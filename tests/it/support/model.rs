//! What an app should see, as a model that knows nothing but the wire: it keeps each repository as
//! files, and notes every fault: a signature that does not verify, content that is not what its
//! hash says, an order that is not the promised one, an id with two bodies, a repeat too many.

use std::collections::{BTreeMap, BTreeSet, HashMap};

mod batch;
mod chunk;
mod envelope;
mod rest;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use chunk::Chunk;
pub(crate) use envelope::sign;

use super::{
    http::Message,
    project::{FileFacts, Tree, sha256},
};

/// Most changes of one lane that a crash may repeat.
pub(crate) const REPEATS_MAX: usize = 64;

/// A change as it came.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// `create`, `update` or `delete`.
    pub(crate) action: String,
    /// Id of the watch, as the body has it.
    pub(crate) repository: String,
    /// The id of the change.
    pub(crate) id: String,
    /// The branch of the watch.
    pub(crate) cursor: String,
    /// Which round of it.
    pub(crate) round: i64,
    /// Where in the round, from 0.
    pub(crate) position: u64,
    /// How long the round is.
    pub(crate) total: u64,
    /// The commit that the round leads to.
    pub(crate) commit: String,
    /// The path of the file, as raw bytes.
    pub(crate) path: Vec<u8>,
    /// The whole body of the delivery.
    pub(crate) body: Value,
    chunk: Option<Chunk>,
}

/// Something that came and is no change.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// The last segment of its path: `sync_failed`, `resync` and the like.
    pub(crate) action: String,
    /// The whole body of the notice.
    pub(crate) body: Value,
}

/// What one request to the receiver carried.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    /// One change of one file.
    Change(Box<Change>),
    /// Changes in one request.
    Batch(Vec<Change>),
    /// Something else; it is among the model's notices.
    Notice,
}

/// A round all of whose changes were applied, and the tree that they led to.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    /// Id of the watch.
    pub(crate) repository: String,
    /// The commit that the round led to.
    pub(crate) commit: String,
    /// The mirror after its last change.
    pub(crate) tree: Tree,
}

/// Where a cursor is.
#[derive(Debug, Default)]
struct Progress {
    round: i64,
    total: u64,
    /// How many changes were seen.
    seen: u64,
    /// How many were applied.
    applied: u64,
    /// The last one seen, by phase and path.
    last: Option<(u8, Vec<u8>)>,
    /// Seen and not yet acknowledged: position and phase.
    open: BTreeMap<u64, u8>,
    /// Every position below was seen.
    prefix: u64,
    /// Seen beyond the prefix.
    beyond: BTreeSet<u64>,
}

#[derive(Debug)]
struct Seen {
    identity: (String, i64, u64),
    body: Vec<u8>,
    applied: bool,
    acknowledged_in: Option<u32>,
}

/// What the receiver knows, and every fault that it found in the deliveries.
#[derive(Default)]
pub(crate) struct Model {
    /// The app chose `phased`: changes of one phase may overtake each other, within the window.
    pub(crate) phased: bool,
    /// The app takes batches of at most this many changes.
    pub(crate) batch_max: Option<usize>,
    /// Batches that came, and those of them of which only a part was taken.
    pub(crate) batches: (u64, u64),
    /// Mirrors are kept per branch, named `<repository> <branch>`.
    pub(crate) by_branch: bool,
    key: Vec<u8>,
    second_key: Option<Vec<u8>>,
    app: Option<String>,
    /// The files of each repository, by its name.
    pub(crate) mirrors: BTreeMap<String, Tree>,
    /// Everything that is not as promised.
    pub(crate) faults: Vec<String>,
    /// Rounds that were seen to their end.
    pub(crate) finished: Vec<Finished>,
    /// Rounds that were left for the next one before their end.
    pub(crate) left: Vec<(String, i64)>,
    /// What came, in order, by its last path segment.
    pub(crate) order: Vec<String>,
    /// Notices that came, in order.
    pub(crate) notices: Vec<Notice>,
    /// Changes applied, in order.
    pub(crate) applied: Vec<Change>,
    /// Creates of what was there, deletes and updates of what was not.
    pub(crate) surprises: Vec<String>,
    /// The bodies of changes as they came first, in order.
    pub(crate) bodies: Vec<String>,
    /// Id, index and total of each chunk that came.
    pub(crate) chunks_seen: Vec<(String, u64, u64)>,
    /// Requests seen, repeats and chunks included.
    pub(crate) requests: u64,
    /// What was acknowledged may come again at any time, as from replicas whose leases end.
    pub(crate) may_repeat: bool,
    /// Changes that were given up by hand, perhaps before they were ever sent; each may leave a gap.
    pub(crate) skips: u64,
    /// Requests for something that had been acknowledged before the last kill.
    pub(crate) repeats: u64,
    cursors: HashMap<String, Progress>,
    seen: HashMap<String, Seen>,
    kill: u32,
    repeated: HashMap<(String, u32), BTreeSet<String>>,
    chunks: HashMap<String, Vec<String>>,
    batch_ids: HashMap<String, Vec<String>>,
}

impl Model {
    /// Most changes of one lane that a crash may repeat: what may be under way beyond the settled
    /// prefix, which is one batch where the app takes them.
    fn window(&self) -> usize {
        self.batch_max.unwrap_or(REPEATS_MAX)
    }

    /// From now on everything must also be signed, in the standard way, by this key.
    pub(crate) fn expect_second_key(&mut self, key: &str) {
        self.second_key = Some(key.as_bytes().to_vec());
    }

    /// From now on everything must be signed by this key, whatever else signs it.
    pub(crate) fn expect_key(&mut self, key: &str) {
        self.key = key.as_bytes().to_vec();
        self.second_key = None;
    }

    /// A model of an app with this signing key.
    pub(crate) fn new(key: &str) -> Self {
        Self { key: key.as_bytes().to_vec(), ..Self::default() }
    }

    /// From now on only deliveries for this app are right.
    pub(crate) fn expect_app(&mut self, app: &str) {
        self.app = Some(app.to_owned());
    }

    /// The server was killed or stopped: what was acknowledged may repeat, within bounds.
    pub(crate) fn note_kill(&mut self) {
        self.kill += 1;
    }

    /// Takes a request in, checks everything that can be checked at once.
    pub(crate) fn arrive(&mut self, message: &Message) -> Option<Arrival> {
        self.requests += 1;
        if let Err(fault) = self.check_envelope(message) {
            self.faults.push(fault);
            return None;
        }
        let action =
            message.first_line.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or("");
        let Ok(body) = serde_json::from_slice::<Value>(&message.body) else {
            self.faults.push(format!("the body of {action} is no JSON"));
            return None;
        };
        self.order.push(action.to_owned());
        if action == "batch" {
            let webhook_id = message.header("webhook-id").unwrap_or_default();
            return self.take_batch(&body, webhook_id, &message.body);
        }
        if !matches!(action, "create" | "update" | "delete") {
            self.notices.push(Notice { action: action.to_owned(), body });
            return Some(Arrival::Notice);
        }
        let webhook_id = message.header("webhook-id").unwrap_or_default();
        self.take(action, body, webhook_id, &message.body)
    }

    /// Takes a change in that was asked for, of an answer with this body for it.
    pub(crate) fn pull(&mut self, action: &str, body: &Value) -> Option<Arrival> {
        self.requests += 1;
        let id = body["event"]["id"].as_str().unwrap_or_default().to_owned();
        self.take(action, body.clone(), &id, body.to_string().as_bytes())
    }

    fn take(&mut self, action: &str, body: Value, webhook_id: &str, bytes: &[u8]) -> Option<Arrival> {
        match read_change(action, body) {
            Ok(change) => {
                self.check_content(&change);
                if let Some(chunk) = &change.chunk {
                    self.chunks_seen.push((chunk.id.clone(), chunk.index, chunk.total));
                }
                self.check_identity(&change, webhook_id, bytes);
                Some(Arrival::Change(Box::new(change)))
            }
            Err(what) => {
                self.faults.push(format!("a {action} without a readable {what}"));
                None
            }
        }
    }

    /// The app is restored from a backup: of this watch it has that tree and nothing else.
    pub(crate) fn restore(&mut self, repository: &str, tree: Tree) {
        self.mirrors.insert(repository.to_owned(), tree);
    }

    /// The app takes the arrival in.
    pub(crate) fn apply(&mut self, arrival: &Arrival) {
        match arrival {
            Arrival::Change(change) => self.apply_change(change),
            Arrival::Batch(changes) => changes.iter().for_each(|change| self.apply_change(change)),
            Arrival::Notice => {}
        }
    }

    fn apply_change(&mut self, change: &Change) {
        if change.chunk.as_ref().is_some_and(|chunk| !self.take_chunk(change, chunk)) {
            return;
        }
        let Some(seen) = self.seen.get_mut(&change.id) else { return };
        if std::mem::replace(&mut seen.applied, true) {
            return;
        }
        self.change_mirror(change);
        self.applied.push(change.clone());
        let progress = self.cursors.entry(change.cursor.clone()).or_default();
        if progress.round == change.round {
            progress.applied += 1;
        }
        let all = progress.round == change.round && progress.applied == change.total;
        let in_order = !self.phased && self.batch_max.is_none();
        if all || (in_order && change.position + 1 == change.total) {
            let tree = self.mirrors.get(&self.mirror_of(change)).cloned().unwrap_or_default();
            let (repository, commit) = (change.repository.clone(), change.commit.clone());
            self.finished.push(Finished { repository, commit, tree });
        }
    }

    /// The 2xx for the arrival was written to the last byte.
    pub(crate) fn acknowledged(&mut self, arrival: &Arrival) {
        match arrival {
            Arrival::Change(change) => self.acknowledged_change(change),
            Arrival::Batch(changes) => changes.iter().for_each(|change| self.acknowledged_change(change)),
            Arrival::Notice => {}
        }
    }

    fn acknowledged_change(&mut self, change: &Change) {
        if change.chunk.as_ref().is_some_and(|chunk| chunk.index + 1 < chunk.total) {
            return;
        }
        if let Some(seen) = self.seen.get_mut(&change.id) {
            seen.acknowledged_in = Some(self.kill);
        }
        if let Some(progress) =
            self.cursors.get_mut(&change.cursor).filter(|progress| progress.round == change.round)
        {
            progress.open.remove(&change.position);
        }
    }

    /// The arrival was answered with something else than a 2xx, or with nothing: it may be given up now,
    /// and what comes after it may be sent.
    pub(crate) fn turned_down(&mut self, arrival: &Arrival) {
        match arrival {
            Arrival::Change(change) => self.turned_down_change(change),
            Arrival::Batch(changes) => changes.iter().for_each(|change| self.turned_down_change(change)),
            Arrival::Notice => {}
        }
    }

    fn turned_down_change(&mut self, change: &Change) {
        let progress = self.cursors.get_mut(&change.cursor);
        if let Some(progress) = progress.filter(|progress| progress.round == change.round) {
            progress.open.remove(&change.position);
        }
    }

    fn check_content(&mut self, change: &Change) {
        let file = &change.body["file"];
        if change.action == "delete" {
            if !file["content"].is_null() {
                self.faults.push(format!("the delete {} has content", change.id));
            }
        } else if change.chunk.is_none() && file["content"].is_string() {
            match content_of(file) {
                Some(bytes) if file["sha"] == sha256(&bytes) && file["size"] == bytes.len() => {}
                _ => self.faults.push(format!("the content of {} is not what its sha says", change.id)),
            }
        }
    }

    /// An id names one change for ever; a new id is the next of its round.
    fn check_identity(&mut self, change: &Change, webhook_id: &str, bytes: &[u8]) {
        let expected = match &change.chunk {
            None => change.id.clone(),
            Some(chunk) => format!("{}.{}.{}", change.id, chunk.id, chunk.index),
        };
        if webhook_id != expected {
            self.faults.push(format!("the webhook-id {webhook_id} is not {expected}"));
        }
        let identity = (change.cursor.clone(), change.round, change.position);
        let Some(seen) = self.seen.get(&change.id) else {
            self.check_order(change);
            self.bodies.push(String::from_utf8_lossy(bytes).into_owned());
            let body = if change.chunk.is_some() { Vec::new() } else { bytes.to_vec() };
            let seen = Seen { identity, body, applied: false, acknowledged_in: None };
            self.seen.insert(change.id.clone(), seen);
            return;
        };
        if seen.identity != identity || (change.chunk.is_none() && seen.body != bytes) {
            self.faults.push(format!("the id {} stands for two bodies", change.id));
        }
        let window = self.window();
        let first_chunk = change.chunk.as_ref().is_none_or(|chunk| chunk.index == 0);
        match seen.acknowledged_in {
            Some(kill) if first_chunk && kill == self.kill && !self.may_repeat => {
                self.faults.push(format!("{} was acknowledged and came again without a kill", change.id));
            }
            Some(_) if first_chunk => {
                self.repeats += 1;
                let repeated = self.repeated.entry((change.cursor.clone(), self.kill)).or_default();
                repeated.insert(change.id.clone());
                if repeated.len() == window + 1 {
                    self.faults.push(format!("one kill repeated more than {window} of {}", change.cursor));
                }
            }
            _ => {}
        }
    }

    fn check_order(&mut self, change: &Change) {
        let window = self.window() as u64;
        let progress = self.cursors.entry(change.cursor.clone()).or_default();
        if change.round != progress.round {
            if change.round < progress.round {
                self.faults.push(format!("{} came after round {}", change.id, progress.round));
                return;
            }
            if progress.seen < progress.total {
                self.left.push((change.cursor.clone(), progress.round));
            }
            *progress = Progress { round: change.round, total: change.total, ..Progress::default() };
        }
        let phase = match change.action.as_str() {
            "delete" => 0,
            "create" => 1,
            _ => 2,
        };
        let here = (phase, change.path.clone());
        let (position, round) = (change.position, change.round);
        if change.total != progress.total || position >= change.total {
            self.faults.push(format!("position {position} of {} in round {round}", change.total));
        }
        if self.phased {
            let lowest = progress.open.keys().next().copied().unwrap_or(progress.prefix).min(progress.prefix);
            if position >= lowest + window {
                self.faults.push(format!("position {position} of round {round} while {lowest} is open"));
            }
            if progress.open.values().any(|open| *open != phase) {
                self.faults.push(format!("position {position} of round {round} overlaps another phase"));
            }
        } else if position > progress.seen && position - progress.seen <= self.skips {
            self.skips -= position - progress.seen;
            progress.seen = position;
        } else if position != progress.seen {
            let (cursor, expected, total) = (&change.cursor, progress.seen, change.total);
            self.faults.push(format!(
                "position {position} of {total} in round {round} of {cursor}, expected {expected} of {total}"
            ));
        } else if progress.last.as_ref().is_some_and(|last| *last >= here) {
            self.faults.push(format!("position {position} of round {round} is out of order"));
        }
        progress.seen += 1;
        progress.last = Some(here);
        progress.open.insert(position, phase);
        progress.beyond.insert(position);
        while progress.beyond.remove(&progress.prefix) {
            progress.prefix += 1;
        }
    }

    fn mirror_of(&self, change: &Change) -> String {
        match change.body["event"]["branch"].as_str().filter(|_| self.by_branch) {
            Some(branch) => format!("{} {branch}", change.repository),
            None => change.repository.clone(),
        }
    }

    fn change_mirror(&mut self, change: &Change) {
        let file = &change.body["file"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mirror = self.mirrors.entry(self.mirror_of(change)).or_default();
        let had = mirror.get(&change.path).map(|facts| facts.sha.clone());
        let place = String::from_utf8_lossy(&change.path).into_owned();
        let surprise = match (change.action.as_str(), &had) {
            ("create", Some(_)) => Some("create of what was there"),
            ("update" | "delete", None) => Some("change of what was not there"),
            ("update", Some(sha)) if change.body["previous_sha"] != *sha => Some("another previous_sha"),
            ("delete", Some(sha)) if file["sha"] != *sha => Some("delete of another sha"),
            _ => None,
        };
        if let Some(surprise) = surprise {
            self.surprises.push(format!("{surprise}: {} {place} in round {}", change.action, change.round));
        }
        if change.action == "delete" {
            mirror.remove(&change.path);
        } else {
            mirror.insert(
                change.path.clone(),
                FileFacts { mode: text(&file["mode"]), sha: text(&file["sha"]) },
            );
        }
    }
}

fn content_of(file: &Value) -> Option<Vec<u8>> {
    let content = file["content"].as_str()?;
    match file["content_encoding"].as_str() {
        None => Some(content.as_bytes().to_vec()),
        Some("base64") => BASE64_STANDARD.decode(content).ok(),
        Some(_) => None,
    }
}

fn read_change(action: &str, body: Value) -> Result<Change, &'static str> {
    let text = |value: &Value, what| value.as_str().map(str::to_owned).ok_or(what);
    let (file, event) = (&body["file"], &body["event"]);
    let path = match file["path_base64"].as_str() {
        Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| "path_base64")?,
        None => text(&file["path"], "path")?.into_bytes(),
    };
    let chunk = chunk::read(&file["chunk"])?;
    Ok(Change {
        action: action.to_owned(),
        repository: text(&body["repository"]["repository_id"], "repository_id")?,
        id: text(&event["id"], "event id")?,
        cursor: text(&event["cursor"], "cursor")?,
        round: event["round"].as_i64().ok_or("round")?,
        position: event["position"].as_u64().ok_or("position")?,
        total: event["total"].as_u64().ok_or("total")?,
        commit: text(&body["commit_sha"], "commit_sha")?,
        path,
        chunk,
        body,
    })
}
