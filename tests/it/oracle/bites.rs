//! The oracle notices what it must: rounds that are altered in one place are no rounds any more.

use serde_json::{Value, json};

use std::collections::BTreeSet;

use super::{
    expected::{self, Expected, Leap, Lens},
    history::History,
    rounds::{self, Told},
    truth::Truth,
};
use crate::support::model::{Arrival, Change, Model};

/// A watch without filters.
const EVERYTHING: Lens =
    Lens { is_every: false, symlinks: true, content: true, max_size: u64::MAX, admits: |_| true };

/// A change as it would come, of what follows from Git.
fn told(action: &str, body: &Value) -> Change {
    let mut body = body.clone();
    body["repository"] = json!({ "repository_id": "repo_x" });
    for (key, value) in [("id", json!("dlv_x")), ("cursor", json!("cur_x")), ("round", json!(1))] {
        body["event"][key] = value;
    }
    if body["file"]["sha"].is_string() && action != "delete" {
        body["file"]["content"] = json!("said to be right");
    }
    match Model::new("unused").pull(action, &body) {
        Some(Arrival::Change(change)) => *change,
        other => panic!("{body:#} is read as {other:?}"),
    }
}

/// What is altered in the bodies of a round.
type Alteration = (&'static str, fn(&mut Vec<(String, Value)>));

const ALTERATIONS: [Alteration; 11] = [
    ("a change is missing", |round| drop(round.pop())),
    ("a change too many", |round| round.push(round[0].clone())),
    ("two changes in the wrong order", |round| round.swap(0, 1)),
    ("another kind", |round| round[0].0 = "update".to_owned()),
    ("another path", |round| round[1].1["file"]["path"] = json!("elsewhere")),
    ("another mode", |round| round[0].1["file"]["mode"] = json!("100600")),
    ("another blob", |round| round[0].1["file"]["blob"] = json!("1".repeat(40))),
    ("another hash", |round| round[0].1["file"]["sha"] = json!("1".repeat(64))),
    ("another size", |round| round[0].1["file"]["size"] = json!(1_234_567)),
    ("another commit", |round| round[0].1["commit_sha"] = json!("1".repeat(40))),
    ("a flag", |round| round[0].1["event"]["skipped_commits"] = json!(true)),
];

#[test]
fn an_altered_round_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.git");
    let history = History::begin(&path, 7);
    let mut truth = Truth::of(&path);
    let leap = Leap { from: None, to: history.head("main"), is_rewritten: false };
    let round: Vec<Expected> = rounds::changes(&EVERYTHING, leap.from, leap.to, &mut truth);
    assert!(round.len() > 10, "{}", round.len());
    let bodies: Vec<(String, Value)> = round
        .iter()
        .enumerate()
        .map(|(position, change)| {
            let place = (position, round.len());
            let body = expected::body(change, &leap, place, "main", &EVERYTHING, &mut truth);
            (change.action.to_owned(), body)
        })
        .collect();
    let mut faults = |bodies: &[(String, Value)]| {
        let changes = bodies.iter().map(|(action, body)| told(action, body)).collect();
        rounds::faults_of_round(&Told { leap, changes }, &round, "main", &EVERYTHING, &mut truth)
    };
    assert_eq!(faults(&bodies), Vec::<String>::new(), "what is not altered is right");
    for (what, alter) in ALTERATIONS {
        let mut altered = bodies.clone();
        alter(&mut altered);
        assert!(!faults(&altered).is_empty(), "{what} is not noticed");
    }
}

#[test]
fn each_first_parent_is_due_once_and_a_history_that_left_them_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.git");
    let history = History::begin(&path, 7);
    let repository = &history.repository;
    let commit = |branch: &str, parents: &[&str], path: &str| {
        repository.commit_on(branch, parents, &[(path, Some(("100644", b"x")))])
    };
    let first = commit("line", &[], "1");
    let second = commit("line", &["refs/heads/line"], "2");
    let side = commit("side", &[&first.to_string()], "3");
    let merged = commit("line", &["refs/heads/line", "refs/heads/side"], "3");
    let foxtrot = commit("fox", &["refs/heads/side", "refs/heads/line"], "4");
    let mut truth = Truth::of(&path);
    let every = Lens { is_every: true, ..EVERYTHING };
    let mut due = |lens: &Lens, held, head| rounds::due(lens, Some(held), Some(head), &mut truth);
    let leap = |from, to, is_rewritten| Leap { from: Some(from), to: Some(to), is_rewritten };
    let steps = vec![leap(first, second, false), leap(second, merged, false)];
    assert_eq!(due(&every, first, merged), steps);
    assert_eq!(due(&EVERYTHING, first, merged), vec![leap(first, merged, false)]);
    assert_eq!(due(&every, merged, first), vec![leap(merged, first, true)]);
    assert_eq!(due(&every, merged, foxtrot), vec![leap(merged, foxtrot, true)], "it left the first parents");
    assert_eq!(due(&every, side, foxtrot), vec![leap(side, foxtrot, false)]);
    let mut docs = every;
    docs.admits = |path| path == b"3";
    assert_eq!(
        due(&docs, first, merged),
        vec![leap(second, merged, false)],
        "what changes nothing is no round"
    );
    let right = [Told { leap: steps[0], changes: Vec::new() }, Told { leap: steps[1], changes: Vec::new() }];
    let mut fault =
        |told: &[Told]| rounds::fault_of_way(&every, (Some(first), Some(merged)), told, &mut truth).is_some();
    assert!(!fault(&right));
    assert!(fault(&right[..1]) && fault(&right[1..]), "a round is missing");
    assert!(fault(&[Told { leap: leap(first, merged, false), changes: Vec::new() }]), "two commits as one");
}

#[test]
fn a_history_has_all_that_it_is_made_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.git");
    let (mut history, mut truth) = (History::begin(&path, 3), Truth::of(&path));
    let (mut faults, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let (mut held, mut most_parents) = (history.head("main"), 0);
    for _ in 0..250 {
        let what = history.step();
        faults.insert(what.split(": ").nth(1).unwrap_or("made or deleted").to_owned());
        let head = history.head("main");
        let (old, new) = (truth.files(held), truth.files(head));
        most_parents = most_parents.max(head.map_or(0, |head| truth.commit(head).parents.len()));
        if new.is_empty() {
            seen.insert("an empty tree".to_owned());
        }
        for (path, (was, is)) in expected::differences(&old, &new) {
            let class = |entry: Option<(u32, _)>| entry.map_or(0, |(mode, _)| mode);
            seen.insert(format!("{:o} to {:o}", class(was), class(is)));
            if std::str::from_utf8(&path).is_err() {
                seen.insert("a path that is not UTF-8".to_owned());
            }
            if is.is_some() && old.keys().any(|known| known.starts_with(&[path.as_slice(), b"/"].concat())) {
                seen.insert("a directory that becomes a file".to_owned());
            }
        }
        held = head;
    }
    let modes = ["0", "100644", "100755", "100664", "120000", "160000"];
    let pairs = modes.iter().flat_map(|one| modes.iter().map(move |other| (one, other)));
    let changes = pairs.filter(|pair| *pair != (&"0", &"0")).map(|(one, other)| format!("{one} to {other}"));
    // Rare ones among rare modes are left to longer stories.
    let missing: Vec<String> = changes.filter(|change| !seen.contains(change)).collect();
    assert!(missing.len() < 6, "{missing:?}");
    for what in ["an empty tree", "a path that is not UTF-8", "a directory that becomes a file"] {
        assert!(seen.contains(what), "{what}");
    }
    assert!(faults.len() >= 12, "{faults:?}");
    assert!(most_parents >= 4, "a merge of {most_parents} at most");
}
