//! Subscriptions as rows: what waits for whom, and that a position rises only from where it was read.

use std::time::Duration;

use tidings_actors::{
    model::secret::Secret,
    model::sink::SinkAddress,
    ports::{
        AppPatch, AppStore, AttemptOutcome, DeliverySettings, EndpointAccess, Fence, Gap, MailRange, NewSink,
        NewSubscription, Reach, ReadFrom, RefusedRecipient, SUBSCRIPTIONS_MAX, SendFailure, SentFrom, Shard,
        SinkKey, Store, StoreError, SubscriberStore, SubscriptionAttempt, SubscriptionEvent,
        SubscriptionName, SubscriptionPatch, Subscriptions, sink_of, subscription_of,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, SubscriptionId},
    kind::{EntryType, SubscriptionState},
};
use ulid::Ulid;

use super::{
    home::{Home, on_both},
    new_app, number,
};
use crate::SqlStore;

const NOW: Timestamp = Timestamp(5_000);

fn id(number: u128) -> SubscriptionId {
    SubscriptionId::new(Ulid::from_parts(1, number))
}

/// Decided from this position, under the address that the sink of [`new`] has had from the beginning.
fn sent_from(position: i64) -> SentFrom {
    SentFrom { position, since: NOW }
}

fn new(app: &AppId, number: u128) -> NewSubscription {
    let sink = NewSink {
        id: sink_of(&id(number)),
        address: SinkAddress::Endpoint("https://ops.example/in".into()),
        access: EndpointAccess::default(),
        delivery: DeliverySettings::default(),
        signing_key: Some(Secret::new("first key of this sink".into())),
    };
    NewSubscription {
        id: id(number),
        app: app.clone(),
        name: format!("s{number}"),
        filter: String::new(),
        reads_rounds: true,
        sink,
        start: ReadFrom::Now,
        expires_at: None,
        created_at: NOW,
    }
}

/// Has an entry written: the app is disabled, and enabled again. Within a minute only the first is told.
async fn write_entry(store: &SqlStore, app: &AppId) {
    for disabled in [Some("by hand".to_owned()), None] {
        let patch = AppPatch { disabled: Some(disabled), ..AppPatch::default() };
        store.patch_app(app, &patch, NOW).await.expect("patched");
    }
}

/// A store with an app that has a subscription and one entry.
async fn scene(home: &Home) -> (SqlStore, AppId) {
    let store = home.open(1).await.expect("opened");
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    store.create_subscription(&new(&app, 1)).await.expect("made");
    write_entry(&store, &app).await;
    (store, app)
}

async fn behind(store: &SqlStore, now: Timestamp) -> Vec<SubscriptionId> {
    let found = store.subscriptions_behind(&Reach::All, now).await.expect("read");
    found.into_iter().map(|(id, _)| id).collect()
}

fn attempt(
    entry: i64,
    result: Result<u16, SendFailure>,
    next_at: Option<Timestamp>,
) -> Box<SubscriptionAttempt> {
    let outcome = AttemptOutcome {
        result,
        retry_after: None,
        excerpt: "said".into(),
        took: Duration::from_millis(3),
        answer: None,
    };
    Box::new(SubscriptionAttempt {
        message: format!("ent_{entry}"),
        entry,
        entry_at: NOW,
        number: 0,
        outcome,
        is_of_message: false,
        at: NOW,
        next_at,
    })
}

async fn patched(store: &SqlStore, app: &AppId, patch: SubscriptionPatch) {
    store.change_subscription(app, &id(1), &patch, NOW).await.expect("changed");
}

async fn types(store: &SqlStore, app: &AppId) -> Vec<EntryType> {
    use tidings_actors::ports::{LedgerFilter, Ledgers};
    let all = store.entries_between(app, &LedgerFilter::default(), 0, i64::MAX, 100).await;
    all.expect("entries").found.into_iter().map(|entry| entry.entry_type).collect()
}

async fn a_filter_without_matches_is_read_in_steps(home: Home) {
    let store = home.open(1).await.expect("opened");
    store.create_app(&new_app(1)).await.expect("created");
    let app = new_app(1).id;
    let new = NewSubscription { filter: "data:~nothing".into(), ..new(&app, 1) };
    store.create_subscription(&new).await.expect("made");
    write_entry(&store, &app).await;
    let raw = home.raw().await;
    for text in [
        "update ledger set last = 12000",
        "insert into entry (app_id, number, at, type, subject, origin_kind, origin, data)
         with recursive n(i) as (select 2 union all select i + 1 from n where i < 12000)
         select e.app_id, n.i, e.at, e.type, e.subject, e.origin_kind, e.origin, e.data
         from n cross join entry e where e.number = 1",
    ] {
        sea_orm::ConnectionTrait::execute_unprepared(&raw, text).await.expect("written");
    }
    for (to, position) in [(10_000, 0), (12_000, 10_000)] {
        let work = store.subscription_work(&id(1), NOW, 64).await.expect("read").expect("there");
        assert_eq!((work.entries.len(), work.to, work.subscription.position), (0, to, position));
        let passed = SubscriptionEvent::Passed { to };
        assert!(store.note_subscription(&id(1), sent_from(position), &passed).await.expect("noted"));
    }
    assert!(behind(&store, NOW).await.is_empty());
}

async fn the_position_rises_only_from_where_it_was_read(home: Home) {
    let (store, app) = scene(&home).await;
    let sent = |number| SubscriptionEvent::Sent { number, attempt: attempt(number, Ok(200), None) };
    for (from, number, moves, position) in
        [(7, 9, false, 0), (0, 1, true, 1), (0, 1, false, 1), (1, 0, true, 1)]
    {
        assert_eq!(
            store.note_subscription(&id(1), sent_from(from), &sent(number)).await.expect("noted"),
            moves
        );
        let now = store.subscription(&app, &SubscriptionName::Id(id(1))).await.expect("found");
        assert_eq!(now.position, position, "from {from} to {number}");
    }
    let tries = store.subscription_attempts(&id(1), Some(1), None, 10).await.expect("read");
    let numbers: Vec<u32> = tries.iter().map(|one| one.number).collect();
    assert_eq!(numbers, [2, 1], "a try is remembered even where the position was moved meanwhile");
    // Under a lease that does not stand nothing changes.
    let fence = Fence { shard: Shard::of_app(&app), epoch: 99, owner: Ulid::from_parts(9, 9) };
    let lost = Store::under(&store, fence).note_subscription(&id(1), sent_from(1), &sent(2)).await;
    assert!(matches!(lost, Err(StoreError::Lost)), "{lost:?}");
    let gone = store.note_subscription(&id(2), sent_from(0), &sent(1)).await;
    assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
}

async fn who_waits_for_an_entry_is_found_and_nobody_else(home: Home) {
    let (store, app) = scene(&home).await;
    assert_eq!(behind(&store, NOW).await, [id(1)]);
    let of_app = Reach::These(vec![Shard::of_app(&app)]);
    let others = Reach::These(Shard::all().filter(|shard| *shard != Shard::of_app(&app)).collect());
    assert_eq!(store.subscriptions_behind(&of_app, NOW).await.expect("read").len(), 1);
    assert_eq!(store.subscriptions_behind(&others, NOW).await.expect("read").len(), 0);

    let later = Timestamp(NOW.0 + 10);
    let failed =
        SubscriptionEvent::Failed { blocked: None, thaws: false, attempt: attempt(1, Ok(503), Some(later)) };
    assert!(store.note_subscription(&id(1), sent_from(0), &failed).await.expect("noted"));
    assert_eq!(behind(&store, NOW).await, [], "it waits for its next try");
    assert_eq!(behind(&store, later).await, [id(1)]);
    let before = Timestamp(NOW.0 - 3_600_000);
    assert_eq!(behind(&store, before).await, [id(1)], "the clock was set back");

    let paused = |is_paused| SubscriptionPatch { is_paused: Some(is_paused), ..SubscriptionPatch::default() };
    patched(&store, &app, paused(true)).await;
    assert_eq!(behind(&store, later).await, []);
    patched(&store, &app, paused(false)).await;
    assert_eq!(behind(&store, NOW).await, [id(1)], "resumed, its wait is over");

    let ends = SubscriptionPatch { expires_at: Some(Some(later)), ..SubscriptionPatch::default() };
    patched(&store, &app, ends).await;
    assert_eq!(behind(&store, NOW).await, [id(1)]);
    assert_eq!(behind(&store, later).await, [], "its time is over");
    assert_eq!(store.expire_subscriptions(NOW).await.expect("looked"), 0);
    assert_eq!(store.expire_subscriptions(later).await.expect("looked"), 1);
    let now = store.subscription(&app, &SubscriptionName::Name("s1".into())).await.expect("found");
    assert_eq!(now.state, SubscriptionState::Expired);
    let endless = SubscriptionPatch { expires_at: Some(None), ..SubscriptionPatch::default() };
    patched(&store, &app, endless).await;
    assert_eq!(behind(&store, later).await, [id(1)]);

    let served = store.subscription_work(&id(1), NOW, 10).await.expect("read").expect("there");
    assert_eq!(served.entries.len(), 1);
    let key = served.app.sink_key();
    assert!(store.disable_gone(&key, served.app.endpoint_since).await.expect("written"));
    assert_eq!(behind(&store, later).await, [], "its sink is gone");
    patched(&store, &app, paused(false)).await;
    assert_eq!(behind(&store, later).await, [id(1)]);
}

async fn a_block_a_skip_and_a_gap_are_told_and_none_of_them_is_sent(home: Home) {
    let (store, app) = scene(&home).await;
    let blocked = || SubscriptionEvent::Failed {
        thaws: false,
        blocked: Some("status 503".into()),
        attempt: attempt(1, Ok(503), Some(NOW)),
    };
    for _ in 0..3 {
        assert!(store.note_subscription(&id(1), sent_from(0), &blocked()).await.expect("noted"));
    }
    let now = store.subscription(&app, &SubscriptionName::Id(id(1))).await.expect("found");
    assert_eq!(
        (now.state, now.tries, now.reason.as_deref()),
        (SubscriptionState::Blocked, 3, Some("status 503"))
    );
    // An entry that was tried ahead of its turn moves nothing, also if the sink took it.
    let behind = SubscriptionEvent::TriedBehind { attempt: attempt(3, Ok(200), None) };
    assert!(store.note_subscription(&id(1), sent_from(0), &behind).await.expect("noted"));
    let same = store.subscription(&app, &SubscriptionName::Id(id(1))).await.expect("found");
    assert_eq!((same.state, same.tries, same.position), (SubscriptionState::Blocked, 3, 0));
    let tries = store.subscription_attempts(&id(1), Some(3), None, 10).await.expect("read");
    assert_eq!((tries.len(), tries[0].outcome.result), (1, Ok(200)));
    let skipped = SubscriptionEvent::Skipped {
        number: 1,
        reason: "status 422".into(),
        attempt: attempt(1, Ok(422), None),
    };
    assert!(store.note_subscription(&id(1), sent_from(0), &skipped).await.expect("noted"));
    let now = store.subscription(&app, &SubscriptionName::Id(id(1))).await.expect("found");
    assert_eq!((now.state, now.tries, now.skips, now.position), (SubscriptionState::Active, 0, 1, 1));
    assert!(store.note_subscription(&id(1), sent_from(1), &behind).await.expect("noted"));
    let now = store.subscription(&app, &SubscriptionName::Id(id(1))).await.expect("found");
    assert_eq!((now.skips, now.position), (0, 1), "the sink took an entry between two that it refuses");
    let gap = Gap { first: 2, last: 2 };
    let told = SubscriptionEvent::GapTold { gap, refused: None, attempt: attempt(2, Ok(200), None) };
    assert!(store.note_subscription(&id(1), sent_from(1), &told).await.expect("noted"));
    assert_eq!(
        types(&store, &app).await,
        [
            EntryType::SinkDisabled,
            EntryType::SubscriptionBlocked,
            EntryType::SubscriptionSkipped,
            EntryType::SubscriptionGap
        ],
        "a block is told once, and its end after a minute"
    );
    let work = store.subscription_work(&id(1), NOW, 10).await.expect("read").expect("there");
    assert!(work.entries.is_empty() && work.to == 4, "{work:?}");
    assert_eq!(store.sendable_entry(&app, 2).await.expect("read"), None);
}

async fn an_app_has_so_many_and_each_goes_with_its_sink_and_its_tries(home: Home) {
    let (store, app) = scene(&home).await;
    let same = NewSubscription { name: "s1".into(), ..new(&app, 2) };
    assert!(matches!(store.create_subscription(&same).await, Err(StoreError::Conflict(_))));
    for number in 2..=u128::from(SUBSCRIPTIONS_MAX) {
        store.create_subscription(&new(&app, number)).await.expect("made");
    }
    let refused = store.create_subscription(&new(&app, 1_000)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert_eq!(subscription_of(&sink_of(&id(7))), id(7));
    let sent = SubscriptionEvent::Sent { number: 1, attempt: attempt(1, Ok(200), None) };
    assert!(store.note_subscription(&id(1), sent_from(0), &sent).await.expect("noted"));
    store.remove_subscription(&app, &id(1)).await.expect("removed");
    let raw = home.raw().await;
    let count = |table: &str| format!("select count(*) from {table}");
    assert_eq!(number(&raw, &count("attempt")).await, 0);
    assert_eq!(number(&raw, &count("sink")).await, i64::try_from(SUBSCRIPTIONS_MAX).expect("few") - 1);
    store.erase_app(&app).await.expect("erased");
    for table in ["subscription", "sink", "attempt"] {
        assert_eq!(number(&raw, &count(table)).await, 0, "{table}");
    }
}

async fn a_mail_is_frozen_before_it_is_sent_and_keeps_its_subscription_quiet(home: Home) {
    let (store, app) = scene(&home).await;
    let mut mailed = new(&app, 2);
    mailed.sink.address = SinkAddress::of_mail(&["ops@example.org".into(), "gone@example.org".into()]);
    mailed.start = ReadFrom::Number(1);
    store.create_subscription(&mailed).await.expect("made");
    let shown = async || store.subscription(&app, &SubscriptionName::Id(id(2))).await.expect("found");
    let range = MailRange { first: 1, last: 1 };
    let frozen = SubscriptionEvent::Frozen { range };
    assert!(store.note_subscription(&id(2), sent_from(0), &frozen).await.expect("noted"));
    assert_eq!(shown().await.mail, Some(range));
    let failed =
        |thaws| SubscriptionEvent::Failed { blocked: None, thaws, attempt: attempt(1, Ok(503), Some(NOW)) };
    assert!(store.note_subscription(&id(2), sent_from(0), &failed(false)).await.expect("noted"));
    assert_eq!(shown().await.mail, Some(range), "the server may have it: it stays the same mail");
    assert!(store.note_subscription(&id(2), sent_from(0), &failed(true)).await.expect("noted"));
    assert_eq!(shown().await.mail, None, "the next try may tell of more");
    assert!(store.note_subscription(&id(2), sent_from(0), &frozen).await.expect("noted"));
    let name = SubscriptionPatch { name: Some("other".into()), ..SubscriptionPatch::default() };
    store.change_subscription(&app, &id(2), &name, NOW).await.expect("changed");
    assert_eq!(shown().await.mail, Some(range), "a name says nothing of the mail");

    let later = Timestamp(NOW.0 + 600_000);
    let sent = SubscriptionEvent::Mailed {
        range,
        entries: 1,
        gap: None,
        refused: vec![RefusedRecipient { to: "gone@example.org".into(), reason: "550 no".into() }],
        taken_by: vec!["ops@example.org".into()],
        quiet_until: later,
        attempt: attempt(1, Ok(250), None),
    };
    assert!(store.note_subscription(&id(2), sent_from(0), &sent).await.expect("noted"));
    assert!(!store.note_subscription(&id(2), sent_from(0), &sent).await.expect("noted"), "once");
    let now = shown().await;
    assert_eq!((now.position, now.mail, now.quiet_until), (1, None, Some(later)));
    let told = [EntryType::SinkDisabled, EntryType::MailSent, EntryType::MailFailed];
    assert_eq!(types(&store, &app).await, told, "whom it went to, and whom not");
    assert!(!behind(&store, NOW).await.contains(&id(2)), "entries wait, and it keeps quiet");
    assert!(behind(&store, later).await.contains(&id(2)));
    let before = Timestamp(NOW.0 - 3_600_000);
    assert!(
        behind(&store, before).await.contains(&id(2)),
        "the clock was set back: no wait is longer for it"
    );
    let work = store.subscription_work(&id(2), before, 10).await.expect("read").expect("there");
    assert_eq!(work.subscription.quiet_until, None);
    let work = store.subscription_work(&id(2), NOW, 10).await.expect("read").expect("there");
    assert!(work.entries.is_empty(), "no mail tells of mails: {work:?}");
    let filter = SubscriptionPatch {
        filter: Some(("type:mail.failed".into(), false)),
        ..SubscriptionPatch::default()
    };
    assert!(store.note_subscription(&id(2), sent_from(1), &frozen).await.expect("noted"));
    store.change_subscription(&app, &id(2), &filter, NOW).await.expect("changed");
    let now = shown().await;
    assert_eq!(
        (now.mail, now.quiet_until),
        (None, Some(later)),
        "another filter is another mail, not sooner"
    );
}

async fn a_failed_mail_is_told_with_its_recipients_and_the_reason_of_each(home: Home) {
    let (store, app) = scene(&home).await;
    let to = |name: &str| format!("{name}@example.org");
    let mut mailed = new(&app, 2);
    mailed.sink.address = SinkAddress::of_mail(&[to("a"), to("b"), to("c")]);
    mailed.start = ReadFrom::Number(1);
    store.create_subscription(&mailed).await.expect("made");
    let refused = |name: &str, reason: &str| RefusedRecipient { to: to(name), reason: reason.into() };
    // One recipient takes the mail, two refuse it; then the server refuses the next mail itself.
    for (number, status, refused, taken_by) in [
        (1, 250, vec![refused("b", "550 no"), refused("c", "450 later")], vec![to("a")]),
        (2, 554, vec![refused("b", "550 no")], vec![]),
    ] {
        let mut attempt = attempt(number, Ok(status), None);
        attempt.outcome.excerpt = "554 spam".into();
        let range = MailRange { first: number, last: number };
        let quiet_until = NOW;
        let event = SubscriptionEvent::Mailed {
            range,
            entries: 1,
            gap: None,
            refused,
            taken_by,
            quiet_until,
            attempt,
        };
        assert!(store.note_subscription(&id(2), sent_from(number - 1), &event).await.expect("noted"));
    }
    use tidings_actors::ports::{LedgerFilter, Ledgers};
    let filter = LedgerFilter { types: vec![EntryType::MailFailed], ..LedgerFilter::default() };
    let found = store.entries_between(&app, &filter, 0, i64::MAX, 100).await.expect("read").found;
    let mut told: Vec<String> = Vec::new();
    for entry in found {
        let data: serde_json::Value = serde_json::from_str(&entry.data).expect("an object");
        told.push(format!("{} {} {}", data["first"], data["to"], data["reason"]));
    }
    assert_eq!(
        told,
        [
            r#"1 ["c@example.org"] "450 later""#,
            r#"1 ["b@example.org"] "550 no""#,
            r#"2 ["b@example.org"] "550 no""#,
            r#"2 ["a@example.org","c@example.org"] "554 spam""#,
        ]
    );
}

async fn a_sink_that_is_gone_is_told_with_the_name_of_its_subscription(home: Home) {
    use tidings_actors::ports::{LedgerFilter, Ledgers};
    let (store, app) = scene(&home).await;
    let sink = sink_of(&id(1));
    let key = SinkKey { app: app.clone(), sink: Some(sink.clone()) };
    assert!(store.disable_gone(&key, NOW).await.expect("written"));
    let types = vec![EntryType::SinkDisabled];
    let filter = LedgerFilter { types, subject: Some(sink.to_string()), ..LedgerFilter::default() };
    let found = store.entries_between(&app, &filter, 0, i64::MAX, 100).await.expect("read").found;
    let data: serde_json::Value = serde_json::from_str(&found[0].data).expect("an object");
    assert_eq!((found.len(), data["subscription"].as_str()), (1, Some("s1")), "{data}");
}

on_both! {
    a_sink_that_is_gone_is_told_with_the_name_of_its_subscription
    a_failed_mail_is_told_with_its_recipients_and_the_reason_of_each
    a_filter_without_matches_is_read_in_steps
    the_position_rises_only_from_where_it_was_read
    who_waits_for_an_entry_is_found_and_nobody_else
    a_block_a_skip_and_a_gap_are_told_and_none_of_them_is_sent
    an_app_has_so_many_and_each_goes_with_its_sink_and_its_tries
    a_mail_is_frozen_before_it_is_sent_and_keeps_its_subscription_quiet
}
