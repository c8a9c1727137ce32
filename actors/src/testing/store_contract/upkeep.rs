//! What every store must keep of pins, breakers, blobs, history and totals.

use std::{collections::BTreeMap, time::Duration};

use tidings_entity::{
    id::Sha256Hash,
    kind::{BreakerKind, ParkReason, WatchState},
};

use super::world::{MAIN, World, commit, listing};
use crate::{
    model::sink::SinkAddress,
    ports::{
        AppLate, AppPatch, Backlog, BlobFacts, BreakerRow, LAG_BOUNDS, LATE, RoundFilter, ScanTrouble, Store,
        Totals, WatchPatch,
    },
    time::Timestamp,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Held and both ends of open rounds, of this repository only.
pub async fn pins_are_what_rounds_need(store: &dyn Store) {
    let world = World::new(store);
    let (_, watch, cursor) = world.watched().await;
    let app = world.app().await;
    let mut elsewhere = world.new_watch(&app);
    elsewhere.url = "https://git.example/else".into();
    elsewhere.start = crate::ports::Start::At(commit(99));
    store.register_watch(&elsewhere).await.expect("registered");
    assert!(store.pins(&watch.repository).await.expect("pins").is_empty());
    world.sync(&cursor, 1).await;
    assert_eq!(store.pins(&watch.repository).await.expect("pins"), [commit(1)]);
    let round = world.begin(&cursor, 2, 1).await;
    assert_eq!(store.pins(&watch.repository).await.expect("pins"), [commit(1), commit(2)]);
    world.finish(&round).await;
    assert_eq!(store.pins(&watch.repository).await.expect("pins"), [commit(2)]);
}

/// Of all who ask at once, one probes.
pub async fn the_probe_of_a_breaker_goes_to_one_caller(store: &dyn Store) {
    let probe =
        |now: i64| store.try_probe(BreakerKind::Endpoint, "app", Timestamp(now), Timestamp(now + 100));
    assert!(!probe(0).await.expect("asked"), "there is no breaker");
    let mut row = BreakerRow {
        kind: BreakerKind::Endpoint,
        id: "app".into(),
        failures: 3,
        opened_at: None,
        probe_at: None,
        last_error: "refused".into(),
    };
    store.record_breaker(&row).await.expect("recorded");
    assert!(!probe(0).await.expect("asked"), "it is closed");
    row.opened_at = Some(Timestamp(1000));
    row.probe_at = Some(Timestamp(1005));
    store.record_breaker(&row).await.expect("recorded");
    let unheard = BreakerRow { failures: 1, opened_at: None, probe_at: None, ..row.clone() };
    store.record_breaker(&unheard).await.expect("recorded");
    let known = store.breakers().await.expect("breakers");
    assert_eq!(known, [row.clone()], "who has not heard that it opened does not close it");
    assert!(!probe(1004).await.expect("asked"), "too early");
    let asked = futures_util::future::join_all([probe(1005), probe(1005), probe(1005)]).await;
    let taken = asked.into_iter().filter(|taken| *taken.as_ref().expect("asked")).count();
    assert_eq!(taken, 1);
    assert!(probe(1105).await.expect("asked"), "the next one");
    row.failures = 0;
    store.record_breaker(&row).await.expect("recorded");
    assert!(store.breakers().await.expect("breakers").is_empty());
}

/// Unknown blobs are gaps, repeats are repeats.
pub async fn blobs_are_answered_in_order(store: &dyn Store) {
    let facts = |number: u8| BlobFacts {
        sha256: Sha256Hash::of(&[number]),
        size: u64::from(number),
        text: number.is_multiple_of(2),
    };
    let known: Vec<_> = (0..=200).map(|number| (commit(number), facts(number))).collect();
    store.remember_blobs(&known, Timestamp(1)).await.expect("remembered");
    store.remember_blobs(&known[..3], Timestamp(2)).await.expect("remembered again");
    let asked = [commit(7), commit(250), commit(8), commit(7)];
    let answers = store.blob_facts(&asked).await.expect("facts");
    assert_eq!(answers, [Some(facts(7)), None, Some(facts(8)), Some(facts(7))]);
    let many: Vec<_> = (0..=255).chain(0..=255).map(commit).collect();
    let answers = store.blob_facts(&many).await.expect("facts");
    assert_eq!(answers.iter().flatten().count(), 402);
    assert!(store.blob_facts(&[]).await.expect("facts").is_empty());
    store.remember_blobs(&[], Timestamp(1)).await.expect("nothing");
}

/// Old history and unused blobs go, at most a number at once; open rounds and letters stay.
pub async fn history_goes_but_nothing_that_is_needed(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    world.sync(&cursor, 1).await;
    let letters = world.parked(&cursor, 2, &["a"]).await;
    let open = world.begin(&cursor, 3, 5).await;
    world.settle(&open, 2).await;
    let blobs: Vec<_> = (0..10_u8)
        .map(|number| {
            let facts = BlobFacts { sha256: Sha256Hash::of(&[number]), size: 1, text: true };
            (commit(number), facts)
        })
        .collect();
    store.remember_blobs(&blobs, Timestamp(0)).await.expect("remembered");
    let later = Timestamp(0).after(40 * DAY);
    assert_eq!(store.prune(Timestamp(9000), 30 * DAY, 90 * DAY, 100).await.expect("pruned"), 0);
    let before = world.lane(&cursor).await;
    let mut gone = 0;
    loop {
        let some = store.prune(later, 30 * DAY, 30 * DAY, 3).await.expect("pruned");
        assert!(some <= 3);
        if some == 0 {
            break;
        }
        gone += some;
    }
    assert!(gone > 10, "ten blobs and the first round");
    assert!(store.blob_facts(&[commit(1)]).await.expect("facts")[0].is_none());
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.open, before.open);
    assert_eq!(lane.letters.iter().map(|(letter, _)| &letter.id).collect::<Vec<_>>(), [&letters[0].id]);
    world.finish(&open).await;
}

/// An app keeps a number of rows of history, the newest; what is open, what an open letter names, and what
/// others have stays.
pub async fn too_much_history_of_an_app_is_shortened(store: &dyn Store) {
    let world = World::new(store);
    let (app, _, cursor) = world.watched().await;
    let (other, _, elsewhere) = world.watched().await;
    let rounds = async |app| {
        let found = store.rounds(app, &RoundFilter::default(), 100).await.expect("rounds");
        found.into_iter().map(|round| round.number).collect::<Vec<_>>()
    };
    world.sync(&elsewhere, 1).await;
    let letters = world.parked(&cursor, 1, &["a"]).await;
    for (target, at) in (2..8).zip(10_000..) {
        let round = world.begin(&cursor, target, 1).await;
        world.settle(&round, 1).await;
        assert!(store.finish_round(&cursor, round.number, Timestamp(at), true).await.expect("finished"));
    }
    let open = world.begin(&cursor, 9, 5).await;
    world.settle(&open, 2).await;
    let before = rounds(&app).await;
    assert_eq!(before.len(), 8, "{before:?}");
    // Two rows a round: seven ended rounds are fourteen.
    assert_eq!(store.shorten_history(14, 100).await.expect("shortened"), 0);
    let mut gone = 0;
    loop {
        let some = store.shorten_history(6, 3).await.expect("shortened");
        assert!(some <= 3);
        gone += some;
        if some == 0 {
            break;
        }
    }
    assert_eq!(gone, 6, "three rounds: the oldest of all has an open letter");
    let after = rounds(&app).await;
    assert_eq!(after[..4], before[..4], "the open one and the newest three");
    assert_eq!(after[4..], before[7..], "and what the letter names");
    assert_eq!(rounds(&other).await.len(), 1);
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.open.map(|round| round.position), Some(2));
    assert_eq!(lane.letters[0].0.id, letters[0].id);
    world.finish(&open).await;
}

/// The totals of the overview count apps, watches, rounds, letters and breakers.
pub async fn totals_count_what_there_is(store: &dyn Store) {
    let world = World::new(store);
    store.ping().await.expect("it answers");
    let (app, watch, cursor) = world.watched().await;
    world.disable(&app, Some("gone")).await;
    world.parked(&cursor, 1, &["a"]).await;
    store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), Timestamp(6000)).await.expect("moved");
    world.begin(&cursor, 2, 5).await;
    store.set_blocked(&cursor, Some("why")).await.expect("blocked");
    let row = BreakerRow {
        kind: BreakerKind::Source,
        id: watch.source.to_string(),
        failures: 5,
        opened_at: Some(Timestamp(1)),
        probe_at: Some(Timestamp(2)),
        last_error: "no answer".into(),
    };
    store.record_breaker(&row).await.expect("recorded");
    let totals = Totals {
        apps: 1,
        apps_disabled: 1,
        sinks_disabled: 0,
        repositories: 1,
        watches: 1,
        behind: 1,
        blocked: 1,
        open_rounds: 1,
        dead_letters: 1,
        open_breakers: 1,
        subscriptions_blocked: 0,
        worker_subscriptions: 0,
        lag_ms: 1500,
    };
    assert_eq!(store.totals(Timestamp(7500)).await.expect("totals"), totals);
}

/// Lag is that of watches, and of those alone that somebody serves; letters are counted by reason.
pub async fn lag_is_told_of_what_is_served_and_behind(store: &dyn Store) {
    const MOVED: Timestamp = Timestamp(6_000);
    let world = World::new(store);
    let now = Timestamp(MOVED.0 + 16_000);
    assert_eq!(store.backlog(now).await.expect("a backlog"), Backlog::default());
    let (app, watch, cursor) = world.watched().await;
    world.parked(&cursor, 1, &["a", "b"]).await;
    let at_rest = store.backlog(now).await.expect("a backlog");
    assert_eq!(at_rest.behind, [0; LAG_BOUNDS.len() + 1], "it is not behind");
    assert_eq!(at_rest.letters.values().sum::<u64>(), 2);
    assert!(at_rest.letters.keys().all(|reason| ParkReason::ALL.contains(reason)));
    assert!(store.laggards(10).await.expect("laggards").is_empty());

    store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), MOVED).await.expect("moved");
    let behind = store.backlog(now).await.expect("a backlog");
    let place = LAG_BOUNDS.iter().position(|bound| *bound == 60).expect("a bound");
    let mut wanted = [0; LAG_BOUNDS.len() + 1];
    wanted[place] = 1;
    assert_eq!((behind.behind, behind.lag_sum_ms, behind.lag_max_ms), (wanted, 16_000, 16_000));
    assert!(at_rest.apps_late.is_empty());
    assert_eq!(behind.apps_late, [AppLate { app: app.clone(), lag_ms: 16_000, behind: 1 }]);
    // Exactly at a bound it lies within, and beyond all bounds it is counted as well.
    let day = Timestamp(MOVED.0 + 60_000);
    assert_eq!(store.backlog(day).await.expect("a backlog").behind[place], 1);
    let ever = Timestamp(MOVED.0 + 100 * 86_400_000);
    assert_eq!(store.backlog(ever).await.expect("a backlog").behind.last(), Some(&1));
    // A clock that went backwards makes no lag below zero.
    let before = store.backlog(Timestamp(1)).await.expect("a backlog");
    assert_eq!((before.behind[0], before.lag_sum_ms), (1, 0));

    let (other, second, _) = world.watched().await;
    // Its registration saw the head where it was.
    store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), MOVED).await.expect("moved");
    let shown = store.watch(&other, &second.id).await.expect("watch");
    let since = shown.cursors[0].behind_since.expect("it has nothing yet");
    let laggards = store.laggards(10).await.expect("laggards");
    let found: Vec<_> = laggards.iter().map(|laggard| (&laggard.watch, laggard.since)).collect();
    assert_eq!(found, [(&second.id, since), (&watch.id, MOVED)], "the longest first");
    assert_eq!(laggards[1].cursor, cursor);
    assert_eq!(laggards[1].branch, MAIN);
    assert_eq!(store.laggards(1).await.expect("laggards").len(), 1);

    let paused = WatchPatch { state: Some((WatchState::Paused, None)), ..WatchPatch::default() };
    store.patch_watch(&app, &watch.id, &paused).await.expect("paused");
    let left = store.laggards(10).await.expect("laggards");
    assert_eq!(left.iter().map(|laggard| &laggard.watch).collect::<Vec<_>>(), [&second.id]);
    world.disable(&left[0].app, Some("by hand")).await;
    assert!(store.laggards(10).await.expect("laggards").is_empty());
    assert_eq!(store.backlog(now).await.expect("a backlog").behind, [0; LAG_BOUNDS.len() + 1]);
}

/// What holds apps up that is not their receiver, and sources that cannot be looked at, by why.
pub async fn late_apps_and_failing_sources_are_counted(store: &dyn Store) {
    let world = World::new(store);
    let (one, watch, cursor) = world.watched().await;
    let (_, second, _) = world.watched().await;
    store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), Timestamp(6_000)).await.expect("moved");
    let late = Timestamp(6_001).after(LATE);
    let apps_behind = async || store.backlog(late).await.expect("numbers").apps_behind;
    let soon = Timestamp(1_000).after(LATE);
    assert_eq!(store.backlog(soon).await.expect("numbers").apps_behind, 0, "not for so long");
    assert_eq!(apps_behind().await, 2);
    store.set_blocked(&cursor, Some("ten in a row")).await.expect("blocked");
    assert_eq!(apps_behind().await, 1, "that is its receiver");
    store.set_blocked(&cursor, None).await.expect("unblocked");
    let open = BreakerRow {
        kind: BreakerKind::Endpoint,
        id: one.to_string(),
        failures: 5,
        opened_at: Some(Timestamp(7_000)),
        probe_at: Some(Timestamp(8_000)),
        last_error: "status 503".into(),
    };
    store.record_breaker(&open).await.expect("written");
    assert_eq!(apps_behind().await, 1, "so is that");
    let pulls = AppPatch { receives_at: Some(SinkAddress::Pull), ..AppPatch::default() };
    store.patch_app(&second.app, &pulls, Timestamp(7_000)).await.expect("changed");
    assert_eq!(apps_behind().await, 0, "an app that pulls takes its changes when it likes");

    let failing = async || store.backlog(late).await.expect("numbers").sources_failing;
    assert!(failing().await.is_empty());
    store
        .record_scan_error(&watch.source, Some("the Git host refuses the credential"))
        .await
        .expect("written");
    assert_eq!(failing().await, BTreeMap::from([(ScanTrouble::Credential, 1)]));
    store.record_scan_error(&second.source, Some("the scan crashed")).await.expect("written");
    let shared = u64::from(second.source != watch.source);
    assert_eq!(failing().await.values().sum::<u64>(), 1 + shared);
    store.record_scan_error(&watch.source, None).await.expect("written");
    assert_eq!(failing().await.get(&ScanTrouble::Credential), None);
}
