//! What every store must keep of replays.

use tidings_entity::kind::{LetterStatus, RoundKind};

use super::world::{MAIN, World, commit, listing, tree, view};
use crate::{
    model::view::View,
    ports::{LetterFilter, NewRound, Store, StoreError, WatchPatch},
    time::Timestamp,
};

/// The replay that was asked for, of `total` changes.
async fn plan(world: &World<'_>, cursor: &tidings_entity::id::CursorId, total: u64) -> NewRound {
    let lane = world.lane(cursor).await;
    let mut new = world.plan(cursor, 1, total).await;
    new.round.spec.kind = RoundKind::Replay;
    new.round.spec.target = new.round.spec.held.take();
    new.round.spec.held = lane.replay;
    new
}

/// What a watch held can be gone back to, under the view it was held with; nothing else, and not for
/// others.
pub async fn a_replay_goes_back_to_what_was_held(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let (other, foreign, elsewhere) = world.watched().await;
    world.sync(&elsewhere, 7).await;
    let was_held = async |number| store.was_held(&app, &watch.id, None, commit(number)).await;
    let refused = async |number| was_held(number).await.expect_err("never held").to_string();
    assert!(!refused(1).await.is_empty(), "a head is not held");
    let all = View::default();
    world.sync(&cursor, 1).await;
    assert_eq!(was_held(1).await.expect("held"), (cursor.clone(), tree(1, &all)));
    let docs = view("docs/**");
    let narrowed = WatchPatch { view: Some(docs.clone()), ..WatchPatch::default() };
    store.patch_watch(&app, &watch.id, &narrowed).await.expect("patched");
    let round = world.begin(&cursor, 2, 5).await;
    world.settle(&round, 4).await;
    assert_eq!(was_held(1).await.expect("held"), (cursor.clone(), tree(1, &all)));
    assert!(!refused(2).await.is_empty(), "it is on its way");
    world.finish(&round).await;
    world.sync(&cursor, 3).await;
    assert_eq!(was_held(2).await.expect("held"), (cursor.clone(), tree(2, &docs)));
    assert_eq!(was_held(1).await.expect("held"), (cursor.clone(), tree(1, &all)));
    assert!(matches!(was_held(7).await, Err(StoreError::Conflict(_))), "held by another");
    for (app, watch) in [(&app, &foreign.id), (&other, &watch.id)] {
        let refused = store.was_held(app, watch, None, commit(1)).await.expect_err("foreign");
        assert!(matches!(refused, StoreError::NotFound), "{refused}");
    }
    assert!(store.was_held(&app, &watch.id, Some(&elsewhere), commit(1)).await.is_err());
    assert!(store.was_held(&app, &watch.id, Some(&cursor), commit(1)).await.is_ok());
}

/// The round is the one that was asked for, binds letters, keeps what is held, and is asked
/// for once.
pub async fn a_replay_begins_as_it_was_asked_for(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let all = View::default();
    let asked = async |number| store.request_replay(&cursor, &tree(number, &all)).await;
    assert!(matches!(asked(1).await, Err(StoreError::Conflict(_))), "nothing is held");
    world.sync(&cursor, 1).await;
    let letters = world.parked(&cursor, 2, &["a"]).await;
    let at_head = listing(&[(MAIN, 2)]);
    store.move_heads(&watch.source, &at_head, Timestamp(6000)).await.expect("moved");
    assert!(!world.is_pending(&cursor).await);

    asked(1).await.expect("asked");
    assert!(world.is_pending(&cursor).await);
    assert_eq!(world.lane(&cursor).await.replay, Some(tree(1, &all)));
    assert!(store.pins(&watch.repository).await.expect("pins").contains(&commit(1)));
    let pinned = store.pinned_trees(&app, &watch.id).await.expect("trees").ends;
    assert!(pinned.contains(&tree(1, &all)), "{pinned:?}");
    store.drop_replay(&cursor, commit(9)).await.expect("another one");
    assert_eq!(world.lane(&cursor).await.replay, Some(tree(1, &all)));
    store.drop_replay(&cursor, commit(1)).await.expect("dropped");
    assert!(!world.is_pending(&cursor).await);

    asked(1).await.expect("asked");
    let mut wrong = plan(&world, &cursor, 2).await;
    wrong.round.spec.held = Some(tree(9, &all));
    let refused = store.begin_round(&wrong).await.expect_err("nobody asked for that");
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");
    let mut wrong = plan(&world, &cursor, 2).await;
    wrong.round.spec.target = Some(tree(9, &all));
    let refused = store.begin_round(&wrong).await.expect_err("not what is held");
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");

    let mut new = plan(&world, &cursor, 2).await;
    new.round.spec.letters = letters;
    store.begin_round(&new).await.expect("begun");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.open.as_ref(), lane.replay), (Some(&new.round), None));
    assert!(store.pins(&watch.repository).await.expect("pins").contains(&commit(1)), "also while it is open");
    world.finish(&new.round).await;
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.held, Some((commit(2), all.clone())));
    let letters = store.dead_letters(&app, &LetterFilter::default(), None, 10).await.expect("letters");
    assert_eq!(letters.letters[0].status, LetterStatus::Superseded);
    assert!(!world.is_pending(&cursor).await);

    asked(1).await.expect("asked again");
    store.request_resync(&app, &watch.id, false).await.expect("asked");
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.replay, None, "a resync delivers everything");
    assert!(lane.resync_bases.contains(&tree(1, &all)), "and deletes what an app that went back may have");
    asked(3).await.expect("taken in");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.replay, lane.resync), (None, Some(false)));
    assert_eq!(lane.resync_bases, [tree(2, &all), tree(1, &all), tree(3, &all)]);
}

/// A replay that was asked for while its branch went is not lost: it leads to nothing.
pub async fn a_replay_that_waits_while_its_branch_goes_leads_to_nothing(store: &dyn Store) {
    let world = World::new(store);
    let (_, watch, cursor) = world.watched().await;
    world.sync(&cursor, 1).await;
    world.sync(&cursor, 2).await;
    let without_main = listing(&[("refs/heads/dev", 3)]);
    for at in [6000, 7000] {
        store.move_heads(&watch.source, &without_main, Timestamp(at)).await.expect("moved");
    }
    let mut to_nothing = world.plan(&cursor, 9, 1).await;
    to_nothing.round.spec.target = None;
    store.begin_round(&to_nothing).await.expect("begun");
    let from = tree(1, &View::default());
    store.request_replay(&cursor, &from).await.expect("asked");
    world.finish(&to_nothing.round).await;

    let lane = world.lane(&cursor).await;
    assert_eq!((lane.held, lane.head, lane.replay), (None, None, Some(from.clone())));
    assert!(world.is_pending(&cursor).await, "it still waits");
    let again = store.request_replay(&cursor, &from).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "nothing is held now");
    let mut wrong = plan(&world, &cursor, 1).await;
    wrong.round.spec.target = Some(from.clone());
    assert!(matches!(store.begin_round(&wrong).await, Err(StoreError::Conflict(_))), "not what is held");
    let new = plan(&world, &cursor, 1).await;
    assert_eq!((&new.round.spec.held, &new.round.spec.target), (&Some(from), &None));
    store.begin_round(&new).await.expect("begun");
    world.finish(&new.round).await;
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.held, lane.replay), (None, None));
    assert!(!world.is_pending(&cursor).await);
}
