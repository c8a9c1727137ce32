//! What every store must keep of rounds and settlements.

use std::sync::Arc;

use futures_util::future::join_all;
use tidings_entity::kind::{CursorState, LetterStatus, Operation, ParkReason, RoundKind, WatchState};

use super::world::{MAIN, World, change, commit, listing, tree, view};
use crate::{
    model::round::{DeliveryId, Letter, Round},
    model::view::View,
    ports::{
        AttemptRecord, HeadAttempts, KeptAnswer, LaneTerms, Park, REFUSALS_MAX, Reach, STREAK_MAX,
        SelfRedrive, Settlement, SinkKey, Standing, Store, StoreError, Streak, WatchPatch,
    },
    time::Timestamp,
};

/// Views are immutable: new settings of a watch do not reach into an open round.
pub async fn an_open_round_is_given_back_as_it_was_begun(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 3).await;
    let patch = WatchPatch { view: Some(view("docs/**")), ..WatchPatch::default() };
    store.patch_watch(&app, &watch.id, &patch).await.expect("patched");
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.open, Some(round.clone()));
    assert_eq!(lane.view, view("docs/**"));
    assert_eq!(lane.last_round, round.number);
    let status = &store.watch(&app, &watch.id).await.expect("watch").cursors[0];
    assert_eq!(status.open, Some((round.number, 0, 3)));
    world.finish(&round).await;
    assert!(world.is_pending(&cursor).await, "the changed view is delivered next");
    assert_eq!(world.lane(&cursor).await.held, Some((commit(1), View::default())));
}

/// A plan is worth something only while nothing moved.
pub async fn a_round_planned_from_an_older_state_is_refused(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    let plan = world.plan(&cursor, 1, 1).await;
    let mut low = plan.clone();
    low.round.number = 0;
    let mut begun = plan.clone();
    begun.round.position = 1;
    let mut moved = plan.clone();
    moved.round.spec.held = Some(tree(5, &View::default()));
    for refused in [low, begun, moved] {
        assert!(matches!(store.begin_round(&refused).await, Err(StoreError::Conflict(_))), "{refused:?}");
    }
    store.begin_round(&plan).await.expect("begun");
    let mut second = plan.clone();
    second.round.number += 1;
    second.planned_after = plan.round.number;
    assert!(matches!(store.begin_round(&second).await, Err(StoreError::Conflict(_))), "one is open");
    world.finish(&plan.round).await;
    second.planned_after = 0;
    assert!(matches!(store.begin_round(&second).await, Err(StoreError::Conflict(_))), "planned too early");
}

/// A settlement counts once, for its own round, and never backwards or beyond the end.
pub async fn settlements_are_absolute_and_belong_to_one_round(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 3).await;
    assert!(!world.settle(&round, 0).await, "nothing new");
    assert!(world.settle(&round, 2).await);
    assert!(!world.settle(&round, 2).await, "not new any more");
    assert!(!world.settle(&round, 1).await, "backwards");
    assert!(!world.settle(&round, 4).await, "beyond the end");
    let other = Round { number: round.number + 1, ..round.clone() };
    assert!(!world.settle(&other, 3).await, "not its round");
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.open.as_ref().map(|round| round.position), Some(2));
    assert!(lane.acknowledged);
    let finish = |number| store.finish_round(&cursor, number, Timestamp(5000), true);
    assert!(!finish(round.number).await.expect("answered"), "one change is not settled");
    world.finish(&round).await;
    assert!(!finish(round.number).await.expect("answered"), "ended once");
    let parked = vec![world.park(&round, 2, "late")];
    let late = Settlement { parked, streak: streak(9, &round), ..world.settlement(&round, 3) };
    assert!(!store.settle(late).await.expect("answered"), "the round has ended");
    let lane = world.lane(&cursor).await;
    assert!(lane.letters.is_empty() && lane.streak == Streak::default(), "a late settlement changes nothing");
}

/// The end of a round is where the app stands.
pub async fn a_finished_round_moves_held(store: &dyn Store) {
    let world = World::new(store);
    let (_, watch, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 2).await;
    store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), Timestamp(6000)).await.expect("moved");
    world.finish(&round).await;
    let lane = world.lane(&cursor).await;
    assert_eq!(lane.held, Some((commit(1), View::default())));
    assert_eq!((lane.open, lane.last_round), (None, round.number));
    assert!(world.is_pending(&cursor).await, "the head moved meanwhile");
    let empty = world.begin(&cursor, 2, 0).await;
    world.finish(&empty).await;
    assert!(!world.is_pending(&cursor).await);
    let mut to_nothing = world.plan(&cursor, 1, 1).await;
    to_nothing.round.spec.target = None;
    store.begin_round(&to_nothing).await.expect("begun");
    world.finish(&to_nothing.round).await;
    assert_eq!(world.lane(&cursor).await.held, None);
}

/// `advance` is for the case that nothing differs.
pub async fn held_moves_without_a_round_only_where_nothing_happened(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    let held = Some((commit(1), View::default().id()));
    assert!(matches!(store.advance(&cursor, 7, held).await, Err(StoreError::Conflict(_))));
    store.advance(&cursor, 0, held).await.expect("advanced");
    assert_eq!(world.lane(&cursor).await.held, Some((commit(1), View::default())));
    assert!(!world.is_pending(&cursor).await);
    let round = world.begin(&cursor, 2, 1).await;
    let refused = store.advance(&cursor, round.number, held).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "a round is open");
}

/// Settlements of many lanes, several of one lane among them, are each answered rightly.
pub async fn many_lanes_settle_at_once(store: &dyn Store) {
    let world = World::new(store);
    let app = world.app().await;
    let mut rounds = Vec::new();
    for number in 0..40 {
        let mut new = world.new_watch(&app);
        new.selector.value = format!("b{number}");
        new.listing = listing(&[(&format!("refs/heads/b{number}"), 1)]);
        let watch = store.register_watch(&new).await.expect("registered");
        rounds.push(world.begin(&watch.cursors[0].id, 1, 10).await);
    }
    let settlements = rounds.iter().flat_map(|round| {
        let other = Round { number: round.number + 1, ..round.clone() };
        [(round.clone(), 3, true), (round.clone(), 7, true), (other, 9, false), (round.clone(), 11, false)]
    });
    let settlements = settlements.zip(0_u128..).map(|((round, position, fresh), index)| {
        let mut settlement = world.settlement(&round, position);
        if position == 3 {
            settlement.parked = vec![world.park(&round, 2, &format!("p{index}"))];
        }
        async move { (store.settle(settlement).await.expect("settled"), position, fresh) }
    });
    for (settled, position, fresh) in join_all(settlements).await {
        assert_eq!(settled, fresh, "position {position}");
    }
    for round in &rounds {
        let lane = world.lane(&round.cursor).await;
        assert_eq!(lane.open.map(|round| round.position), Some(7));
        assert_eq!(lane.letters.len(), 1);
    }
}

/// What is kept of an answer comes back as it was.
fn answer(status: u16) -> KeptAnswer {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers =
        vec![header("server", "one \"two\""), header("via", "\u{fffd}"), header("via", &status.to_string())];
    KeptAnswer { headers, body: "{\"said\": \"no\"}".into() }
}

/// Tries outlive the process that made them, per change.
pub async fn failed_tries_of_the_head_are_counted(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 2).await;
    let change = change("a", Operation::Create);
    let try_of = |position, number, status, item_failure| AttemptRecord {
        cursor: cursor.clone(),
        round: round.number,
        position,
        number,
        delivery: DeliveryId::of(&cursor, round.number, &change),
        status,
        item_failure,
        excerpt: "an answer".into(),
        answer: status.map(|status| Arc::new(answer(status))),
        took_ms: 5,
        at: Timestamp(4000 + i64::from(number)),
        next_at: (status != Some(200)).then_some(Timestamp(4500 + i64::from(number))),
    };
    let tries = [
        try_of(0, 1, None, false),
        try_of(0, 2, Some(500), true),
        try_of(0, 2, Some(500), true),
        try_of(0, 3, Some(200), false),
        try_of(1, 1, Some(422), true),
    ];
    let first_two = [tries[0].clone(), tries[1].clone()];
    assert!(first_two[0].answer.is_none() && first_two[1].answer.is_some());
    for attempt in tries {
        store.record_attempt(attempt).await.expect("recorded");
    }
    assert_eq!(store.attempts(&cursor, round.number, 0, 2).await.expect("read"), first_two);
    assert!(store.attempts(&cursor, round.number + 1, 0, 2).await.expect("read").is_empty());
    let counted = HeadAttempts {
        earlier: 0,
        tries: 2,
        item_tries: 1,
        first_failure: Some(Timestamp(4001)),
        last_failure: Some(Timestamp(4002)),
    };
    assert_eq!(world.lane(&cursor).await.head_attempts, counted);
    assert!(world.settle(&round, 1).await);
    assert_eq!(world.lane(&cursor).await.head_attempts.tries, 1, "of the next change");
}

/// A block freezes a round; unblocking ends the streak.
pub async fn a_blocked_cursor_keeps_its_round_and_its_place(store: &dyn Store) {
    let world = World::new(store);
    let (_, watch, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 3).await;
    let parked = vec![world.park(&round, 0, "a")];
    let settlement = Settlement { parked, streak: streak(10, &round), ..world.settlement(&round, 1) };
    assert!(store.settle(settlement).await.expect("settled"));
    store.set_blocked(&cursor, Some("ten in a row")).await.expect("blocked");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.state, lane.reason.as_deref()), (CursorState::Blocked, Some("ten in a row")));
    assert_eq!((lane.streak, lane.open.map(|round| round.position)), (streak(10, &round), Some(1)));
    assert!(world.is_pending(&cursor).await, "it is probed");
    store.move_heads(&watch.source, &listing(&[("refs/heads/x", 1)]), Timestamp(6000)).await.expect("polled");
    assert_eq!(world.lane(&cursor).await.state, CursorState::Blocked, "whatever its branch does");
    store.set_blocked(&cursor, None).await.expect("unblocked");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.state, lane.reason, lane.streak.count), (CursorState::BranchMissing, None, 0));
    assert!(world.is_pending(&cursor).await, "its open round goes on");
}

/// What a settled prefix does to its cursor is in the same transaction, or nowhere.
pub async fn a_settlement_blocks_and_unblocks_its_cursor(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 4).await;
    let counted = |position, path| Park { counted: true, ..world.park(&round, position, path) };
    let parked = vec![counted(0, "a"), counted(1, "b")];
    let letters: Vec<_> = parked.iter().map(|park| park.id.clone()).collect();
    let blocked = Settlement {
        parked,
        streak: streak(2, &round),
        acknowledged: false,
        standing: Standing::Blocked("two in a row".into()),
        ..world.settlement(&round, 2)
    };
    let late = Settlement { standing: Standing::Unblocked, ..world.settlement(&round, 2) };
    assert!(store.settle(blocked).await.expect("settled"));
    assert!(!store.settle(late).await.expect("answered"), "nothing new");
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.state, lane.reason.as_deref()), (CursorState::Blocked, Some("two in a row")));
    assert_eq!((lane.streak, lane.open.map(|round| round.position)), (streak(2, &round), Some(2)));
    let unblocked = Settlement {
        standing: Standing::Unblocked,
        redrive: vec![SelfRedrive { from: (round.number, 1), before: (round.number, 2), counted: true }],
        ..world.settlement(&round, 3)
    };
    assert!(store.settle(unblocked).await.expect("settled"));
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.state, lane.reason, lane.streak.count), (CursorState::Active, None, 0));
    let marks: Vec<_> = lane.letters.iter().map(|(letter, status)| (&letter.id, *status)).collect();
    let expected = [(&letters[0], LetterStatus::Open), (&letters[1], LetterStatus::RedriveRequested)];
    assert_eq!(marks, expected);
    world.finish(&round).await;
}

/// What was parked for other reasons, before the streak, after what ended it, or is closed since, is left
/// alone; and a letter is sent again by itself once only, however often its path is given up.
pub async fn a_streak_is_sent_again_by_itself_once(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    world.parked(&cursor, 1, &["before"]).await;
    let round = world.begin(&cursor, 2, 6).await;
    let park = |position, path, reason| Park { reason, ..world.park(&round, position, path) };
    let counted = |position, path, reason| Park { counted: true, ..park(position, path, reason) };
    let parked = vec![
        counted(0, "a", ParkReason::Rejected),
        park(1, "b", ParkReason::ContentUnavailable),
        park(2, "c", ParkReason::Rejected),
        counted(3, "d", ParkReason::Failing),
        counted(5, "e", ParkReason::Failing),
    ];
    let streak = SelfRedrive { from: (round.number, 0), before: (round.number, 4), counted: true };
    let ended = Settlement { parked, redrive: vec![streak], ..world.settlement(&round, 6) };
    assert!(store.settle(ended).await.expect("settled"));
    let asked = async || {
        let letters = world.lane(&cursor).await.letters.into_iter();
        let asked = letters.filter(|(_, status)| *status == LetterStatus::RedriveRequested);
        asked.map(|(letter, _)| letter).collect::<Vec<Letter>>()
    };
    let paths = |letters: &[Letter]| letters.iter().map(|letter| letter.path.clone()).collect::<Vec<_>>();
    let meant = asked().await;
    assert_eq!(paths(&meant), [b"a".to_vec(), b"d".to_vec()]);
    world.finish_settled(&round).await;

    let mut again = world.plan(&cursor, 2, 2).await;
    again.round.spec.kind = RoundKind::Redrive;
    again.round.spec.letters = meant;
    store.begin_round(&again).await.expect("begun");
    let refused = |position, path| Park { counted: true, ..world.park(&again.round, position, path) };
    let everything = SelfRedrive { from: (0, 0), before: (i64::MAX, 0), counted: false };
    let parked = vec![refused(0, "a"), refused(1, "d")];
    let settlement = Settlement { parked, redrive: vec![everything], ..world.settlement(&again.round, 2) };
    assert!(store.settle(settlement).await.expect("settled"));
    let left = [b"before".to_vec(), b"c".to_vec(), b"e".to_vec()];
    assert_eq!(paths(&asked().await), left, "a and d were sent again already");
}

/// What the open round sends anyway is not sent again by itself as well.
pub async fn a_letter_that_the_open_round_binds_is_not_sent_again_by_itself(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a", "b"]).await;
    let mut next = world.plan(&cursor, 2, 3).await;
    next.round.spec.letters = vec![letters[0].clone()];
    store.begin_round(&next).await.expect("begun");
    let everything = SelfRedrive { from: (0, 0), before: (i64::MAX, 0), counted: false };
    let well = Settlement { redrive: vec![everything], ..world.settlement(&next.round, 1) };
    assert!(store.settle(well).await.expect("settled"));
    let status = async |path: &[u8]| {
        let lane = world.lane(&cursor).await;
        lane.letters.iter().find(|(letter, _)| letter.path == path).map(|(_, status)| *status)
    };
    assert_eq!(status(b"a").await, Some(LetterStatus::Open));
    assert_eq!(status(b"b").await, Some(LetterStatus::RedriveRequested));
    // Its own once is not spent: given up again, it may still be sent by itself.
    let parked = vec![world.park(&next.round, 1, "a")];
    let again = Settlement { parked, redrive: vec![everything], ..world.settlement(&next.round, 3) };
    assert!(store.settle(again).await.expect("settled"));
    assert_eq!(status(b"a").await, Some(LetterStatus::RedriveRequested));
}

/// A lane that ends and does not learn whether its outcomes were written writes them again.
pub async fn outcomes_above_the_position_are_written_once_however_often_they_come(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    world.sync(&cursor, 1).await;
    let round = world.begin(&cursor, 2, 6).await;
    assert!(world.lane(&cursor).await.untouched);
    let above = Settlement {
        above: vec![1..3, 4..5],
        parked: vec![world.park(&round, 2, "c"), world.park(&round, 4, "e"), world.park(&round, 4, "e")],
        ..world.settlement(&round, 0)
    };
    for _ in 0..3 {
        assert!(store.settle(above.clone()).await.expect("settled"));
        let lane = world.lane(&cursor).await;
        assert_eq!(lane.above, [1..3, 4..5]);
        assert!(!lane.untouched, "the app has something of this round");
        let open: Vec<_> = lane.letters.iter().map(|(letter, _)| letter.id.clone()).collect();
        assert_eq!(open, [above.parked[0].id.clone(), above.parked[2].id.clone()], "the last of a path");
    }
    let passes = Settlement { absorbs: true, ..world.settlement(&round, 4) };
    assert!(store.settle(passes).await.expect("settled"));
    let left = world.lane(&cursor).await.above;
    assert_eq!(left.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>(), [(4, 5)]);
}

/// Where the parks in a row began is written also when their number stays.
pub async fn a_streak_that_begins_anew_with_the_same_number_is_written(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 6).await;
    for position in [1, 3] {
        let streak = Streak { count: 1, from: Some((round.number, position - 1)), refused: 0 };
        let settlement = Settlement { streak, ..world.settlement(&round, position) };
        assert!(store.settle(settlement).await.expect("settled"));
        assert_eq!(world.lane(&cursor).await.streak, streak);
    }
}

/// A receiver that refused everything is believed when it takes a test, and its watch when it is resumed.
pub async fn a_block_by_refusals_ends_with_a_test_or_by_hand(store: &dyn Store) {
    let world = World::new(store);
    for by_hand in [true, false] {
        let (app, watch, cursor) = world.watched().await;
        let round = world.begin(&cursor, 1, 4).await;
        let parked = vec![world.park(&round, 0, "a"), world.park(&round, 1, "b")];
        let refused = Settlement {
            parked,
            streak: Streak { refused: REFUSALS_MAX, ..Streak::default() },
            acknowledged: false,
            standing: Standing::Blocked("refuses_everything".into()),
            ..world.settlement(&round, 2)
        };
        assert!(store.settle(refused).await.expect("settled"));
        let blocked = world.lane(&cursor).await;
        assert_eq!(blocked.state, CursorState::Blocked);
        if by_hand {
            let resumed = WatchPatch { state: Some((WatchState::Active, None)), ..WatchPatch::default() };
            store.patch_watch(&app, &watch.id, &resumed).await.expect("resumed");
        } else {
            store.end_refusals(&SinkKey::own(&app)).await.expect("ended");
        }
        let lane = world.lane(&cursor).await;
        assert!(!LaneTerms::of(&blocked).last_under(&LaneTerms::of(&lane)), "a lane that runs reads it");
        assert_eq!((lane.state, lane.reason, lane.streak.refused), (CursorState::Active, None, 0));
        let expected = if by_hand { LetterStatus::Open } else { LetterStatus::RedriveRequested };
        assert!(lane.letters.iter().all(|(_, status)| *status == expected), "{:?}", lane.letters);
        assert_eq!(lane.letters.len(), 2);
    }
}

/// A block by refusals outlives the end of its round, and what waits for that block alone waits on.
pub async fn a_block_by_refusals_outlives_its_round(store: &dyn Store) {
    let world = World::new(store);
    let (_, watch, cursor) = world.watched().await;
    let round = world.begin(&cursor, 1, 2).await;
    let refused = Settlement {
        parked: vec![world.park(&round, 0, "a"), world.park(&round, 1, "b")],
        streak: Streak { refused: REFUSALS_MAX, ..Streak::default() },
        acknowledged: false,
        standing: Standing::Blocked("refuses_everything".into()),
        ..world.settlement(&round, 2)
    };
    assert!(store.settle(refused).await.expect("settled"));
    world.finish_settled(&round).await;
    let lane = world.lane(&cursor).await;
    assert_eq!((lane.state, lane.streak.refused), (CursorState::Blocked, REFUSALS_MAX));
    assert!(!world.is_pending(&cursor).await);
    store.move_heads(&watch.source, &listing(&[(MAIN, 2)]), Timestamp(6000)).await.expect("moved");
    assert!(world.is_pending(&cursor).await, "a new commit is probed with");
}

/// A head that cannot be delivered blocks too; that block ends when the branch is back at the held commit.
pub async fn a_block_that_no_streak_led_to_is_looked_at_again(store: &dyn Store) {
    let world = World::new(store);
    let (_, _, cursor) = world.watched().await;
    for (count, is_looked_at) in [(STREAK_MAX - 1, true), (STREAK_MAX, false)] {
        let round = world.begin(&cursor, 1, 1).await;
        let settlement = Settlement { streak: streak(count, &round), ..world.settlement(&round, 1) };
        assert!(store.settle(settlement).await.expect("settled"));
        world.finish_settled(&round).await;
        store.set_blocked(&cursor, Some("a reason")).await.expect("blocked");
        assert_eq!(world.is_pending(&cursor).await, is_looked_at, "{count} in a row");
    }
}

/// Somebody looked and let the next deletion happen; a redrive in between is not that.
pub async fn the_guard_is_waived_until_a_round_that_is_no_redrive(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let letters = world.parked(&cursor, 1, &["a"]).await;
    store.pause_by_guard(&cursor, "too much").await.expect("paused");
    let resumed = WatchPatch { state: Some((WatchState::Active, None)), ..WatchPatch::default() };
    store.patch_watch(&app, &watch.id, &resumed).await.expect("resumed");
    let mut redrive = world.plan(&cursor, 1, 1).await;
    redrive.round.spec.kind = RoundKind::Redrive;
    redrive.round.spec.letters = letters;
    store.begin_round(&redrive).await.expect("begun");
    world.finish(&redrive.round).await;
    assert!(world.lane(&cursor).await.guard_waived, "it was given for the sync that waits");
    let round = world.begin(&cursor, 2, 1).await;
    assert!(!world.lane(&cursor).await.guard_waived);
    world.finish(&round).await;
    store.pause_by_guard(&cursor, "too much").await.expect("paused");
    store.advance(&cursor, round.number, Some((commit(3), View::default().id()))).await.expect("advanced");
    assert!(!world.lane(&cursor).await.guard_waived, "what it was given for is no more");
}

/// Paused watches, disabled apps and cursors that caught up wait for nothing.
pub async fn what_has_nothing_to_do_is_not_pending(store: &dyn Store) {
    let world = World::new(store);
    let (app, watch, cursor) = world.watched().await;
    let other = world.app().await;
    let other_watch = world.watch(&other).await;
    let other_cursor = other_watch.cursors[0].id.clone();
    let since = |watch: &crate::ports::Watch| watch.cursors[0].behind_since;
    assert_eq!((since(&watch), since(&other_watch)), (Some(Timestamp(1000)), Some(Timestamp(1000))));
    assert_eq!(
        store.pending(Some(&app), &Reach::All).await.expect("pending"),
        [(SinkKey::own(&app), cursor.clone())]
    );
    let paused =
        WatchPatch { state: Some((WatchState::Paused, Some("why".into()))), ..WatchPatch::default() };
    store.patch_watch(&app, &watch.id, &paused).await.expect("paused");
    assert_eq!(
        store.pending(None, &Reach::All).await.expect("pending"),
        [(SinkKey::own(&other), other_cursor)]
    );
    world.disable(&other, Some("by hand")).await;
    assert!(store.pending(None, &Reach::All).await.expect("pending").is_empty());
    let resumed = WatchPatch { state: Some((WatchState::Active, None)), ..WatchPatch::default() };
    assert_eq!(store.patch_watch(&app, &watch.id, &resumed).await.expect("resumed").reason, None);
    world.disable(&other, None).await;
    assert_eq!(store.pending(None, &Reach::All).await.expect("pending").len(), 2);
    world.sync(&cursor, 1).await;
    assert!(!world.is_pending(&cursor).await);
}

/// A number of counted parks, from the beginning of a round.
fn streak(count: u32, round: &Round) -> Streak {
    Streak { count, from: Some((round.number, 0)), refused: 0 }
}
