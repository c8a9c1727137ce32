//! What an app was told since the last rest, held against what git says: which rounds there should be, and each
//! change of each round.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use tidings_entity::id::ObjectId;

use super::{
    expected::{self, Expected, Leap, Lens},
    objects::{Entry, Files},
    truth::Truth,
};
use crate::support::model::Change;

/// The changes of a round as they came.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) leap: Leap,
    pub(super) changes: Vec<Change>,
}

/// The rounds of changes as they came, by branch.
pub(super) fn gather(changes: Vec<Change>) -> BTreeMap<String, Vec<Told>> {
    let mut rounds: BTreeMap<(String, i64), Vec<Change>> = BTreeMap::new();
    for change in changes {
        let branch = change.body["event"]["branch"].as_str().unwrap_or_default().to_owned();
        rounds.entry((branch, change.round)).or_default().push(change);
    }
    let mut gathered: BTreeMap<String, Vec<Told>> = BTreeMap::new();
    for ((branch, _), mut changes) in rounds {
        // A phased app is told of some at a time.
        changes.sort_by_key(|change| change.position);
        let body = &changes[0].body;
        let commit = |value: &Value| value.as_str().and_then(|text| text.parse::<ObjectId>().ok());
        let leap = Leap {
            from: commit(&body["event"]["previous_commit_sha"]),
            to: commit(&body["commit_sha"]).filter(|commit| *commit.as_bytes() != [0; 20]),
            is_rewritten: body["event"]["history_rewritten"] == true,
        };
        gathered.entry(branch).or_default().push(Told { leap, changes });
    }
    gathered
}

/// How the changes of a round differ from what they should be.
pub(super) fn faults_of_round(
    told: &Told,
    round: &[Expected],
    branch: &str,
    lens: &Lens,
    truth: &mut Truth,
) -> Vec<String> {
    let mut faults = Vec::new();
    if told.changes.len() != round.len() {
        let line = |action: &str, path: &[u8]| format!("{action} {}", String::from_utf8_lossy(path));
        let came = told.changes.iter().map(|change| line(&change.action, &change.path));
        let wanted = round.iter().map(|change| line(change.action, &change.path));
        let (came, wanted): (Vec<_>, Vec<_>) = (came.collect(), wanted.collect());
        faults.push(format!("{:?}: told {came:#?} instead of {wanted:#?}", told.leap));
    }
    for (position, (change, expected)) in told.changes.iter().zip(round).enumerate() {
        let place = (position, told.changes.len());
        let wanted = expected::body(expected, &told.leap, place, branch, lens, truth);
        let came = expected::trim(change.body.clone());
        if came != wanted || change.action != expected.action || change.path != expected.path {
            faults.push(format!("{} {came:#} instead of {} {wanted:#}", change.action, expected.action));
        }
        faults.extend(fault_of_content(change, expected, lens));
        faults.extend(fault_of_rename(change, expected, round));
    }
    faults
}

/// Content is there where there is a `sha`, and nowhere else; that it is what `sha` says the receiver checks.
fn fault_of_content(change: &Change, expected: &Expected, lens: &Lens) -> Option<String> {
    let file = &change.body["file"];
    let is_wanted = lens.content && expected.new.is_some() && file["sha"].is_string();
    (file["content"].is_string() != is_wanted).then(|| format!("the content of {:#}", change.body))
}

/// A create names a path that the round deletes and that had the content, if there is one.
fn fault_of_rename(change: &Change, expected: &Expected, round: &[Expected]) -> Option<String> {
    let blob = |entry: Option<Entry>| entry.map(|(_, blob)| blob);
    let is_source = |other: &&Expected| {
        other.action == "delete" && expected.action == "create" && blob(other.old) == blob(expected.new)
    };
    let sources: Vec<_> = round.iter().filter(is_source).map(|other| other.path.as_slice()).collect();
    let file = &change.body["file"];
    let exact =
        file["renamed_from_base64"].as_str().map(|path| BASE64_STANDARD.decode(path).expect("base64"));
    let named = exact.or_else(|| file["renamed_from"].as_str().map(|path| path.as_bytes().to_vec()));
    let is_right = match named {
        None => sources.is_empty(),
        Some(named) => sources.contains(&named.as_slice()),
    };
    let sources: Vec<_> = sources.iter().map(|path| String::from_utf8_lossy(path)).collect();
    (!is_right).then(|| format!("renamed from one of {sources:?}: {:#}", change.body))
}

/// Applies a round to what the app has; it must fit.
pub(super) fn apply(has: &mut Files, told: &Told) {
    for change in &told.changes {
        let file = &change.body["file"];
        let before = has.remove(&change.path);
        assert_eq!(before.is_some(), change.action != "create", "{:#}", change.body);
        if change.action != "delete" {
            let mode = file["mode"].as_str().and_then(|mode| u32::from_str_radix(mode, 8).ok());
            let blob = file["blob"].as_str().and_then(|blob| blob.parse().ok());
            let entry = (mode.expect("a mode"), blob.expect("a blob"));
            has.insert(change.path.clone(), entry);
        }
    }
}

/// The rounds that lead a watch from what it held to a head, without those that change nothing for it.
pub(super) fn due(
    lens: &Lens,
    held: Option<ObjectId>,
    head: Option<ObjectId>,
    truth: &mut Truth,
) -> Vec<Leap> {
    let mut leaps = Vec::new();
    let way = match (lens.is_every, held, head) {
        (true, Some(held), Some(head)) => Some(truth.way(held, head)),
        _ => None,
    };
    match way {
        None => leaps.push(Leap { from: held, to: head, is_rewritten: false }),
        Some(None) => leaps.push(Leap { from: held, to: head, is_rewritten: true }),
        Some(Some(way)) => {
            let mut from = held;
            for commit in way {
                leaps.push(Leap { from, to: Some(commit), is_rewritten: false });
                from = Some(commit);
            }
        }
    }
    leaps.retain(|leap| !changes(lens, leap.from, leap.to, truth).is_empty());
    leaps
}

/// What a watch should be told between two commits.
pub(super) fn changes(
    lens: &Lens,
    from: Option<ObjectId>,
    to: Option<ObjectId>,
    truth: &mut Truth,
) -> Vec<Expected> {
    let (old, new) = (truth.files(from), truth.files(to));
    lens.changes(&old, &new)
}

/// Where a host listed what its refs had been before: each round must be right by itself, and they must make
/// one way from what was held to the head.
pub(super) fn fault_of_way(
    lens: &Lens,
    (held, head): (Option<ObjectId>, Option<ObjectId>),
    told: &[Told],
    truth: &mut Truth,
) -> Option<String> {
    let mut at = held;
    for Told { leap, .. } in told {
        if leap.from != at && !changes(lens, at, leap.from, truth).is_empty() {
            return Some(format!("{leap:?} does not begin at {at:?}"));
        }
        let is_step = match (lens.is_every, leap.from, leap.to) {
            (true, Some(from), Some(to)) => match truth.way(from, to) {
                Some(way) => way.len() == 1 && !leap.is_rewritten,
                None => leap.is_rewritten,
            },
            _ => !leap.is_rewritten,
        };
        if !is_step {
            return Some(format!("{leap:?} is no step"));
        }
        at = leap.to;
    }
    (!changes(lens, at, head, truth).is_empty()).then(|| format!("the rounds end at {at:?}, not at {head:?}"))
}
