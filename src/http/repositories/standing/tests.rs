//! Which of several reasons a watch shows, and how the reason reads.

use tidings_actors::{
    model::{round::DeliveryId, sink::SinkAddress},
    ports::{BreakerRow, DeliverySettings, GONE, Selector, WatchSink},
    signals::polls::{HostPause, Scanned, Unseen},
};

use super::*;
use crate::http::tests::plain;

/// The number of the open round, and the moment at which it began.
const ROUND: i64 = 1_800_000_000_000;
const NOW: Timestamp = Timestamp(ROUND + 250_000);

fn cursor(number: u64) -> CursorStatus {
    CursorStatus { acknowledged: true, ..plain::cursor(number, &format!("refs/heads/{number}")) }
}

fn watch() -> Watch {
    let deliver_after = Timestamp(ROUND - 1_000);
    Watch { deliver_after, ..plain::watch(Timestamp(ROUND - 2_000), cursor(1)) }
}

fn failed(watch: &Watch, status: Option<u16>) -> AttemptRecord {
    AttemptRecord {
        cursor: watch.cursors[0].id.clone(),
        round: ROUND,
        position: 208,
        number: 3,
        delivery: DeliveryId::from_stored("dlv_x".into()),
        status,
        item_failure: false,
        excerpt: if status.is_none() { "Timeout".into() } else { "no".into() },
        answer: None,
        took_ms: 1,
        at: Timestamp(NOW.0 - 1_000),
        next_at: Some(Timestamp(NOW.0 + 5_000)),
    }
}

fn breaker(kind: BreakerKind, id: &str, opened_at: Option<Timestamp>) -> BreakerRow {
    BreakerRow {
        kind,
        id: id.to_owned(),
        failures: 5,
        opened_at,
        probe_at: Some(Timestamp(NOW.0 + 60_000)),
        last_error: "status 503".into(),
    }
}

/// A watch with everything in its way at once: each line takes the strongest reason away, and shows the next.
#[test]
fn the_strongest_reason_is_the_state() {
    let mut watch = watch();
    watch.state = WatchState::Paused;
    watch.reason = Some("paused by the app".into());
    watch.last_error = Some("the Git host refuses the credential".into());
    watch.cursors[0].open = Some((ROUND, 208, 251));
    watch.cursors[0].behind_since = Some(Timestamp(ROUND));
    watch.cursors[0].state = CursorState::Blocked;
    watch.cursors[0].reason = Some("ten in a row".into());
    let mut tries = vec![failed(&watch, Some(500))];
    let mut breakers = vec![breaker(BreakerKind::Endpoint, watch.app.as_str(), Some(NOW))];
    watch.sink = Some(WatchSink {
        id: "snk_01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id"),
        address: SinkAddress::Endpoint("https://deploy.example".into()),
        has_access: false,
        delivery: DeliverySettings::default(),
        disabled: Some(GONE.into()),
    });
    let mut app_disabled = Some(GONE);
    let mut lines = Vec::new();
    for step in 0..10 {
        let facts = Facts {
            watch: &watch,
            app_disabled,
            app_pulls: false,
            unclaimed: 0,
            breakers: &breakers,
            tries: &tries,
            polled: None,
            now: NOW,
        };
        let Standing { state, reason } = of(&facts);
        lines.push(format!("{}: {}", state.as_str(), reason.unwrap_or_default()));
        match step {
            0 => app_disabled = None,
            1 => watch.sink = None,
            2 => watch.state = WatchState::Active,
            3 => watch.cursors[0].state = CursorState::Active,
            4 => watch.last_error = Some("the repository was not found or is not accessible".into()),
            5 => watch.last_error = None,
            6 => breakers.clear(),
            7 => tries.clear(),
            8 => watch.cursors[0].open = None,
            _ => {}
        }
    }
    expect_test::expect![[r#"
        app_disabled: the endpoint answered 410 Gone
        sink_disabled: the endpoint answered 410 Gone; nothing is sent to the sink of this watch until the watch is resumed (POST /api/repositories/{id}/resume, tidings repository resume), which enables the sink
        paused: paused by the app
        blocked: ten in a row
        credential_refused: the Git host refuses the credential
        source_failing: the repository was not found or is not accessible
        endpoint_failing: the endpoint fails (status 503); the next probe is due at 2027-01-15T08:05:10.000Z
        retrying: the receiver answered 500; try 3, the next is due at 2027-01-15T08:04:15.000Z
        delivering: 208 of 251 changes are settled, one in 1.2 s on average
        pending: the next round has not begun
    "#]]
    .assert_eq(&(lines.join("\n") + "\n"));
}

fn facts_of<'f>(watch: &'f Watch, tries: &'f [AttemptRecord], breakers: &'f [BreakerRow]) -> Facts<'f> {
    let (app_disabled, polled) = (None, None);
    Facts { watch, app_disabled, app_pulls: false, unclaimed: 0, breakers, tries, polled, now: NOW }
}

fn stands(watch: &Watch, tries: &[AttemptRecord], breakers: &[BreakerRow]) -> (&'static str, String) {
    let Standing { state, reason } = of(&facts_of(watch, tries, breakers));
    (state.as_str(), reason.unwrap_or_default())
}

#[test]
fn a_watch_with_nothing_in_its_way_is_active() {
    let watch = watch();
    assert_eq!(stands(&watch, &[], &[]), ("active", String::new()));
    let others = breaker(BreakerKind::Endpoint, "app_of_somebody_else", Some(NOW));
    let closed = breaker(BreakerKind::Endpoint, watch.app.as_str(), None);
    assert_eq!(stands(&watch, &[], &[others, closed]), ("active", String::new()));
}

#[test]
fn a_watch_of_an_app_that_pulls_says_since_when_it_has_not_taken_what_waits() {
    let mut watch = watch();
    watch.cursors[0].behind_since = Some(Timestamp(ROUND));
    let stands = |watch: &Watch| {
        let facts = Facts {
            watch,
            app_disabled: None,
            app_pulls: true,
            unclaimed: 0,
            breakers: &[],
            tries: &[],
            polled: None,
            now: NOW,
        };
        of(&facts).reason.unwrap_or_default()
    };
    let waits = "the app pulls, and has taken none of the changes that wait since 2027-01-15T08:00:00.000Z";
    assert_eq!(stands(&watch), waits);
    watch.cursors[0].open = Some((ROUND, 0, 251));
    assert_eq!(stands(&watch), format!("0 of 251 changes are settled; {waits}"));
}

#[test]
fn a_watch_whose_tasks_no_worker_has_says_so() {
    let mut watch = watch();
    watch.cursors[0].behind_since = Some(Timestamp(ROUND));
    watch.cursors[0].open = Some((ROUND, 0, 41));
    let reason =
        |unclaimed| of(&Facts { unclaimed, ..facts_of(&watch, &[], &[]) }).reason.unwrap_or_default();
    let since = "the app is behind since 2027-01-15T08:00:00.000Z";
    for (unclaimed, waits) in [
        (0, String::new()),
        (1, format!("; 1 task waits, and no worker has it; {since}")),
        (41, format!("; 41 tasks wait, and no worker has any of them; {since}")),
    ] {
        assert_eq!(reason(unclaimed), format!("0 of 41 changes are settled{waits}"));
    }
}

#[test]
fn a_branch_is_active_only_if_the_app_has_everything_of_it() {
    let mut watch = watch();
    watch.cursors = (1..=6).map(cursor).collect();
    for at in [1, 2, 3] {
        watch.cursors[at].behind_since = Some(Timestamp(ROUND));
    }
    watch.cursors[2].open = Some((ROUND, 3, 251));
    watch.cursors[3].open = Some((ROUND, 208, 251));
    watch.cursors[4].state = CursorState::Blocked;
    watch.cursors[5].state = CursorState::BranchMissing;
    let tries = [AttemptRecord { cursor: watch.cursors[3].id.clone(), ..failed(&watch, Some(503)) }];
    let states = |watch: &Watch, breakers: &[BreakerRow]| {
        let facts = facts_of(watch, &tries, breakers);
        let of_watch = of(&facts).state;
        let of_each = watch.cursors.iter().map(|cursor| of_branch(&facts, of_watch, cursor).as_str());
        of_each.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(states(&watch, &[]), "active pending delivering retrying blocked branch_missing");
    let open = [breaker(BreakerKind::Endpoint, watch.app.as_str(), Some(NOW))];
    let fails =
        "endpoint_failing endpoint_failing endpoint_failing endpoint_failing blocked endpoint_failing";
    assert_eq!(states(&watch, &open), fails);
    watch.state = WatchState::Paused;
    assert_eq!(states(&watch, &open), ["paused"; 6].join(" "));
}

#[test]
fn an_attempt_at_the_endpoint_before_says_nothing_about_a_watch_that_pulls_now() {
    let mut watch = watch();
    watch.cursors[0].open = Some((ROUND, 208, 251));
    let tries = [failed(&watch, Some(503))];
    let mut facts = Facts {
        watch: &watch,
        app_disabled: None,
        app_pulls: false,
        unclaimed: 0,
        breakers: &[],
        tries: &tries,
        polled: None,
        now: NOW,
    };
    assert_eq!(of(&facts).state, EffectiveState::Retrying);
    assert!(facts.next_attempt(&watch.cursors[0]).is_some());
    facts.app_pulls = true;
    assert_eq!(of(&facts).state, EffectiveState::Delivering);
    assert_eq!(facts.next_attempt(&watch.cursors[0]), None, "nothing is sent any more");
}

#[test]
fn a_change_that_the_answer_to_a_batch_does_not_accept_is_tried_again() {
    let mut watch = watch();
    watch.cursors[0].open = Some((ROUND, 208, 251));
    let item = AttemptRecord { item_failure: true, excerpt: "not now".into(), ..failed(&watch, Some(200)) };
    let (state, reason) = stands(&watch, &[item], &[]);
    assert_eq!(state, "retrying");
    assert!(
        reason.starts_with("the receiver's answer to the batch does not accept it: not now; try 3"),
        "{reason}"
    );
}

#[test]
fn a_pattern_without_a_match_says_so() {
    let mut watch = watch();
    watch.selector = Selector { kind: SelectorKind::TagPattern, value: "v*".into() };
    assert_eq!(stands(&watch, &[], &[]), ("active", String::new()));
    watch.cursors.clear();
    let reason = "no tag of the repository matches `v*`".to_owned();
    assert_eq!(stands(&watch, &[], &[]), ("unmatched", reason));
    watch.selector = Selector { kind: SelectorKind::RefPattern, value: "refs/pull/*/head".into() };
    let reason = "no ref of the repository matches `refs/pull/*/head`".to_owned();
    assert_eq!(stands(&watch, &[], &[]), ("unmatched", reason));
    watch.selector = Selector { kind: SelectorKind::DefaultBranch, value: String::new() };
    assert_eq!(stands(&watch, &[], &[]), ("active", String::new()));
}

#[test]
fn a_new_watch_is_in_grace_until_its_first_2xx_or_the_end_of_the_grace() {
    let mut new = watch();
    new.cursors[0].open = Some((ROUND, 208, 251));
    new.cursors[0].acknowledged = false;
    new.deliver_after = Timestamp(NOW.0 - 1_000);
    for (status, expected) in [
        (Some(400), "in_grace"),
        (Some(401), "in_grace"),
        (Some(403), "in_grace"),
        (Some(404), "in_grace"),
        (Some(409), "in_grace"),
        (Some(422), "retrying"),
        (Some(500), "retrying"),
        (None, "retrying"),
        (Some(204), "delivering"),
    ] {
        assert_eq!(stands(&new, &[failed(&new, status)], &[]).0, expected, "{status:?}");
    }
    let (_, reason) = stands(&new, &[failed(&new, Some(404))], &[]);
    assert!(reason.starts_with("the receiver answered 404 to its first deliveries"), "{reason}");
    let over = Timestamp(NOW.0 - i64::try_from(REGISTRATION_GRACE.as_millis()).expect("short"));
    let old = Watch { deliver_after: over, ..new.clone() };
    assert_eq!(stands(&old, &[failed(&old, Some(404))], &[]).0, "retrying", "the grace is over");
    let mut known = new.clone();
    known.cursors.push(CursorStatus { acknowledged: true, ..cursor(2) });
    assert_eq!(stands(&known, &[failed(&known, Some(404))], &[]).0, "retrying", "another branch was taken");
    let mut moved = new.clone();
    moved.cursors[0].open = Some((ROUND, 209, 251));
    assert_eq!(stands(&moved, &[failed(&new, Some(404))], &[]).0, "delivering", "an earlier change failed");
}

#[test]
fn of_several_branches_the_one_that_stands_still_is_named() {
    let mut watch = watch();
    watch.cursors = vec![cursor(1), cursor(2), cursor(3)];
    for at in [1, 2] {
        watch.cursors[at].state = CursorState::Blocked;
        watch.cursors[at].reason = Some("ten in a row".into());
    }
    let expected = "refs/heads/2: ten in a row (and 1 more branch)".to_owned();
    assert_eq!(stands(&watch, &[], &[]), ("blocked", expected));
    watch.cursors[2].state = CursorState::Active;
    watch.cursors[1].reason = Some("refs/heads/2 cannot be delivered: it is broken".into());
    let expected = "refs/heads/2 cannot be delivered: it is broken".to_owned();
    assert_eq!(stands(&watch, &[], &[]), ("blocked", expected), "the branch is named once");
    watch.cursors = vec![cursor(1)];
    watch.cursors[0].state = CursorState::Empty;
    assert_eq!(stands(&watch, &[], &[]), ("empty", "the repository has no commit".to_owned()));
    watch.cursors[0].state = CursorState::BranchMissing;
    assert_eq!(stands(&watch, &[], &[]).0, "branch_missing");
}

#[test]
fn while_a_breaker_is_open_its_probe_is_the_next_try() {
    let open = breaker(BreakerKind::Endpoint, "app", Some(NOW));
    let planned = Some(Timestamp(NOW.0 + 3_600_000));
    assert_eq!(next_attempt(planned, Some(&open)), open.probe_at);
    assert_eq!(next_attempt(planned, None), planned);
}

#[test]
fn a_source_whose_breaker_was_opened_says_when_it_is_asked_again() {
    let watch = watch();
    let open = breaker(BreakerKind::Source, watch.source.as_str(), Some(NOW));
    let reason = "status 503; it is asked again at 2027-01-15T08:05:10.000Z".to_owned();
    assert_eq!(stands(&watch, &[], &[open]), ("source_failing", reason));
}

#[test]
fn a_branch_of_a_pattern_that_vanished_is_finished() {
    let mut watch = watch();
    watch.selector = Selector { kind: SelectorKind::BranchPattern, value: "**".into() };
    watch.cursors = vec![cursor(1), cursor(2)];
    watch.cursors[0].state = CursorState::BranchMissing;
    watch.cursors[0].behind_since = Some(Timestamp(ROUND));
    assert_eq!(stands(&watch, &[], &[]).0, "pending", "its files are not deleted yet");
    watch.cursors[0].behind_since = None;
    assert_eq!(stands(&watch, &[], &[]), ("active", String::new()));
    watch.cursors[1].state = CursorState::BranchMissing;
    let reason = "no branch of the repository matches `**`".to_owned();
    assert_eq!(stands(&watch, &[], &[]), ("unmatched", reason));
    watch.selector = Selector { kind: SelectorKind::Branch, value: "1".into() };
    watch.cursors.truncate(1);
    let reason = "refs/heads/1: the branch is not in the repository".to_owned();
    assert_eq!(stands(&watch, &[], &[]), ("branch_missing", reason));
}

#[test]
fn a_pause_that_the_host_asked_for_is_named_also_by_watches_that_were_answered() {
    let watch = watch();
    for (is_anonymous, requests) in [(true, "requests without a credential"), (false, "this credential")] {
        let until = Timestamp(NOW.0 + 60_000);
        let stands_at = |now| {
            let pause = Some(HostPause { until, is_anonymous });
            let polled = Polled { pause, ..Polled::default() };
            of(&Facts {
                watch: &watch,
                app_disabled: None,
                app_pulls: false,
                unclaimed: 0,
                breakers: &[],
                tries: &[],
                polled: Some(&polled),
                now,
            })
        };
        let Standing { state, reason } = stands_at(NOW);
        let expected = format!("the Git host asked {requests} to wait until 2027-01-15T08:05:10.000Z");
        assert_eq!((state, reason), (EffectiveState::SourceFailing, Some(expected)));
        assert_eq!(stands_at(until).state, EffectiveState::Active, "the pause is over");
    }
}

#[test]
fn a_watch_whose_refs_are_not_listed_does_not_pass_for_well() {
    let mut watch = watch();
    watch.selector = Selector { kind: SelectorKind::TagPattern, value: "v*".into() };
    let stands_with = |refs: &[&str]| {
        let unseen = Unseen {
            refs: refs.iter().map(|name| (*name).to_owned()).collect(),
            reason: "repository too large".into(),
        };
        let scanned = Scanned {
            at: NOW,
            took: Duration::from_millis(5),
            bytes: Some(0),
            outcome: "ok",
            reason: None,
            unseen: Some(unseen),
        };
        let polled = Polled { last: Some(scanned.into()), ..Polled::default() };
        let facts = Facts {
            watch: &watch,
            app_disabled: None,
            app_pulls: false,
            unclaimed: 0,
            breakers: &[],
            tries: &[],
            polled: Some(&polled),
            now: NOW,
        };
        of(&facts)
    };
    let Standing { state, reason } = stands_with(&["refs/tags/", "refs/heads/x"]);
    assert_eq!(state, EffectiveState::SourceFailing);
    assert_eq!(
        reason.as_deref(),
        Some("refs that the app follows are not known (refs/tags/): repository too large")
    );
    assert_eq!(stands_with(&["refs/heads/x"]).state, EffectiveState::Active, "that is another app's");
}
