//! What every store must keep of dead letters and redrives.

use tidings_entity::{
    id::DeadLetterId,
    kind::{CursorState, LetterStatus, Operation, ParkReason, RoundKind, WatchState},
};

use super::world::{World, entry};
use crate::{
    model::filter::{Filter, sets::LETTERS},
    model::round::Letter,
    ports::{
        Cancelled, Dismissed, Head, LANE_LETTERS, LetterFilter, LetterPick, NewRound, Park, PathFilter,
        REDRIVE_STEP, Redrive, STREAK_MAX, Settlement, SinkKey, Standing, Store, StoreError, Streak,
        WatchPatch,
    },
    time::Timestamp,
};

/// The letters that a round binds belong to its list until it ends, whatever becomes of them.
pub async fn a_dead_letter_is_bound_by_the_next_round_and_stays_in_its_list(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["b", "a"]).await;
    let lane = world.lane(&cursor).await;
    let sorted: Vec<_> = lane.letters.iter().map(|(letter, _)| letter.path.clone()).collect();
    assert_eq!(sorted, [b"a".to_vec(), b"b".to_vec()]);
    assert_eq!(lane.letters[1].0, letters[0]);
    let mut next = world.plan(&cursor, 2, 2).await;
    next.round.spec.letters = vec![letters[1].clone(), letters[0].clone()];
    store.begin_round(&next).await.expect("begun");
    assert_eq!(world.lane(&cursor).await.open, Some(next.round.clone()));
    let mut park = world.park(&next.round, 0, "a");
    park.change.old = Some(entry(7));
    let again = Settlement { parked: vec![park.clone()], ..world.settlement(&next.round, 1) };
    assert!(store.settle(again).await.expect("settled"));
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.open.expect("open").spec.letters, next.round.spec.letters, "its list is frozen");
    let open: Vec<&Letter> = lane.letters.iter().map(|(letter, _)| letter).collect();
    assert_eq!(open.len(), 2, "one open letter per path");
    assert_eq!(
        (&open[0].id, open[0].before),
        (&park.id, letters[1].before),
        "what was before the first of them"
    );
    world.finish(&next.round).await;
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.letters.len(), 1, "the bound one is superseded, the new one stays");
    assert_eq!(lane.letters[0].0.id, park.id);
}

/// An untouched letter stays; one that the round brought to its target goes.
pub async fn a_letter_that_its_round_passed_is_superseded(store: &dyn Store) {
    let world = World::new(store);
    let (app, _, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a", "b"]).await;
    let mut next = world.plan(&cursor, 2, 1).await;
    next.round.spec.letters = vec![letters[0].clone()];
    store.begin_round(&next).await.expect("begun");
    world.finish(&next.round).await;
    let shown = store.dead_letters(&app, &LetterFilter::default(), None, 10).await.expect("letters").letters;
    let status = |letter: &Letter| shown.iter().find(|shown| shown.id == letter.id).map(|shown| shown.status);
    assert_eq!(status(&letters[0]), Some(LetterStatus::Superseded));
    assert_eq!(status(&letters[1]), Some(LetterStatus::Open));
    let mut stale = world.plan(&cursor, 3, 1).await;
    stale.round.spec.letters = vec![letters[0].clone()];
    assert!(matches!(store.begin_round(&stale).await, Err(StoreError::Conflict(_))));
    assert_eq!(world.lane(&cursor).await.open, None, "a refused round leaves nothing");
}

/// A redrive leaves held alone, and ends the letters that it carried.
pub async fn a_redrive_sends_what_was_asked_for(store: &dyn Store) {
    let world = World::new(store);
    let (app, _, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a", "b", "c"]).await;
    assert!(!world.is_pending(&cursor).await);
    let asked = store.request_redrive(&app, &[letters[0].id.clone()]).await.expect("asked");
    assert_eq!(asked, (1, vec![cursor.clone()]));
    assert!(world.is_pending(&cursor).await);
    let lane = world.lane(&cursor).await;
    let marks: Vec<_> = lane.letters.iter().map(|(_, status)| *status).collect();
    assert_eq!(marks, [LetterStatus::RedriveRequested, LetterStatus::Open, LetterStatus::Open]);
    let redrive = redrive(&world.plan(&cursor, 1, 1).await, &letters[..1]);
    store.begin_round(&redrive).await.expect("begun");
    assert!(store.lane(&cursor).await.expect("lane").last_was_redrive);
    world.finish(&redrive.round).await;
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.held.map(|(held, _)| held), redrive.round.spec.held.map(|held| held.commit));
    assert_eq!(lane.letters.len(), 2);
    assert!(!world.is_pending(&cursor).await, "the request is consumed");
    let done = store
        .dead_letters(&app, &LetterFilter::standing(LetterStatus::Redriven), None, 10)
        .await
        .expect("letters")
        .letters;
    assert_eq!(done.len(), 1);
    let all = store.begin_redrive(&app, &LetterFilter::default()).await.expect("begun");
    let step = store.mark_redrive(Some(&all)).await.expect("marked").expect("some are left");
    assert_eq!((step.marked, step.cursors, step.more), (2, vec![cursor], false));
}

/// Sending an old state over a newer one would be a lie.
pub async fn a_superseded_letter_cannot_be_redriven(store: &dyn Store) {
    let world = World::new(store);
    let (app, _, cursor) = world.watched().await;
    let old = world.parked(&cursor, 1, &["a"]).await;
    let new = world.parked(&cursor, 2, &["a", "b"]).await;
    let both = [new[1].id.clone(), old[0].id.clone()];
    assert!(matches!(store.request_redrive(&app, &both).await, Err(StoreError::Conflict(_))));
    let open = store
        .dead_letters(&app, &LetterFilter::standing(LetterStatus::Open), None, 10)
        .await
        .expect("letters")
        .letters;
    assert_eq!(open.len(), 2, "a refused request marks nothing");
    store.request_redrive(&app, &[new[0].id.clone()]).await.expect("asked");
    let carried = redrive(&world.plan(&cursor, 2, 1).await, &new[..1]);
    store.begin_round(&carried).await.expect("begun");
    world.finish(&carried.round).await;
    assert!(matches!(store.request_redrive(&app, &[new[0].id.clone()]).await, Err(StoreError::Conflict(_))));
}

/// Pages go back in time.
pub async fn letters_are_listed_newest_first(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a", "b", "c"]).await;
    let page = store.dead_letters(&app, &LetterFilter::default(), None, 2).await.expect("page").letters;
    assert_eq!(page.iter().map(|letter| &letter.id).collect::<Vec<_>>(), [&letters[2].id, &letters[1].id]);
    let rest =
        store.dead_letters(&app, &LetterFilter::default(), Some(&page[1].id), 2).await.expect("page").letters;
    assert_eq!(rest.len(), 1);
    let letter = &rest[0];
    assert_eq!((&letter.id, &letter.watch, &letter.cursor), (&letters[0].id, &watch.id, &cursor));
    assert_eq!((letter.path.as_slice(), letter.position, letter.http_status), (&b"a"[..], 0, Some(422)));
    assert_eq!((&letter.delivery, letter.excerpt.as_str()), (&letters[0].delivery, "no"));
}

/// What was asked for is taken back; what was reached stays done.
pub async fn a_cancelled_redrive_reopens_what_it_did_not_reach(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let (other, _, _) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a", "b", "c", "d"]).await;
    let three: Vec<_> = letters[..3].iter().map(|letter| letter.id.clone()).collect();
    store.request_redrive(&app, &three).await.expect("asked");
    let foreign = store.cancel_redrive(&other, Some(&watch.id)).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)));
    assert_eq!(store.cancel_redrive(&other, None).await.expect("nothing of theirs"), Cancelled::default());
    let carried = redrive(&world.plan(&cursor, 1, 2).await, &letters[..2]);
    store.begin_round(&carried).await.expect("begun");
    assert!(!world.lane(&cursor).await.cancel_open);
    let cancelled = store.cancel_redrive(&app, Some(&watch.id)).await.expect("cancelled");
    assert_eq!(cancelled, Cancelled { reopened: 1, ending: vec![cursor.clone()] });
    assert!(world.lane(&cursor).await.cancel_open);
    assert!(world.settle(&carried.round, 1).await, "until it ends it goes on");
    let number = carried.round.number;
    let end = |number, reached| store.end_redrive(&cursor, number, reached, Timestamp(6000));
    assert!(!end(number + 1, &[]).await.expect("answered"), "not the open one");
    assert!(end(number, &three[..1]).await.expect("ended"));
    assert!(!end(number, &three).await.expect("answered"), "ended once");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.open, lane.cancel_open), (None, false));
    assert_eq!(lane.held.map(|(held, _)| held), carried.round.spec.held.map(|held| held.commit));
    let open: Vec<_> = lane.letters.iter().map(|(letter, status)| (&letter.id, *status)).collect();
    let expected = letters[1..].iter().map(|letter| (&letter.id, LetterStatus::Open));
    assert_eq!(open, expected.collect::<Vec<_>>());
    assert!(!world.is_pending(&cursor).await);
    let sync = world.begin(&cursor, 2, 1).await;
    assert!(!end(sync.number, &[]).await.expect("answered"), "only redrives end early");
    world.finish(&sync).await;
    let still = world.lane(&cursor).await.letters;
    assert_eq!(still.len(), 3, "the next round does not take them for its own");
}

/// There is no change to probe with, so a person or a test delivery says that the receiver works.
pub async fn a_streak_that_ended_with_its_round_is_sent_again_after_a_test_or_by_hand(store: &dyn Store) {
    let world = World::new(store);
    for by_hand in [true, false] {
        let (app, watch, cursor) = world.watched().await;
        world.parked(&cursor, 1, &["before"]).await;
        let round = world.begin(&cursor, 1, 2).await;
        let counted = |position, path| Park { counted: true, ..world.park(&round, position, path) };
        let blocked = Settlement {
            parked: vec![counted(0, "a"), counted(1, "b")],
            streak: Streak { count: STREAK_MAX, from: Some((round.number, 0)), refused: 0 },
            standing: Standing::Blocked("ten in a row".into()),
            ..world.settlement(&round, 2)
        };
        assert!(store.settle(blocked).await.expect("settled"));
        let say = async || {
            let resumed = WatchPatch { state: Some((WatchState::Active, None)), ..WatchPatch::default() };
            match by_hand {
                true => store.patch_watch(&app, &watch.id, &resumed).await.map(drop),
                false => store.end_refusals(&SinkKey::own(&app)).await,
            }
        };
        say().await.expect("said");
        assert_eq!(world.lane(&cursor).await.state, CursorState::Blocked, "its round has a change to probe");
        world.finish_settled(&round).await;
        assert!(!world.is_pending(&cursor).await);
        say().await.expect("said");
        let lane = world.lane(&cursor).await;
        assert_eq!((lane.state, lane.reason, lane.streak), (CursorState::Active, None, Streak::default()));
        let marks: Vec<_> = lane.letters.iter().map(|(letter, status)| (&letter.path[..], *status)).collect();
        let (open, asked) = (LetterStatus::Open, LetterStatus::RedriveRequested);
        assert_eq!(marks, [(&b"a"[..], asked), (&b"b"[..], asked), (&b"before"[..], open)]);
        assert!(world.is_pending(&cursor).await);
    }
}

/// The lane of a paused watch, or of a receiver that hangs, reads a cancel late.
pub async fn a_redrive_asked_for_before_a_cancelled_one_has_ended_follows_it(store: &dyn Store) {
    let world = World::new(store);
    let (app, _, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a", "b", "c"]).await;
    let ids: Vec<_> = letters.iter().map(|letter| letter.id.clone()).collect();
    store.request_redrive(&app, &ids).await.expect("asked");
    let carried = redrive(&world.plan(&cursor, 1, 3).await, &letters);
    store.begin_round(&carried).await.expect("begun");
    store.cancel_redrive(&app, None).await.expect("cancelled");
    store.request_redrive(&app, &ids[..1]).await.expect("asked again");
    let all = store.begin_redrive(&app, &LetterFilter::default()).await.expect("begun");
    let step = store.mark_redrive(Some(&all)).await.expect("marked").expect("some are open");
    assert_eq!(step.marked, 2, "one is asked for already");
    assert_eq!(world.lane(&cursor).await.open.expect("open").spec.letters, letters, "its list is frozen");
    let ended = store.end_redrive(&cursor, carried.round.number, &ids[..2], Timestamp(6000)).await;
    assert!(ended.expect("ended"));
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.letters, [(letters[2].clone(), LetterStatus::RedriveRequested)]);
    assert!(world.is_pending(&cursor).await, "the letter that was not reached is sent next");
    let redrives = store.redrives(&app, None, 9).await.expect("listed");
    let mut counts: Vec<_> =
        redrives.iter().map(|it| (it.asked, it.sent, it.cancelled, it.superseded, it.left)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [(1, 1, 0, 0, 0), (2, 1, 0, 0, 1), (3, 0, 3, 0, 0)]);
    store.cancel_redrive(&app, None).await.expect("cancelled");
    assert!(!world.is_pending(&cursor).await, "a cancel means this one as well");
}

/// As many as one redrive binds, so that the store changes them in several statements.
pub async fn a_cancelled_redrive_of_many_counts_each_letter_once(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let paths: Vec<String> = (0..LANE_LETTERS).map(|number| format!("file{number:05}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let letters = world.parked(&cursor, 1, &paths).await;
    let ids: Vec<_> = letters.iter().map(|letter| letter.id.clone()).collect();
    store.request_redrive(&app, &ids).await.expect("asked");
    let all = ids.len() as u64;
    let carried = redrive(&world.plan(&cursor, 1, all).await, &letters);
    store.begin_round(&carried).await.expect("begun");
    store.cancel_redrive(&app, Some(&watch.id)).await.expect("cancelled");
    let reached = 600;
    let ended = store.end_redrive(&cursor, carried.round.number, &ids[..reached], Timestamp(6000)).await;
    assert!(ended.expect("ended"));
    let redrives = store.redrives(&app, None, 9).await.expect("listed");
    let sent = reached as u64;
    let expected = Redrive { asked: all, sent, cancelled: all - sent, left: 0, ..redrives[0].clone() };
    assert_eq!(redrives, [expected]);
    let open: Vec<_> = world.lane(&cursor).await.letters.into_iter().map(|(letter, _)| letter).collect();
    assert_eq!(open, letters[reached..]);
}

/// What is asked for goes on step by step, and what became of each letter is counted.
pub async fn a_redrive_of_many_goes_on_step_by_step_and_says_how_far_it_is(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let (stranger, _, _) = world.watched().await;
    let many = usize::try_from(REDRIVE_STEP).expect("small") + 5;
    let paths: Vec<String> = (0..many).map(|number| format!("file{number:05}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let letters = world.parked(&cursor, 1, &paths).await;
    let id = store.begin_redrive(&app, &LetterFilter::default()).await.expect("begun");
    assert!(!world.is_pending(&cursor).await, "nothing is marked yet");
    let late = world.parked(&cursor, 2, &["late"]).await.remove(0);
    let step = store.mark_redrive(None).await.expect("marked").expect("there is one");
    assert_eq!((&step.redrive, &step.app), (&id, &app));
    assert_eq!((step.marked, step.more, step.cursors), (REDRIVE_STEP, true, vec![cursor.clone()]));
    assert!(world.is_pending(&cursor).await, "what is marked goes already");
    let shown = async || store.redrive(&app, &id).await.expect("shown");
    assert!(shown().await.is_marking);
    let step = store.mark_redrive(None).await.expect("marked").expect("there is more");
    assert_eq!((step.marked, step.more), (5, false));
    assert_eq!(store.mark_redrive(None).await.expect("asked"), None);
    let all = many as u64;
    let begun = shown().await;
    let asked = Redrive { asked: all, left: all, is_marking: false, ..begun.clone() };
    assert_eq!(begun, asked);
    assert!(matches!(store.redrive(&stranger, &id).await, Err(StoreError::NotFound)));
    assert!(store.redrives(&stranger, None, 9).await.expect("listed").is_empty());

    let lane = world.lane(&cursor).await;
    assert!(lane.more_letters);
    assert_eq!(lane.letters.len(), LANE_LETTERS);
    assert!(lane.letters.iter().all(|(_, status)| *status == LetterStatus::RedriveRequested));
    let found =
        store.open_letters(&cursor, &LetterPick::Paths(vec![late.path.clone(), b"no".to_vec()])).await;
    assert_eq!(found.expect("found"), [(late.clone(), LetterStatus::Open)], "it was not meant");
    let last = LetterPick::After(Some(paths[many - 1].into()));
    assert_eq!(store.open_letters(&cursor, &last).await.expect("found").len(), 1);
    let named = LetterPick::Ids(vec![letters[1].id.clone()]);
    assert_eq!(store.open_letters(&cursor, &named).await.expect("found")[0].0, letters[1]);

    // Two arrive, one is given up again, one is overtaken, the rest is taken back.
    let carried = redrive(&world.plan(&cursor, 2, 3).await, &letters[..3]);
    store.begin_round(&carried).await.expect("begun");
    let again = Settlement {
        parked: vec![world.park(&carried.round, 2, paths[2])],
        ..world.settlement(&carried.round, 3)
    };
    assert!(store.settle(again).await.expect("settled"));
    world.finish_settled(&carried.round).await;
    let mut sync = world.plan(&cursor, 3, 1).await;
    sync.round.spec.letters = vec![letters[3].clone()];
    store.begin_round(&sync).await.expect("begun");
    world.finish(&sync.round).await;
    let left = all - 4;
    assert_eq!(shown().await, Redrive { sent: 2, refused: 1, superseded: 1, left, ..asked.clone() });
    let cancelled = store.cancel_redrive(&app, Some(&watch.id)).await.expect("cancelled");
    assert_eq!(cancelled, Cancelled { reopened: left, ending: vec![] });
    let done = Redrive { sent: 2, refused: 1, superseded: 1, cancelled: left, left: 0, ..asked };
    assert_eq!(store.redrives(&app, None, 9).await.expect("listed"), [done]);
    assert!(store.redrives(&app, Some(&id), 9).await.expect("listed").is_empty());
}

/// A search and a redrive mean the same letters by the same words.
pub async fn letters_are_searched_by_everything_that_is_known_of_them(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let more = world.new_watch(&app);
    let more = crate::ports::NewWatch { url: "https://git.example/else".into(), ..more };
    let other = store.register_watch(&more).await.expect("a watch");
    world.parked(&cursor, 1, &["docs/a.md", "docs/b/c.md", "src/x"]).await;
    world.parked(&other.cursors[0].id, 1, &["docs/a.md"]).await;
    let paths = async |filter: &LetterFilter| -> Vec<String> {
        let page = store.dead_letters(&app, filter, None, 9).await.expect("found");
        assert_eq!(page.next, None);
        page.letters.iter().map(|letter| String::from_utf8_lossy(&letter.path).into_owned()).collect()
    };
    let of = |path: PathFilter| LetterFilter {
        watch: Some(watch.id.clone()),
        path: Some(path),
        ..LetterFilter::default()
    };
    let any = LetterFilter::default();
    assert_eq!(paths(&any).await.len(), 4);
    assert_eq!(paths(&of(PathFilter::Exact(b"docs/a.md".to_vec()))).await, ["docs/a.md"]);
    assert_eq!(paths(&of(PathFilter::Prefix(b"docs/".to_vec()))).await, ["docs/b/c.md", "docs/a.md"]);
    assert_eq!(paths(&of(PathFilter::Glob("docs/*.md".into()))).await, ["docs/a.md"]);
    let rejected = LetterFilter { reason: Some(ParkReason::Rejected), ..any.clone() };
    let failing = LetterFilter { reason: Some(ParkReason::Failing), ..any.clone() };
    assert_eq!((paths(&rejected).await.len(), paths(&failing).await.len()), (4, 0));
    let updates = LetterFilter { operation: Some(Operation::Update), ..any.clone() };
    let deletes = LetterFilter { operation: Some(Operation::Delete), ..any.clone() };
    assert_eq!((paths(&updates).await.len(), paths(&deletes).await.len()), (4, 0));
    let since = |from, to| LetterFilter { from, to, ..any.clone() };
    assert_eq!(paths(&since(Some(4000), Some(4001))).await.len(), 4);
    assert_eq!(paths(&since(Some(4001), None)).await.len(), 0);
    assert_eq!(paths(&since(None, Some(4000))).await.len(), 0);
    let except = LetterFilter { except: vec![watch.id.clone()], ..any.clone() };
    assert_eq!(paths(&except).await, ["docs/a.md"]);

    let page =
        store.dead_letters(&app, &of(PathFilter::Prefix(b"docs".to_vec())), None, 1).await.expect("page");
    assert_eq!((page.letters.len(), page.next.as_ref()), (1, Some(&page.letters[0].id)));
    let one = store.dead_letter(&app, &page.letters[0].id).await.expect("it is there");
    assert_eq!(one, page.letters[0]);

    let glob = of(PathFilter::Glob("docs/**".into()));
    let id = store.begin_redrive(&app, &glob).await.expect("begun");
    let step = store.mark_redrive(Some(&id)).await.expect("marked").expect("some");
    assert_eq!((step.marked, step.cursors), (2, vec![cursor.clone()]));
    let shown = store.redrive(&app, &id).await.expect("shown");
    assert_eq!((shown.filter, shown.asked, shown.left), (Some(glob), 2, 2));
    let waiting = LetterFilter::standing(LetterStatus::RedriveRequested);
    assert_eq!(paths(&waiting).await, ["docs/b/c.md", "docs/a.md"]);
}

/// A filter means the same letters in a search, a redrive and a dismissal.
pub async fn a_filter_means_the_same_letters_wherever_it_stands(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let more = world.new_watch(&app);
    let more = crate::ports::NewWatch { url: "https://git.example/else".into(), ..more };
    let other = store.register_watch(&more).await.expect("a watch");
    world.parked(&cursor, 1, &["docs/a.md", "docs/b/c.md", "src/x"]).await;
    world.parked(&other.cursors[0].id, 1, &["docs/a.md"]).await;
    let q = |text: &str| LetterFilter {
        q: Some(Filter::parse(text, &LETTERS, Timestamp(5000)).expect(text)),
        ..LetterFilter::default()
    };
    for (text, expected) in [
        ("kind:update reason:rejected state:open since:-1s until:-0s", 4),
        ("NOT state:open OR since:-0s", 0),
        ("path:docs/** NOT path:docs/*", 1),
        ("path:docs/a.md OR path:~SRC", 3),
        (&format!("repository:{} path:docs/**", watch.id), 2),
        (&format!("NOT repository:{}", watch.id), 1),
        (&format!("app:{app} name:~/"), 4),
        ("app:app_01 OR nowhere", 0),
    ] {
        let page = store.dead_letters(&app, &q(text), None, 9).await.expect("found");
        assert_eq!((page.letters.len(), page.next), (expected, None), "{text}");
    }
    let some = LetterFilter {
        watch: Some(watch.id.clone()),
        ..q("path:~a.md OR (path:~c.md NOT state:redriven) since:-2s")
    };
    let id = store.begin_redrive(&app, &some).await.expect("begun");
    let step = store.mark_redrive(Some(&id)).await.expect("marked").expect("some");
    assert_eq!((step.marked, step.more, step.cursors), (2, false, vec![cursor]));
    let shown = store.redrive(&app, &id).await.expect("shown");
    assert_eq!((shown.filter, shown.asked), (Some(some), 2), "it is kept as it was read");
    let closed = store.dismiss_some(&app, &q("NOT path:docs/**"), None, Timestamp(6000)).await;
    assert_eq!(closed.expect("a step"), Dismissed { dismissed: 1, bound: 0, next: None });
}

/// Upkeep finds them without reading every letter.
pub async fn letters_that_lack_their_content_are_found_page_by_page(store: &dyn Store) {
    let world = World::new(store);
    let (app, _, cursor) = world.watched().await;
    world.parked(&cursor, 1, &["refused"]).await;
    let round = world.begin(&cursor, 2, 3).await;
    let lacks = |position, path| Park {
        reason: ParkReason::ContentUnavailable,
        ..world.park(&round, position, path)
    };
    let parked = vec![lacks(0, "a"), lacks(1, "b"), lacks(2, "c")];
    let ids: Vec<_> = parked.iter().map(|park| park.id.clone()).collect();
    let settlement = Settlement { parked, ..world.settlement(&round, 3) };
    assert!(store.settle(settlement).await.expect("settled"));
    let expected = |id: &DeadLetterId| (app.clone(), cursor.clone(), id.clone());
    let page = store.unavailable_letters(None, 2).await.expect("page");
    assert_eq!(page, [expected(&ids[0]), expected(&ids[1])]);
    let rest = store.unavailable_letters(Some(&ids[1]), 2).await.expect("page");
    assert_eq!(rest, [expected(&ids[2])]);
    store.request_redrive(&app, &ids[..1]).await.expect("asked");
    assert_eq!(store.unavailable_letters(None, 9).await.expect("page").len(), 2, "one is on its way");
}

/// A request names a round and a position, so that it never hits another change.
pub async fn the_head_that_was_seen_is_skipped_and_no_other(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let (other, _, foreign) = world.watched().await;
    let skip = |cursor, expected| store.request_skip(&app, &watch.id, cursor, expected);
    assert!(matches!(skip(None, None).await, Err(StoreError::Conflict(_))), "nothing is open");
    let round = world.begin(&cursor, 1, 3).await;
    assert!(matches!(skip(Some(&foreign), None).await, Err(StoreError::NotFound)));
    let stranger = store.request_skip(&other, &watch.id, None, None).await;
    assert!(matches!(stranger, Err(StoreError::NotFound)));
    assert!(world.settle(&round, 1).await);
    let seen = skip(None, Some((round.number, 0))).await;
    assert!(matches!(seen, Err(StoreError::Conflict(_))), "the head moved on");
    assert!(!world.lane(&cursor).await.skip_head);
    let head = skip(Some(&cursor), Some((round.number, 1))).await.expect("asked");
    assert_eq!(head, Head { cursor: cursor.clone(), round: round.number, position: 1, task: None });
    assert!(world.lane(&cursor).await.skip_head);
    assert!(world.settle(&round, 2).await);
    assert!(!world.lane(&cursor).await.skip_head, "the next one was not meant");
    assert!(world.settle(&round, 3).await);
    assert!(matches!(skip(None, None).await, Err(StoreError::Conflict(_))), "all is settled");
    world.finish(&round).await;
    world.begin(&cursor, 2, 3).await;
    assert!(!world.lane(&cursor).await.skip_head);
}

fn redrive(plan: &NewRound, letters: &[Letter]) -> NewRound {
    let mut new = plan.clone();
    new.round.spec.kind = RoundKind::Redrive;
    new.round.spec.target = new.round.spec.held.clone();
    new.round.spec.letters = letters.to_vec();
    new
}
