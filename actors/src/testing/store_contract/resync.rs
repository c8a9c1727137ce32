//! What every store must keep of resyncs and the trees that they compare.

use tidings_entity::kind::{CursorState, LetterStatus, RoundKind, WatchState};

use super::world::{MAIN, World, listing, tree, view};
use crate::{
    model::view::View,
    ports::{LetterFilter, Store, StoreError, WatchPatch},
    time::Timestamp,
};

/// What an app may read of a mirror that others share: held, both ends of an open round, and the
/// bases of a resync, of its own watch only.
pub async fn the_trees_of_a_watch_are_what_its_app_may_have(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let (other, foreign, elsewhere) = world.watched().await;
    world.sync(&elsewhere, 9).await;
    let ends = async || {
        let mut ends = store.pinned_trees(&app, &watch.id).await.expect("its trees").ends;
        ends.sort_by_key(|end| (end.commit, end.view.id()));
        ends
    };
    let held = async || store.pinned_trees(&app, &watch.id).await.expect("its trees").held;
    assert_eq!(ends().await, [], "nothing is held, and the head is no place to read from");
    assert_eq!(held().await, [(MAIN.to_owned(), None)]);
    let all = View::default();
    world.sync(&cursor, 1).await;
    assert_eq!(ends().await, [tree(1, &all)]);
    let docs = view("docs/**");
    let narrowed = WatchPatch { view: Some(docs.clone()), ..WatchPatch::default() };
    store.patch_watch(&app, &watch.id, &narrowed).await.expect("patched");
    world.begin(&cursor, 2, 5).await;
    assert_eq!(ends().await, [tree(1, &all), tree(2, &docs)]);
    assert_eq!(held().await, [(MAIN.to_owned(), Some(tree(1, &all)))], "not what is on its way");
    store.request_resync(&app, &watch.id, false).await.expect("asked");
    assert_eq!(ends().await, [tree(1, &all), tree(2, &docs)], "bases of the resync to come");
    let resync = world.plan_resync(&cursor, 3, 1).await;
    store.begin_round(&resync).await.expect("begun");
    assert_eq!(ends().await, [tree(1, &all), tree(2, &docs), tree(3, &docs)]);
    world.finish(&resync.round).await;
    assert_eq!(ends().await, [tree(3, &docs)], "what was held before is past");
    for (app, watch) in [(&app, &foreign.id), (&other, &watch.id)] {
        let refused = store.pinned_trees(app, watch).await.expect_err("foreign");
        assert!(matches!(refused, StoreError::NotFound), "{refused}");
    }
}

/// The held commit is the head, and the app still lacks something until a resync, a redrive or a replay has
/// ended: a dead endpoint shows as lag, not as health.
pub async fn what_is_sent_again_is_behind_until_it_ends(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    world.sync(&cursor, 1).await;
    let now = Timestamp(900_000);
    let seen = async || {
        let totals = store.totals(now).await.expect("totals");
        let laggards = store.laggards(10).await.expect("laggards");
        let late: u64 = store.backlog(now).await.expect("a backlog").behind.iter().sum();
        let shown = store.watch(&app, &watch.id).await.expect("watch").cursors.remove(0).behind_since;
        assert_eq!(laggards.first().map(|laggard| laggard.since), shown);
        assert_eq!((totals.behind, late), (laggards.len() as u64, totals.behind));
        assert_eq!(totals.lag_ms, shown.map_or(0, |since| u64::try_from(now.0 - since.0).expect("past")));
        shown
    };
    assert_eq!(seen().await, None);
    store.request_resync(&app, &watch.id, false).await.expect("asked");
    let asked = seen().await.expect("behind from the moment of the request");
    let resync = world.plan_resync(&cursor, 1, 1).await;
    store.begin_round(&resync).await.expect("begun");
    store.move_heads(&watch.source, &listing(&[(MAIN, 1)]), now).await.expect("polled");
    assert_eq!(seen().await, Some(asked), "neither the beginning nor a poll changes it");
    world.finish(&resync.round).await;
    assert_eq!(seen().await, None);

    let letters = world.parked(&cursor, 1, &["a"]).await;
    assert_eq!(seen().await, None, "a letter is no lag");
    store.request_redrive(&app, &[letters[0].id.clone()]).await.expect("asked");
    let mut redrive = world.plan(&cursor, 1, 1).await;
    redrive.round.spec.kind = RoundKind::Redrive;
    redrive.round.spec.target = redrive.round.spec.held.clone();
    redrive.round.spec.letters = letters;
    store.begin_round(&redrive).await.expect("begun");
    assert_eq!(seen().await, Some(redrive.round.began_at));
    assert!(store.end_redrive(&cursor, redrive.round.number, &[], now).await.expect("ended"));
    assert_eq!(seen().await, None, "a redrive that was cancelled");
}

/// However often rounds are ended early, no tree of which the app may hold files is forgotten.
pub async fn a_resync_in_mid_round_keeps_every_tree(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let all = View::default();
    world.sync(&cursor, 1).await;
    let round = world.begin(&cursor, 2, 5).await;
    world.settle(&round, 2).await;
    let paused = WatchPatch {
        view: Some(view("docs/**")),
        state: Some((WatchState::Paused, Some("why".into()))),
        ..WatchPatch::default()
    };
    store.patch_watch(&app, &watch.id, &paused).await.expect("paused");
    store.set_blocked(&cursor, Some("ten in a row")).await.expect("blocked");
    store.request_resync(&app, &watch.id, false).await.expect("asked");
    store.request_resync(&app, &watch.id, false).await.expect("asked again");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.open.is_none(), lane.resync), (true, Some(false)));
    assert_eq!(
        (lane.state, lane.streak.count, lane.watch_state),
        (CursorState::Active, 0, WatchState::Paused),
        "a resync lifts no pause"
    );
    assert_eq!(lane.resync_bases, [tree(1, &all), tree(2, &all)]);
    assert!(!world.settle(&round, 5).await, "the round has ended");
    let first = world.plan_resync(&cursor, 3, 4).await;
    store.begin_round(&first).await.expect("begun");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.open.as_ref(), lane.resync), (Some(&first.round), None));
    store.request_cursor_resync(&cursor, true, "the digest differs").await.expect("asked");
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.resync, Some(true));
    assert_eq!(lane.reason.as_deref(), Some("the digest differs"));
    let docs = view("docs/**");
    assert_eq!(lane.resync_bases, [tree(1, &all), tree(3, &docs), tree(2, &all)]);
    let mut pins = store.pins(&watch.repository).await.expect("pins");
    pins.sort_unstable();
    assert_eq!(pins, [tree(1, &all).commit, tree(2, &all).commit, tree(3, &docs).commit]);
    let second = world.plan_resync(&cursor, 4, 1).await;
    store.begin_round(&second).await.expect("begun");
    world.finish(&second.round).await;
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.resync_bases, [tree(4, &docs)], "what came before is done with");
    assert_eq!(lane.reason, None);
}

/// All open letters go with a resync; a letter of a redrive that it ended is open again before.
pub async fn a_resync_binds_and_supersedes_letters(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a"]).await;
    store.request_redrive(&app, &[letters[0].id.clone()]).await.expect("asked");
    let mut redrive = world.plan(&cursor, 1, 1).await;
    redrive.round.spec.kind = tidings_entity::kind::RoundKind::Redrive;
    redrive.round.spec.letters = letters.clone();
    store.begin_round(&redrive).await.expect("begun");
    store.request_resync(&app, &watch.id, false).await.expect("asked");
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.letters, [(letters[0].clone(), LetterStatus::Open)]);
    let mut resync = world.plan_resync(&cursor, 1, 1).await;
    resync.round.spec.letters = letters;
    store.begin_round(&resync).await.expect("begun");
    world.finish(&resync.round).await;
    let shown = store.dead_letters(&app, &LetterFilter::default(), None, 10).await.expect("letters").letters;
    assert_eq!(shown[0].status, LetterStatus::Superseded);
}

/// Once asked for, a resync is the next round, with every base, and complete if that was asked.
pub async fn a_resync_goes_before_anything_else(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    world.sync(&cursor, 1).await;
    let sync = world.plan(&cursor, 2, 1).await;
    store.request_resync(&app, &watch.id, false).await.expect("asked");
    assert!(matches!(store.begin_round(&sync).await, Err(StoreError::Conflict(_))));
    let held = Some((sync.round.spec.target.expect("a target").commit, View::default().id()));
    let advanced = store.advance(&cursor, sync.planned_after, held).await;
    assert!(matches!(advanced, Err(StoreError::Conflict(_))));
    let plan = world.plan_resync(&cursor, 1, 1).await;
    let mut without_base = plan.clone();
    without_base.round.spec.bases.clear();
    assert!(matches!(store.begin_round(&without_base).await, Err(StoreError::Conflict(_))));
    store.request_resync(&app, &watch.id, true).await.expect("asked for more");
    assert!(matches!(store.begin_round(&plan).await, Err(StoreError::Conflict(_))), "it must be complete");
    store.request_resync(&app, &watch.id, false).await.expect("asked for less");
    let complete = world.plan_resync(&cursor, 1, 1).await;
    assert!(complete.round.complete, "still");
    store.begin_round(&complete).await.expect("begun");
    assert!(world.is_pending(&cursor).await);
}

/// What an app may have that is gone is said, until an app has heard of a complete resync from beginning to
/// end.
pub async fn a_resync_that_nobody_heard_of_leaves_deletes_unknown(store: &dyn Store) {
    let world = World::new(store);
    for (hears, hears_end) in [(false, true), (true, false), (true, true)] {
        let new = world.new_app();
        store.create_app(&new).await.expect("an app");
        let watch = world.watch(&new.id).await;
        let cursor = watch.cursors[0].id.clone();
        let unknown =
            async || store.watch(&new.id, &watch.id).await.expect("watch").cursors[0].deletes_unknown;
        world.sync(&cursor, 1).await;
        store.request_resync(&new.id, &watch.id, false).await.expect("asked");
        let plain = world.plan_resync(&cursor, 1, 1).await;
        store.begin_round(&plain).await.expect("begun");
        world.finish(&plain.round).await;
        assert!(!unknown().await, "it names every delete");
        store.request_resync(&new.id, &watch.id, true).await.expect("asked");
        let complete = world.plan_resync(&cursor, 1, 1).await;
        store.begin_round(&complete).await.expect("begun");
        assert!(unknown().await, "until it ends");
        let lane = world.lane(&cursor).await;
        assert!(!lane.announced && lane.untouched);
        if hears {
            // Of another round it says nothing.
            store.note_announced(&cursor, complete.round.number - 1).await.expect("noted");
            assert!(!world.lane(&cursor).await.announced);
            store.note_announced(&cursor, complete.round.number).await.expect("noted");
            assert!(world.lane(&cursor).await.announced);
        }
        let knows = hears && hears_end;
        world.finish_told(&complete.round, hears_end).await;
        assert_eq!(unknown().await, !knows);
        world.sync(&cursor, 2).await;
        assert_eq!(unknown().await, !knows, "a later round does not name them either");
    }
}

/// The trees that it did not name are still unknown.
pub async fn a_complete_resync_that_is_ended_stays_complete(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    world.sync(&cursor, 1).await;
    store.request_resync(&app, &watch.id, true).await.expect("asked");
    let complete = world.plan_resync(&cursor, 1, 2).await;
    store.begin_round(&complete).await.expect("begun");
    world.settle(&complete.round, 1).await;
    store.request_resync(&app, &watch.id, false).await.expect("asked");
    assert_eq!(world.lane(&cursor).await.resync, Some(true));
}
