//! What people do to a lane at work: skip its head, cancel a redrive; and what an older version
//! left behind.

use std::time::Duration;

use tidings_entity::kind::{CursorState, LetterStatus, ParkReason, PayloadFormat, WatchState};

use crate::{
    model::round::{RULES, Round, RoundSpec, Summary, TreeEnd},
    model::view::View,
    ports::{Action, LaneStore, LetterStore, NewRound, WatchPatch, WatchStore},
    testing::{
        house::{House, files, refs},
        transport::Answer,
    },
};

#[tokio::test(start_paused = true)]
async fn a_head_that_is_skipped_by_hand_is_parked_and_the_next_goes_on() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    // An endpoint failure alone never parks.
    house.transport.answer_path("b", Some(Answer::Status(503)));
    let second = house.commit(&[("a", "1"), ("b", "1"), ("c", "1")]);
    house.poke(&watch).await;
    house.until("b was tried", async || house.tried(&app).iter().any(|tried| tried.path == b"b")).await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert!(house.letters(&app).await.is_empty());

    let head = house.store.request_skip(&app, &watch.id, None, None).await.expect("asked");
    assert_eq!(head.position, 0);
    // Killed before anybody did it: the request is a row.
    house.stop(Duration::ZERO).await;
    house.start().await;
    house.until_held(&watch, second).await;
    assert_eq!(house.taken(&app), ["C a", "C c"]);
    let letters = house.letters(&app).await;
    assert_eq!((letters[0].path.as_slice(), letters[0].reason), (b"b".as_slice(), ParkReason::Skipped));

    // Nobody knows what the app has of it: whatever the next commit says, it is told.
    house.transport.answer_path("b", None);
    let third = house.commit(&[("a", "1"), ("c", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, third).await;
    assert_eq!(house.taken(&app)[2..], ["D b"]);
}

#[tokio::test(start_paused = true)]
async fn a_skip_reaches_a_running_lane_by_a_refresh_and_ends_a_block() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    let all = files(14, "one");
    for (path, _) in &all {
        house.transport.answer_path(path, Some(Answer::Status(404)));
    }
    let mut with_a = refs(&all);
    with_a.push(("a", "1"));
    let second = house.commit(&with_a);
    house.poke(&watch).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    // Everything but the head would be taken now.
    for (path, _) in all.iter().filter(|(path, _)| path != "name0010") {
        house.transport.answer_path(path, None);
    }
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(house.letters(&app).await.len(), 10, "the head is tried as a probe");
    house.store.request_skip(&app, &watch.id, None, None).await.expect("asked");
    house.refresh(&app).await;
    house.until_held(&watch, second).await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
    let redriven = async || {
        let letters = house.letters(&app).await;
        letters.iter().filter(|letter| letter.status == LetterStatus::Redriven).count() == 10
    };
    house.until("the streak is redriven", redriven).await;
    let skipped: Vec<_> =
        house.letters(&app).await.into_iter().filter(|letter| letter.reason == ParkReason::Skipped).collect();
    assert_eq!((skipped.len(), skipped[0].status), (1, LetterStatus::Open), "by hand stays by hand");
}

#[tokio::test(start_paused = true)]
async fn a_skip_does_not_go_before_the_announcement_of_a_resync() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1"), ("b", "1")]);
    let app = house.app_with(|delivery| delivery.resync = true).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    house.transport.answer_app(&app, Some(Answer::Status(422)));
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    house.store.request_skip(&app, &watch.id, None, None).await.expect("asked");
    house.refresh(&app).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(house.letters(&app).await.is_empty(), "nothing goes before the announcement");
    house.transport.answer_app(&app, None);
    house.until_held(&watch, first).await;
    assert_eq!(house.letters(&app).await[0].path, b"a");
    assert_eq!(house.taken(&app)[2..], ["C b"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_redrive_ends_where_it_stands_and_reopens_the_rest() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("ok", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    let all = files(9, "one");
    for (path, _) in &all {
        house.transport.answer_path(path, Some(Answer::Status(422)));
    }
    let mut with_ok = refs(&all);
    with_ok.push(("ok", "1"));
    let second = house.commit(&with_ok);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert_eq!(house.letters(&app).await.len(), 9);
    for (path, _) in &all {
        house.transport.answer_path(path, None);
    }
    house.transport.answer_path("name0004", Some(Answer::Status(503)));
    let asked = house.redrive_all(&app).await;
    assert_eq!(asked, 9);
    house.refresh(&app).await;
    house
        .until("four are sent", async || {
            house.cursor(&watch).await.open.is_some_and(|(_, position, _)| position == 4)
        })
        .await;
    let cancelled = house.store.cancel_redrive(&app, None).await.expect("asked");
    assert_eq!((cancelled.reopened, cancelled.ending.len()), (0, 1));
    // Killed before anybody did it: the request is a row.
    house.stop(Duration::ZERO).await;
    house.start().await;
    house.until("it ended", async || house.cursor(&watch).await.open.is_none()).await;
    let letters = house.letters(&app).await;
    for letter in &letters {
        let reached = letter.path.as_slice() < b"name0004".as_slice();
        let expected = if reached { LetterStatus::Redriven } else { LetterStatus::Open };
        assert_eq!(letter.status, expected, "{}", String::from_utf8_lossy(&letter.path));
    }
    assert_eq!(house.cursor(&watch).await.held, Some(second));
    let sent = house.tried(&app).len();
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(house.tried(&app).len(), sent, "nothing more is sent");

    house.transport.answer_path("name0004", None);
    house.redrive_all(&app).await;
    house.refresh(&app).await;
    let settled = async || house.letters(&app).await.iter().all(|it| it.status == LetterStatus::Redriven);
    house.until("all is redriven", settled).await;
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_is_asked_for_while_a_paused_one_is_cancelled_is_done_after_the_pause() {
    let house = House::running().await;
    let first = house.commit(&[("ok", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    for path in ["a", "b", "c"] {
        house.transport.answer_path(path, Some(Answer::Status(422)));
    }
    let second = house.commit(&[("a", "1"), ("b", "1"), ("c", "1"), ("ok", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.transport.answer_path("a", None);
    house.transport.answer_path("b", Some(Answer::Status(503)));
    house.transport.answer_path("c", None);
    assert_eq!(house.redrive_all(&app).await, 3);
    house.refresh(&app).await;
    let one_is_sent = async || house.cursor(&watch).await.open.is_some_and(|(_, position, _)| position == 1);
    house.until("one is sent", one_is_sent).await;
    let to = |state| WatchPatch { state: Some((state, None)), ..WatchPatch::default() };
    house.store.patch_watch(&app, &watch.id, &to(WatchState::Paused)).await.expect("paused");
    house.refresh(&app).await;
    let cancelled = house.store.cancel_redrive(&app, None).await.expect("cancelled");
    assert_eq!(cancelled.ending.len(), 1, "it ends when the watch is resumed");
    house.refresh(&app).await;
    house.redrive_all(&app).await;
    house.transport.answer_path("b", None);
    house.store.patch_watch(&app, &watch.id, &to(WatchState::Active)).await.expect("resumed");
    house.refresh(&app).await;
    let is_done = async || house.letters(&app).await.iter().all(|it| it.status == LetterStatus::Redriven);
    house.until("all is redriven", is_done).await;
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn a_round_of_older_rules_is_ended_by_a_resync_at_the_start() {
    for rules in [RULES - 2, RULES + 1] {
        let mut house = House::new();
        let commit = house.commit(&[("a", "1"), ("b", "1")]);
        let app = house.app().await;
        let watch = house.watch(&app).await;
        let cursor = house.cursor(&watch).await.id;
        let target = Some(TreeEnd { commit, view: View::default() });
        let spec = RoundSpec {
            kind: tidings_entity::kind::RoundKind::Sync,
            held: None,
            target,
            bases: vec![],
            letters: vec![],
        };
        let digest = tidings_entity::id::Sha256Hash::of(b"an order that nobody knows");
        let round = Round {
            cursor: cursor.clone(),
            number: 1,
            spec,
            summary: Summary { deletes: 0, creates: 5, updates: 0, digest },
            rules,
            began_at: house.context.now(),
            branch: "refs/heads/main".into(),
            url: String::new(),
            format: PayloadFormat::Docora,
            history_rewritten: false,
            skipped_commits: false,
            complete: false,
            position: 0,
        };
        house.store.begin_round(&NewRound { round, planned_after: 0 }).await.expect("begun");
        house.start().await;
        house.until_held(&watch, commit).await;
        assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
        assert_eq!(house.taken(&app), ["C a", "C b"]);
        house.assert_mirrors(&app, commit);
    }
}

fn synced(house: &House, app: &tidings_entity::id::AppId) -> Vec<Result<u16, crate::ports::SendFailure>> {
    let arrivals = house.transport.arrivals();
    let own = arrivals.iter().filter(|it| it.app == *app && it.action == Action::Synced);
    own.map(|arrival| arrival.answer).collect()
}

#[tokio::test(start_paused = true)]
async fn a_refused_synced_is_recorded_and_the_round_ends() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let app = house.app_with(|delivery| delivery.synced = true).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    assert_eq!(synced(&house, &app), [Ok(200)]);
    let refused = Answer::Status(404);
    house.transport.script([Answer::Status(200), refused, refused, refused]);
    let second = house.commit(&[("a", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert_eq!(synced(&house, &app)[1..], [Ok(404); 3], "tried as a refused change is, and no more");
    let recorded = house.store.attempts();
    let own: Vec<_> =
        recorded.iter().map(|it| (it.position, it.number, it.status, it.item_failure)).collect();
    assert_eq!(own, [(1, 1, Some(404), true), (1, 2, Some(404), true), (1, 3, Some(404), true)]);
    assert!(house.letters(&app).await.is_empty());
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_not_well_gets_synced_when_it_is() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let app = house.app_with(|delivery| delivery.synced = true).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    let second = house.commit(&[("a", "2")]);
    house.transport.answer_path("a", Some(Answer::Status(200)));
    house.transport.answer_app(&app, Some(Answer::Status(503)));
    house.poke(&watch).await;
    house.until("it was tried", async || synced(&house, &app).contains(&Ok(503))).await;
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    assert!(house.cursor(&watch).await.open.is_some(), "the round does not end without it");
    let tried = synced(&house, &app).len();
    assert!((6..60).contains(&tried), "{tried} tries in half an hour: probes of the breaker");
    house.stop(Duration::ZERO).await;
    house.start().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(house.cursor(&watch).await.open.is_some());
    house.transport.answer_app(&app, None);
    house.until_held(&watch, second).await;
    assert_eq!(synced(&house, &app).last(), Some(&Ok(200)));
    assert_eq!(house.taken(&app), ["C a", "U a"], "no change is sent for it again");
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
}
