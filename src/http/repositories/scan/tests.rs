//! What an app is shown of a scan.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tidings_actors::{
    ports::HeadFault,
    signals::polls::{Scanned, Unseen},
};
use tidings_entity::{id::*, kind::BreakerKind};

use super::*;
use crate::http::tests::plain;

const AT: Timestamp = Timestamp(1_800_000_000_000);
const LATER: Timestamp = Timestamp(1_800_000_060_000);

fn cursor() -> CursorStatus {
    let head = Some(ObjectId::new([1; 20]));
    CursorStatus { head, ..plain::cursor(1, "refs/heads/main") }
}

fn watch(last_error: Option<&str>) -> Watch {
    Watch { last_error: last_error.map(str::to_owned), ..plain::watch(AT, cursor()) }
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
