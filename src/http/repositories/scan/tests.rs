//! What an app is shown of a scan.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tidings_actors::{
    polls::{Scanned, Unseen},
    ports::{HeadFault, RepositoryFacts, Selector},
    view::View,
};
use tidings_entity::{
    id::*,
    kind::{BranchGone, BreakerKind, CursorState, HistoryMode, SelectorKind, WatchState},
};
use ulid::Ulid;

use super::*;

const AT: Timestamp = Timestamp(1_800_000_000_000);
const LATER: Timestamp = Timestamp(1_800_000_060_000);

fn cursor() -> CursorStatus {
    CursorStatus {
        id: CursorId::new(Ulid::from_parts(1, 1)),
        branch: "refs/heads/main".into(),
        held: None,
        head: Some(ObjectId::new([1; 20])),
        fault: None,
        state: CursorState::Active,
        reason: None,
        acknowledged: false,
        open: None,
        last_round: 0,
        deletes_unknown: false,
        dead_letters: 0,
        behind_since: None,
    }
}

fn watch(last_error: Option<&str>) -> Watch {
    let id = WatchId::new(Ulid::from_parts(1, 1));
    Watch {
        facts: RepositoryFacts {
            repository_id: id.clone(),
            github_url: "https://git.example/a/b".into(),
            owner: "a".into(),
            name: "b".into(),
        },
        id,
        app: AppId::new(Ulid::from_parts(1, 1)),
        repository: RepositoryId::new(Ulid::from_parts(1, 1)),
        source: SourceId::new(Ulid::from_parts(1, 1)),
        url: "https://git.example/a/b".into(),
        is_private: false,
        has_credential: false,
        selector: Selector { kind: SelectorKind::DefaultBranch, value: String::new() },
        view: View::default(),
        mode: HistoryMode::Net,
        on_branch_gone: BranchGone::Keep,
        state: WatchState::Active,
        reason: None,
        created_at: AT,
        deliver_after: AT,
        cursors: vec![cursor()],
        last_error: last_error.map(str::to_owned),
        moved_to: None,
    }
}

fn scanned() -> Scanned {
    let took = Duration::from_millis(70);
    Scanned { at: AT, took, bytes: Some(512), outcome: "ok", reason: None, unseen: None }
}

fn shown(watch: &Watch, polled: &Polled, breaker: Option<&BreakerRow>) -> Value {
    serde_json::to_value(Scan::of(watch, polled, breaker)).expect("plain data")
}

#[test]
fn a_scan_shows_when_it_was_what_it_cost_and_why_it_failed() {
    let watch = watch(None);
    let polled =
        Polled { last: Some(Arc::new(scanned())), next: Some(LATER), failures: 0, ..Polled::default() };
    let (at, later) = ("2027-01-15T08:00:00.000Z", "2027-01-15T08:01:00.000Z");
    let well = json!({
        "last_at": at, "next_at": later, "took_ms": 70, "bytes": 512, "outcome": "ok", "failures": 0,
    });
    assert_eq!(shown(&watch, &polled, None), well);

    let reason = "the Git host refuses the credential";
    let failed = Scanned { bytes: None, outcome: "auth_failed", reason: Some(reason.into()), ..scanned() };
    let polled = Polled { last: Some(Arc::new(failed)), next: None, failures: 2, ..Polled::default() };
    let row = BreakerRow {
        kind: BreakerKind::Source,
        id: watch.source.to_string(),
        failures: 5,
        opened_at: Some(AT),
        probe_at: Some(LATER),
        last_error: reason.into(),
    };
    let expected = json!({
        "last_at": at, "next_at": later, "took_ms": 70, "outcome": "auth_failed", "reason": reason, "failures": 5,
    });
    assert_eq!(shown(&watch, &polled, Some(&row)), expected, "the breaker remembers earlier processes");
}

#[test]
fn what_is_written_down_is_shown_also_where_nobody_looked_yet() {
    let shown = shown(&watch(Some("the Git host could not be reached")), &Polled::default(), None);
    assert_eq!(shown, json!({ "reason": "the Git host could not be reached", "failures": 0 }));
}

#[test]
fn an_app_is_told_of_its_own_refs_alone() {
    let unseen = |refs: &[&str]| {
        let refs = refs.iter().map(|name| (*name).to_owned()).collect();
        let unseen = Some(Unseen { refs, reason: "too large".into() });
        let polled = Polled { last: Some(Arc::new(Scanned { unseen, ..scanned() })), ..Polled::default() };
        shown(&watch(None), &polled, None)["unseen"].clone()
    };
    let expected = json!({ "refs": ["refs/heads/main"], "reason": "too large" });
    assert_eq!(unseen(&["refs/heads/main", "refs/tags/"]), expected);
    assert_eq!(unseen(&["refs/tags/"]), Value::Null);
}

#[test]
fn a_head_that_cannot_be_taken_says_why_since_when_and_when_it_is_tried_again() {
    let fault = Some(HeadFault { reason: "the tree is malformed".into(), since: AT });
    let cursor = CursorStatus { fault, ..cursor() };
    let shown = serde_json::to_value(HeadFaultShown::of(&cursor, Some(LATER))).expect("plain data");
    let expected = json!({
        "reason": "the tree is malformed",
        "since": "2027-01-15T08:00:00.000Z",
        "next_try_at": "2027-01-15T08:01:00.000Z",
    });
    assert_eq!(shown, expected);
}
