//! Resyncs.

use tidings_entity::kind::{CursorState, LetterStatus, WatchState};

use super::world::{World, tree, view};
use crate::{
    ports::{Store, StoreError, WatchPatch},
    view::View,
};

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
    assert_eq!((lane.state, lane.streak, lane.watch_state), (CursorState::Active, 0, WatchState::Active));
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
    let shown = store.dead_letters(&app, None, None, 10).await.expect("letters");
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
