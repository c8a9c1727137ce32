//! What an app should be told of two trees: kinds, order, and every field of the bodies that follows from Git.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tidings_entity::id::ObjectId;

use super::{
    objects::{Entry, Files, LINK, MODULE},
    truth::{Differences, Truth},
};

/// The bits of a mode that say of which class it is.
const CLASS: u32 = 0o170_000;

/// What a watch sees.
#[derive(Clone, Copy)]
pub(super) struct Lens {
    /// Each commit is a round, not their sum.
    pub(super) is_every: bool,
    pub(super) symlinks: bool,
    pub(super) content: bool,
    pub(super) max_size: u64,
    pub(super) admits: fn(&[u8]) -> bool,
}

/// A change that should be told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expected {
    pub(super) action: &'static str,
    pub(super) path: Vec<u8>,
    pub(super) old: Option<Entry>,
    pub(super) new: Option<Entry>,
}

/// From where to where a round leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leap {
    pub(super) from: Option<ObjectId>,
    /// `None`: the branch is gone.
    pub(super) to: Option<ObjectId>,
    pub(super) is_rewritten: bool,
}

impl Lens {
    /// The entry, if the watch sees it.
    pub(super) fn sees(&self, path: &[u8], entry: Entry) -> bool {
        let is_sent = match entry.0 & CLASS {
            MODULE => false,
            LINK => self.symlinks,
            _ => true,
        };
        is_sent && (self.admits)(path)
    }

    /// The changes of two trees, in the order in which they are told.
    pub(super) fn changes(&self, old: &Files, new: &Files) -> Vec<Expected> {
        let mut changes = Vec::new();
        for (path, (was, is)) in differences(old, new) {
            let seen = |entry: Option<Entry>| entry.filter(|entry| self.sees(&path, *entry));
            let mut tell = |action, old, new| changes.push(Expected { action, path: path.clone(), old, new });
            match (seen(was), seen(is)) {
                (None, None) => {}
                (Some(old), Some(new)) if old.0 & CLASS == new.0 & CLASS => {
                    tell("update", Some(old), Some(new));
                }
                (old, new) => {
                    if old.is_some() {
                        tell("delete", old, None);
                    }
                    if new.is_some() {
                        tell("create", None, new);
                    }
                }
            }
        }
        let rank = |action: &str| ["delete", "create", "update"].iter().position(|known| *known == action);
        changes.sort_by(|one, other| (rank(one.action), &one.path).cmp(&(rank(other.action), &other.path)));
        changes
    }
}

/// The paths whose entries differ, to the last bit of their modes.
pub(super) fn differences(old: &Files, new: &Files) -> Differences {
    let mut found = Differences::new();
    for (path, was) in old.iter().filter(|(path, was)| new.get(*path) != Some(was)) {
        found.insert(path.clone(), (Some(*was), new.get(path).copied()));
    }
    for (path, is) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
        found.insert(path.clone(), (None, Some(*is)));
    }
    found
}

/// The differences as git shows them: with the modes that it would write today.
pub(super) fn as_git_shows(differences: &Differences) -> Differences {
    let today = |(mode, id): Entry| {
        let mode = match mode & CLASS {
            LINK | MODULE => mode,
            _ if mode & 0o100 != 0 => 0o100_755,
            _ => 0o100_644,
        };
        (mode, id)
    };
    let shown = differences.iter().map(|(path, (was, is))| (path.clone(), (was.map(today), is.map(today))));
    shown.filter(|(_, (was, is))| was != is).collect()
}

/// The body of a change, but for what does not follow from Git: ids, the number of the round, moments, the
/// content itself, of which [`trim`] takes the same away.
pub(super) fn body(
    change: &Expected,
    leap: &Leap,
    place: (usize, usize),
    branch: &str,
    lens: &Lens,
    truth: &mut Truth,
) -> Value {
    let mut file = json!({ "path": String::from_utf8_lossy(&change.path) });
    if std::str::from_utf8(&change.path).is_err() {
        file["path_base64"] = json!(BASE64_STANDARD.encode(&change.path));
    }
    let mut sha = |entry: Entry| {
        let blob = truth.blob(entry.1);
        (lens.content && blob.size <= lens.max_size).then_some(blob.sha)
    };
    let old_sha = change.old.and_then(&mut sha);
    let new_sha = change.new.and_then(&mut sha);
    if let Some(sha) = if change.action == "delete" { &old_sha } else { &new_sha } {
        file["sha"] = json!(sha);
    }
    if let Some((mode, blob)) = change.new {
        file["mode"] = json!(format!("{mode:06o}"));
        file["blob"] = json!(blob.to_string());
        if lens.content {
            file["size"] = json!(truth.blob(blob).size);
            if new_sha.is_none() {
                file["content_omitted"] = json!("too_large");
            }
        }
        if let Some((old, _)) = change.old.filter(|(old, _)| *old != mode) {
            file["previous_mode"] = json!(format!("{old:06o}"));
        }
    }
    let mut event = json!({
        "type": format!("file.{}d", change.action), "branch": branch,
        "previous_commit_sha": leap.from.map(|from| from.to_string()),
        "position": place.0, "total": place.1,
        "commit": leap.to.map(|to| json!({ "author": "Ada <ada@example.org>", "subject": truth.commit(to).subject })),
    });
    if leap.is_rewritten {
        event["history_rewritten"] = json!(true);
    }
    let to = leap.to.unwrap_or(ObjectId::new([0; 20]));
    let mut body = json!({ "file": file, "commit_sha": to.to_string(), "event": event });
    if let Some(sha) = old_sha.filter(|_| change.action == "update") {
        body["previous_sha"] = json!(sha);
    }
    body
}

/// Takes away from a body what [`body`] does not say.
pub(super) fn trim(mut told: Value) -> Value {
    let mut drop_of = |what: &str, keys: &[&str]| {
        let object = if what.is_empty() { Some(&mut told) } else { told.pointer_mut(what) };
        if let Some(object) = object.and_then(Value::as_object_mut) {
            keys.iter().for_each(|key| drop(object.remove(*key)));
        }
    };
    drop_of("", &["repository", "timestamp"]);
    drop_of("/file", &["content", "content_encoding", "content_url", "chunk", "lfs"]);
    drop_of("/file", &["renamed_from", "renamed_from_base64"]);
    drop_of("/event", &["id", "cursor", "round"]);
    drop_of("/event/commit", &["time"]);
    told
}
