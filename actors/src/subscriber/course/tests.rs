//! Every answer, and every place where a subscription may stand.

use std::sync::Arc;

use tidings_entity::{
    id::{AppId, LedgerId},
    kind::{EntryType, OriginKind, RetryPolicy},
};
use ulid::Ulid;

use super::*;
use crate::{
    model::sink::SinkAddress,
    ports::{
        App, DeliverySettings, EntryId, GONE, LedgerEnds, Origin, Subscription, SubscriptionMessage,
        WatchSink, sink_of,
    },
};

pub(crate) struct Most;
impl Random for Most {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0xff);
    }
    fn below(&self, bound: u64) -> u64 {
        bound.saturating_sub(1)
    }
}

pub(crate) const RULES: RetryRules = RetryRules {
    policy: RetryPolicy::Exponential,
    base: Duration::from_secs(1),
    cap: Duration::from_secs(3_600),
    window: Duration::from_secs(72 * 3_600),
};

pub(crate) fn outcome(result: Result<u16, SendFailure>) -> AttemptOutcome {
    AttemptOutcome { result, retry_after: None, excerpt: "no".to_owned(), took: Duration::ZERO, answer: None }
}

/// What follows in a word: how it stood is `tries refusals skips`.
fn follows(result: Result<u16, SendFailure>, (tries, refusals, skips): (u32, u32, u32)) -> &'static str {
    let standing = Standing { tries, refusals, skips, threshold: 5, is_last_chance: false };
    match consequence(&outcome(result), standing, &RULES, &Most) {
        Consequence::Sent => "sent",
        Consequence::Skip(_) => "skip",
        Consequence::Retry(_, None) => "retry",
        Consequence::Retry(_, Some(_)) => "block",
        Consequence::Gone => "gone",
    }
}

#[test]
fn a_refusal_passes_the_entry_over_and_an_endpoint_that_fails_keeps_it() {
    for (result, stood, expected) in [
        (Ok(200), (0, 0, 0), "sent"),
        (Ok(204), (9, 2, 10), "sent"),
        (Ok(410), (0, 0, 0), "gone"),
        (Ok(400), (0, 0, 0), "skip"),
        (Ok(422), (7, 0, SKIPS_MAX - 1), "skip"),
        (Ok(422), (0, 0, SKIPS_MAX), "block"),
        (Ok(409), (0, 0, 0), "retry"),
        (Ok(409), (2, 2, 0), "skip"),
        (Ok(401), (0, 0, 0), "retry"),
        (Ok(401), (1, 1, 0), "retry"),
        (Ok(401), (2, 2, 0), "block"),
        (Ok(404), (2, 2, 0), "block"),
        (Ok(500), (0, 0, 0), "retry"),
        (Ok(500), (4, 0, 0), "block"),
        (Ok(503), (3, 0, 0), "retry"),
        (Ok(503), (1_000, 0, 0), "block"),
        (Ok(429), (4, 0, 0), "block"),
        (Ok(302), (4, 0, 0), "block"),
        (Err(SendFailure::Timeout), (0, 0, 0), "retry"),
        (Err(SendFailure::Connection), (4, 0, 0), "block"),
        (Err(SendFailure::Cut), (4, 0, 0), "block"),
        (Err(SendFailure::Refused), (4, 0, 0), "block"),
    ] {
        assert_eq!(follows(result, stood), expected, "{result:?} at {stood:?}");
    }
}

#[test]
fn no_answer_but_a_refusal_ever_passes_an_entry_over() {
    let statuses = (100..600).map(Ok);
    let failures = [
        SendFailure::Timeout,
        SendFailure::Connection,
        SendFailure::Cut,
        SendFailure::Refused,
        SendFailure::InvalidUrl,
    ];
    for result in statuses.chain(failures.map(Err)) {
        for tries in [0, 1, 2, 4, 5, 100, u32::MAX] {
            for skips in [0, SKIPS_MAX, SKIPS_MAX + 1] {
                let skips_it = follows(result, (tries, tries.min(2), skips)) == "skip";
                let verdict = verdict(result);
                let may = matches!(verdict, Verdict::Refused | Verdict::Contested) && skips < SKIPS_MAX;
                assert!(!skips_it || may, "{result:?} after {tries} tries and {skips} skips");
            }
        }
    }
}

#[test]
fn what_is_blocked_is_probed_every_five_minutes_at_least_and_not_before_it_was_asked() {
    let standing = Standing { tries: 60, refusals: 2, skips: 0, threshold: 5, is_last_chance: false };
    let mut answer = outcome(Ok(503));
    let wait = |answer: &AttemptOutcome| match consequence(answer, standing, &RULES, &Most) {
        Consequence::Retry(wait, Some(reason)) => (wait, reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(&answer), (PROBE_WAIT_LAST, "status 503".to_owned()));
    answer.retry_after = Some(Duration::from_secs(1_000));
    assert_eq!(wait(&answer).0, Duration::from_secs(1_000));
}

pub(crate) fn entry(number: i64) -> LedgerEntry {
    LedgerEntry {
        id: EntryId { ledger: LedgerId::new(Ulid::from_parts(1, 1)), number },
        app: AppId::new(Ulid::from_parts(1, 1)),
        at: Timestamp(number),
        entry_type: EntryType::SinkClosed,
        watch: None,
        subject: "x".to_owned(),
        origin: Origin { kind: OriginKind::Outside, name: "endpoint".to_owned() },
        cause: None,
        data: "{}".to_owned(),
    }
}

/// At `position` of a ledger whose entries are `first..=last`, those of these numbers being meant.
pub(crate) fn work(position: i64, (first, last): (i64, i64), meant: &[i64]) -> SubscriptionWork {
    let id = tidings_entity::id::SubscriptionId::new(Ulid::from_parts(1, 2));
    let app = AppId::new(Ulid::from_parts(1, 1));
    let sink = WatchSink {
        id: sink_of(&id),
        address: SinkAddress::Endpoint("https://ops.example/in".to_owned()),
        has_access: false,
        delivery: DeliverySettings::default(),
        disabled: None,
    };
    let subscription = Subscription {
        id,
        app: app.clone(),
        name: "ops".to_owned(),
        filter: String::new(),
        reads_rounds: true,
        sink,
        position,
        last,
        state: SubscriptionState::Active,
        reason: None,
        tries: 0,
        skips: 0,
        next_at: None,
        mail: None,
        quiet_until: None,
        expires_at: None,
        created_at: Timestamp(0),
        callback: None,
    };
    let app = App {
        id: app,
        sink: None,
        name: "app".to_owned(),
        email: String::new(),
        is_from_anyone: false,
        receives_at: SinkAddress::Pull,
        website: None,
        description: None,
        keys: Vec::new(),
        access: Arc::default(),
        delivery: DeliverySettings::default(),
        disabled: None,
        endpoint_since: Timestamp(1),
        created_at: Timestamp(0),
    };
    let ends = LedgerEnds { name: LedgerId::new(Ulid::from_parts(1, 1)), first, last };
    let entries = meant.iter().map(|number| entry(*number)).collect();
    SubscriptionWork { subscription, app, ends: (last > 0).then_some(ends), entries, to: last }
}

#[test]
fn the_next_step_is_a_gap_then_the_next_entry_then_what_is_not_meant() {
    let now = Timestamp(1_000);
    let sends = |number| Next::Send(Box::new(entry(number)));
    for (work, expected) in [
        (work(0, (1, 0), &[]), Next::Rest),
        (work(0, (1, 3), &[2, 3]), sends(2)),
        (work(2, (1, 3), &[2, 3]), sends(3)),
        (work(3, (1, 3), &[2, 3]), Next::Rest),
        (work(2, (1, 9), &[]), Next::Pass(9)),
        (work(2, (7, 9), &[8]), Next::TellGap(Gap { first: 3, last: 6 })),
        (work(6, (7, 9), &[8]), sends(8)),
        // Everything that was ever written is gone.
        (work(2, (10, 9), &[]), Next::TellGap(Gap { first: 3, last: 9 })),
    ] {
        assert_eq!(next(&work, now), expected, "{:?}", (work.subscription.position, &work.ends));
    }
}

#[test]
fn a_gap_of_the_same_numbers_after_a_restore_has_another_id() {
    let subscription = work(2, (7, 9), &[8]).subscription;
    let id = |ledger: u128| {
        let (ledger, gap) = (LedgerId::new(Ulid::from_parts(1, ledger)), Gap { first: 3, last: 6 });
        SubscriptionMessage::of_gap(&subscription, &ledger, gap, Timestamp(1)).id.to_string()
    };
    assert_eq!(id(1), id(1), "each attempt has the same id");
    assert_ne!(id(1), id(2));
    assert!(id(1).starts_with("gap_") && id(1).ends_with("_3_6"), "{}", id(1));
}

#[test]
fn nothing_is_sent_for_one_that_is_paused_expired_or_whose_sink_is_gone() {
    let now = Timestamp(1_000);
    let mut paused = work(0, (1, 3), &[1]);
    paused.subscription.state = SubscriptionState::Paused;
    let mut expired = work(0, (1, 3), &[1]);
    expired.subscription.expires_at = Some(now);
    let mut gone = work(0, (1, 3), &[1]);
    gone.app.disabled = Some(GONE.to_owned());
    for work in [paused, expired, gone] {
        assert_eq!(next(&work, now), Next::End);
    }
    let mut blocked = work(0, (1, 3), &[1]);
    blocked.subscription.state = SubscriptionState::Blocked;
    assert!(matches!(next(&blocked, now), Next::Send(_)), "it is probed");
}
