//! Dead letters that are closed by hand.

use tidings_entity::kind::LetterStatus;

use super::world::World;
use crate::{
    model::round::Letter,
    ports::{Dismissed, LetterFilter, PathFilter, REDRIVE_STEP, Redrive, Store, StoreError},
    time::Timestamp,
};

const AT: Timestamp = Timestamp(7000);

async fn open(store: &dyn Store, app: &tidings_entity::id::AppId) -> Vec<String> {
    let page = store.dead_letters(app, &LetterFilter::standing(LetterStatus::Open), None, 100).await;
    let letters = page.expect("a page").letters;
    letters.iter().map(|letter| String::from_utf8_lossy(&letter.path).into_owned()).collect()
}

/// It is not redriven, not bound, not counted; what a later redrive means leaves it alone.
pub async fn a_dismissed_letter_is_closed_for_good(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let (stranger, _, _) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a", "b", "c"]).await;
    let ids: Vec<_> = letters.iter().map(|letter| letter.id.clone()).collect();
    assert!(matches!(store.dismiss(&stranger, &ids[..1], AT).await, Err(StoreError::NotFound)));
    assert_eq!(store.dismiss(&app, &ids[..1], AT).await.expect("dismissed"), 1);
    assert_eq!(store.dismiss(&app, &ids[..2], AT).await.expect("one was dismissed before"), 1);
    assert_eq!(open(store, &app).await, ["c"]);
    let closed = store.dead_letter(&app, &ids[0]).await.expect("it is kept");
    assert_eq!(closed.status, LetterStatus::Dismissed);
    let shown = store.watch(&app, &watch.id).await.expect("the watch");
    assert_eq!(shown.cursors[0].dead_letters, 1, "only what is open is counted");
    let counted: u64 = store.backlog(AT).await.expect("numbers").letters.values().sum();
    assert_eq!(counted, 1);
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.letters.iter().map(|(letter, _)| letter.id.clone()).collect::<Vec<_>>(), ids[2..]);
    assert!(matches!(store.request_redrive(&app, &ids[..1]).await, Err(StoreError::Conflict(_))));
    let all = store.begin_redrive(&app, &LetterFilter::default()).await.expect("begun");
    let step = store.mark_redrive(Some(&all)).await.expect("marked").expect("a step");
    assert_eq!(step.marked, 1);
    let mut stale = world.plan(&cursor, 2, 1).await;
    stale.round.spec.letters = vec![letters[0].clone()];
    let begun = store.begin_round(&stale).await;
    assert!(
        matches!(begun, Err(StoreError::Conflict(_))),
        "a round that was planned before binds it no more"
    );
    // The same path may be given up again.
    world.parked(&cursor, 2, &["a"]).await;
    assert_eq!(open(store, &app).await, ["a"]);
}

/// What a round sends is its own until it ends.
pub async fn a_letter_of_the_open_round_cannot_be_dismissed(store: &dyn Store) {
    let world = World::new(store);
    let (app, _, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a", "b"]).await;
    let mut sync = world.plan(&cursor, 2, 1).await;
    sync.round.spec.letters = vec![letters[0].clone()];
    store.begin_round(&sync).await.expect("begun");
    let both: Vec<_> = letters.iter().map(|letter| letter.id.clone()).collect();
    let refused = store.dismiss(&app, &both, AT).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(reason)) if reason.contains(letters[0].id.as_str())));
    assert_eq!(open(store, &app).await, ["b", "a"], "a refused request closes nothing");
    let step = store.dismiss_some(&app, &LetterFilter::default(), None, AT).await.expect("a step");
    assert_eq!(step, Dismissed { dismissed: 1, bound: 1, next: None });
    let bound: Vec<Letter> = world.lane(&cursor).await.open.expect("open").spec.letters;
    assert_eq!(bound, letters[..1], "the list of the round is as it was begun");
    world.finish(&sync.round).await;
    let refused = store.dismiss(&app, &both[..1], AT).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "it is superseded by that round");
    let late = world.parked(&cursor, 3, &["a"]).await.remove(0);
    let mut next = world.plan(&cursor, 4, 1).await;
    next.round.spec.letters = vec![late.clone()];
    store.begin_round(&next).await.expect("begun");
    let resync_ends_it = store.request_cursor_resync(&cursor, false, "by a test").await;
    resync_ends_it.expect("the round ends");
    let again = store.dismiss(&app, &[late.id], AT).await;
    assert_eq!(again.expect("no open round sends it any more"), 1);
}

/// A filter means the same letters as in a search; a redrive that waited for one counts it as cancelled.
pub async fn many_letters_are_dismissed_step_by_step(store: &dyn Store) {
    let world = World::new(store);
    let (app, _, cursor) = world.watched().await;
    let many = usize::try_from(REDRIVE_STEP).expect("small") + 3;
    let paths: Vec<String> = (0..many).map(|number| format!("docs/{number:05}")).collect();
    let mut paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    paths.push("kept");
    let letters = world.parked(&cursor, 1, &paths).await;
    let asked = [letters[0].id.clone(), letters[many].id.clone()];
    store.request_redrive(&app, &asked).await.expect("asked");
    let docs = LetterFilter { path: Some(PathFilter::Prefix(b"docs/".to_vec())), ..LetterFilter::default() };
    let step = store.dismiss_some(&app, &docs, None, AT).await.expect("a step");
    assert_eq!((step.dismissed, step.bound), (REDRIVE_STEP - 1, 0), "the newest letter is not meant");
    let next = step.next.expect("there are older ones");
    let rest = store.dismiss_some(&app, &docs, Some(&next), AT).await.expect("a step");
    assert_eq!(rest, Dismissed { dismissed: 4, bound: 0, next: None });
    let redrives = store.redrives(&app, None, 9).await.expect("listed");
    let expected = Redrive { asked: 2, cancelled: 1, left: 1, ..redrives[0].clone() };
    assert_eq!(redrives, [expected]);
    assert_eq!(world.lane(&cursor).await.letters.len(), 1);
}
