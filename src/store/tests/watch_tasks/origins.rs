//! Each type of entry of a ledger, made once: where it came from.

use tidings_actors::ports::{
    AppPatch, AttemptOutcome, BreakerRow, Gap, LedgerFilter, Ledgers, MailRange, NewSubscription, NewTask,
    Origin, Reach, ReadFrom, RefusedRecipient, ScheduleSettings, ScheduleStore, SentFrom, SourceStore,
    StatusKey, StatusStore, StatusVerdict, SubscriberStore, SubscriptionAttempt, SubscriptionEvent,
    Subscriptions, UpkeepStore, sink_of,
};
use tidings_entity::{
    id::SubscriptionId,
    kind::{BreakerKind, EntryType, MissedTicks, OriginKind, TickOverlap},
};

use super::*;
use crate::ledger;

/// What the entries of a type come from here. Without a request, what a person may do comes from outside.
fn origin_of(entry_type: EntryType) -> OriginKind {
    match entry_type {
        EntryType::RoundBegan | EntryType::RoundEnded | EntryType::LetterParked => OriginKind::Commit,
        EntryType::ScheduleMissed => OriginKind::Tick,
        // The task here was created by a person.
        EntryType::TaskDead | EntryType::TaskEnded => OriginKind::Person,
        EntryType::SourceFailing
        | EntryType::SourceRecovered
        | EntryType::WatchBlocked
        | EntryType::WatchRecovered
        | EntryType::WatchPaused
        | EntryType::WatchResumed
        | EntryType::SinkDisabled
        | EntryType::SinkEnabled
        | EntryType::SinkOpened
        | EntryType::SinkClosed
        | EntryType::SubscriptionBlocked
        | EntryType::SubscriptionRecovered
        | EntryType::SubscriptionSkipped
        | EntryType::SubscriptionGap
        | EntryType::MailSent
        | EntryType::MailFailed
        | EntryType::StatusEnded
        | EntryType::LedgerRestored => OriginKind::Outside,
    }
}

/// Whether entries of a type end a state, and so name the entry that began it.
fn is_end(entry_type: EntryType) -> bool {
    matches!(
        entry_type,
        EntryType::SourceRecovered
            | EntryType::WatchRecovered
            | EntryType::WatchResumed
            | EntryType::SinkEnabled
            | EntryType::SinkClosed
            | EntryType::SubscriptionRecovered
    )
}

fn subscription(number: u128) -> SubscriptionId {
    SubscriptionId::new(Ulid::from_parts(1, number))
}

fn attempt(entry: i64, status: u16) -> Box<SubscriptionAttempt> {
    let outcome = AttemptOutcome {
        result: Ok(status),
        retry_after: None,
        excerpt: "said".into(),
        took: Duration::from_millis(3),
        answer: None,
    };
    Box::new(SubscriptionAttempt {
        message: format!("ent_{entry}"),
        entry,
        entry_at: START,
        number: 0,
        outcome,
        is_of_message: false,
        at: START,
        next_at: None,
    })
}

impl Desk {
    async fn subscribe(&self, number: u128, address: SinkAddress, start: ReadFrom) {
        let id = subscription(number);
        let sink = NewSink {
            id: sink_of(&id),
            address,
            access: EndpointAccess::default(),
            delivery: DeliverySettings::default(),
            signing_key: None,
        };
        let new = NewSubscription {
            id,
            app: app(),
            name: format!("s{number}"),
            filter: String::new(),
            reads_rounds: true,
            sink,
            start,
            expires_at: None,
            created_at: START,
        };
        self.store.create_subscription(&new).await.expect("subscribed");
    }

    async fn noted(&self, number: u128, position: i64, event: SubscriptionEvent) {
        let from = SentFrom { position, since: START };
        assert!(self.store.note_subscription(&subscription(number), from, &event).await.expect("noted"));
    }

    /// A round whose one change is given up, and a task of a person that dies.
    async fn round_and_tasks(&self) {
        let round = self.begin(0, 1).await;
        assert_eq!(self.hand_over(&round).await, 1);
        let task = self.claim(1).await.remove(0);
        self.say(&task.token, TaskMove::Fail("no".into())).await.expect("failed");
        let ended = self.store.finish_round(&self.cursor, round.number, START, false).await;
        assert!(ended.expect("written"), "every change is settled");
        let task = NewTask {
            id: TaskId::new(Ulid::from_parts(9, 9)),
            command: COMMAND.into(),
            payload: "{}".into(),
            priority: 0,
            max_attempts: Some(1),
            run_at: None,
            delay: None,
            key: None,
            origin: Origin { kind: OriginKind::Person, name: "tok_a".into() },
            callback: Some("https://ops.example/ended".into()),
        };
        self.store.create_tasks(&app(), vec![task]).await.expect("written").expect("created");
        let task = self.claim(1).await.remove(0);
        self.say(&task.token, TaskMove::Nack { delay: None, reason: None }).await.expect("given back");
    }

    /// Every state of a watch, a sink and a source becomes bad, or good again.
    async fn states(&self, is_bad: bool) {
        let reason = is_bad.then_some("ten in a row");
        self.store.set_blocked(&self.cursor, reason).await.expect("written");
        self.patch(if is_bad { WatchState::Paused } else { WatchState::Active }).await;
        let patch = AppPatch { disabled: Some(reason.map(str::to_owned)), ..AppPatch::default() };
        self.store.patch_app(&app(), &patch, START).await.expect("patched");
        let all = self.store.repositories(&Reach::All).await.expect("repositories");
        let source = all.into_iter().flat_map(|(_, sources)| sources).next().expect("a source").id;
        for (kind, id) in
            [(BreakerKind::Endpoint, app().to_string()), (BreakerKind::Source, source.to_string())]
        {
            let breaker = BreakerRow {
                kind,
                id,
                failures: if is_bad { 5 } else { 0 },
                opened_at: is_bad.then_some(START),
                probe_at: None,
                last_error: "status 503".to_owned(),
            };
            self.store.record_breaker(&breaker).await.expect("recorded");
        }
    }

    /// A Git host refuses the status of a commit for good.
    async fn status(&self) {
        let (watch, commit) = (self.watch.id.clone(), ObjectId::new([1; 20]));
        let text = format!(
            "insert into commit_status (watch_id, commit_id, app_id, repository_id, cursor_id, kind, host,
               url, context, wanted, description, tries, count, next_at, is_claimed, updated_at)
             values ('{watch}', '{commit}', '{}', 'rep_{}', '{}', 'gitea', 'git.example',
               'https://git.example/a/b', 'tidings/a/b', 'pending', 'a: 0 of 1', 0, 0, 5, true, 5)",
            app(),
            Ulid::from_parts(1, 1),
            self.cursor
        );
        crate::database::rows::execute(&self.home.raw().await, "commit_status", &text, vec![])
            .await
            .expect("a row");
        let verdict = StatusVerdict::Ended { reason: "refused".into(), status: Some(403), shows: None };
        let key = StatusKey { watch, commit };
        self.store.note_status(&key, &verdict, START).await.expect("noted");
    }

    /// One of two recipients takes a mail.
    async fn mail(&self) {
        let (taken, refused) = ("ops@example.org", "gone@example.org");
        let address = SinkAddress::of_mail(&[taken.into(), refused.into()]);
        self.subscribe(2, address, ReadFrom::Number(1)).await;
        let sent = SubscriptionEvent::Mailed {
            range: MailRange { first: 1, last: 1 },
            entries: 1,
            gap: None,
            refused: vec![RefusedRecipient { to: refused.into(), reason: "550 no".into() }],
            taken_by: vec![taken.into()],
            quiet_until: START,
            attempt: attempt(1, 250),
        };
        self.noted(2, 0, sent).await;
    }
}

async fn every_type_of_entry_has_an_origin(home: Home) {
    let desk = Desk::new(home, 10).await;
    desk.subscribe(1, SinkAddress::Endpoint("https://ops.example/in".into()), ReadFrom::Now).await;
    let hourly = ScheduleSettings {
        cron: "0 * * * *".into(),
        zone: "UTC".into(),
        missed: MissedTicks::One,
        overlap: TickOverlap::Allow,
        watch: None,
        command: "report".into(),
        payload: "{}".into(),
        priority: 0,
        max_attempts: None,
        callback: None,
    };
    desk.store.set_schedule(&app(), "hourly", &hourly).await.expect("set");
    desk.round_and_tasks().await;
    let blocked = SubscriptionEvent::Failed {
        thaws: false,
        blocked: Some("status 503".into()),
        attempt: attempt(1, 503),
    };
    desk.noted(1, 0, blocked).await;
    desk.states(true).await;
    // Within a minute the end of a state is folded.
    desk.clock.advance(Duration::from_secs(5 * 3_600));
    desk.states(false).await;
    let (number, reason) = (1, "status 422".into());
    desk.noted(1, 0, SubscriptionEvent::Skipped { number, reason, attempt: attempt(1, 422) }).await;
    let gap = Gap { first: 2, last: 2 };
    desk.noted(1, 1, SubscriptionEvent::GapTold { gap, refused: None, attempt: attempt(2, 200) }).await;
    desk.mail().await;
    desk.status().await;
    desk.store.wake_tasks().await.expect("looked");
    let raw = desk.home.raw().await;
    let at = START.after(Duration::from_secs(6 * 3_600));
    ledger::restored(&raw, &SeededRandom::new(9), START, at).await.expect("restored");

    let all = desk.store.entries_between(&app(), &LedgerFilter::default(), 0, i64::MAX, 1_000).await;
    let all = all.expect("entries").found;
    for entry_type in EntryType::ALL {
        let of_type: Vec<_> = all.iter().filter(|entry| entry.entry_type == *entry_type).collect();
        assert!(!of_type.is_empty(), "no {entry_type} was made: {all:#?}");
        for entry in of_type {
            assert_eq!(entry.origin.kind, origin_of(*entry_type), "{entry:?}");
            assert!(!entry.origin.name.is_empty(), "{entry:?}");
            assert_eq!(entry.cause.is_some(), is_end(*entry_type), "{entry:?}");
        }
    }
}

on_both! {
    every_type_of_entry_has_an_origin
}
