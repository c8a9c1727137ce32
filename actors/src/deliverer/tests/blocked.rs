//! Changes that are given up one after another, and refusals that are forgiven.

use std::time::Duration;

use tidings_entity::kind::{CursorState, LetterStatus, ParkReason};

use crate::{
    ports::{Action, StoreError, WatchStore},
    testing::{
        Fault,
        house::{House, files, refs},
        transport::Answer,
    },
};

#[tokio::test(start_paused = true)]
async fn ten_doubtful_answers_in_a_row_block_and_after_the_heads_2xx_the_streak_is_redriven() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    let all = files(30, "one");
    for (path, _) in &all {
        house.transport.answer_path(path, Some(Answer::Status(404)));
    }
    let mut with_a = refs(&all);
    with_a.push(("a", "1"));
    let second = house.commit(&with_a);
    house.poke(&watch).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    tokio::time::sleep(Duration::from_secs(4 * 3_600)).await;
    assert_eq!(house.letters(&app).await.len(), 10, "nothing more is parked");
    let probed = house.tried(&app).iter().filter(|arrival| arrival.path == b"name0010").count();
    assert!((48..300).contains(&probed), "the head is probed every five minutes: {probed} times");
    assert!(house.tried(&app).iter().all(|arrival| arrival.path != b"name0011"), "only the head");

    for (path, _) in &all {
        house.transport.answer_path(path, None);
    }
    house
        .until("all is redriven", async || {
            let letters = house.letters(&app).await;
            letters.len() == 10 && letters.iter().all(|letter| letter.status == LetterStatus::Redriven)
        })
        .await;
    house.until_held(&watch, second).await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn an_unblocking_waits_for_the_rows_of_what_was_given_up() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    let all = files(12, "one");
    for (path, _) in &all[..10] {
        house.transport.answer_path(path, Some(Answer::Status(404)));
    }
    // The settlement of the last refusal takes longer than the next answer.
    for _ in 0..9 {
        house.store.befall("settle", Fault::Waits(Duration::ZERO));
    }
    house.store.befall("settle", Fault::Waits(Duration::from_secs(20)));
    let mut with_a = refs(&all);
    with_a.push(("a", "1"));
    let second = house.commit(&with_a);
    house.poke(&watch).await;
    house.until("ten are parked", async || house.letters(&app).await.len() == 10).await;
    for (path, _) in &all {
        house.transport.answer_path(path, None);
    }
    house.until_held(&watch, second).await;
    house
        .until("all is redriven", async || {
            house.letters(&app).await.iter().all(|letter| letter.status == LetterStatus::Redriven)
        })
        .await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn a_block_and_its_end_are_on_disk_with_the_changes_that_led_to_them() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    // A writer of two separate transactions would be killed between them.
    for verb in ["set_blocked", "request_redrive"] {
        house.store.befall(verb, Fault::Hangs);
    }
    let all = files(12, "one");
    for (path, _) in &all {
        house.transport.answer_path(path, Some(Answer::Status(404)));
    }
    let mut with_a = refs(&all);
    with_a.push(("a", "1"));
    let second = house.commit(&with_a);
    house.poke(&watch).await;
    house.until("ten are parked", async || house.letters(&app).await.len() == 10).await;
    house.stop(Duration::ZERO).await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Blocked);

    house.start().await;
    for (path, _) in &all {
        house.transport.answer_path(path, None);
    }
    house
        .until("the head was taken", async || {
            house.cursor(&watch).await.open.is_none_or(|(_, position, _)| position > 10)
        })
        .await;
    house.stop(Duration::ZERO).await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
    assert!(house.letters(&app).await.iter().all(|letter| letter.status != LetterStatus::Open));
    house.start().await;
    house.until_held(&watch, second).await;
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_streak_is_what_receivers_refused() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    let all = files(13, "one");
    for (path, _) in &all[1..] {
        house.transport.answer_path(path, Some(Answer::Status(404)));
    }
    house.transport.lose_content("name0005", true);
    let mut with_a = refs(&all);
    with_a.push(("a", "1"));
    let second = house.commit(&with_a);
    house.poke(&watch).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    house.stop(Duration::ZERO).await;
    for (path, _) in &all {
        house.transport.answer_path(path, None);
    }
    house.start().await;
    house.until_held(&watch, second).await;
    house
        .until("the refused ones are redriven", async || {
            let letters = house.letters(&app).await;
            letters.iter().filter(|letter| letter.status == LetterStatus::Redriven).count() == 10
        })
        .await;
    let letters = house.letters(&app).await;
    let ours: Vec<_> =
        letters.iter().filter(|letter| letter.reason == ParkReason::ContentUnavailable).collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0].status, LetterStatus::Open, "what we parked ourselves does not count");
}

#[tokio::test(start_paused = true)]
async fn an_unblocking_that_is_not_written_is_tried_again() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    let all = files(12, "one");
    for (path, _) in &all {
        house.transport.answer_path(path, Some(Answer::Status(404)));
    }
    let mut with_a = refs(&all);
    with_a.push(("a", "1"));
    let second = house.commit(&with_a);
    house.poke(&watch).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    for _ in 0..2 {
        house.store.befall("settle", Fault::Fails(StoreError::Unavailable("down".into())));
    }
    for (path, _) in &all {
        house.transport.answer_path(path, None);
    }
    house.until_held(&watch, second).await;
    house
        .until("all is redriven", async || {
            house.letters(&app).await.iter().all(|letter| letter.status == LetterStatus::Redriven)
        })
        .await;
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn a_new_watch_waits_two_minutes_on_404_and_not_on_422() {
    let house = House::running().await;
    let commit = house.commit(&[("a", "1"), ("b", "1")]);
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Status(404)));
    let watch = house.watch(&app).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(house.letters(&app).await.is_empty(), "the client may not have saved its registration yet");
    house.transport.answer_app(&app, None);
    house.until_held(&watch, commit).await;
    assert_eq!(house.taken(&app), ["C a", "C b"]);

    let late = house.app().await;
    house.transport.answer_app(&late, Some(Answer::Status(404)));
    house.watch(&late).await;
    let since = tokio::time::Instant::now();
    house.until("it is given up", async || house.letters(&late).await.len() == 2).await;
    let waited = since.elapsed();
    assert!(
        waited < Duration::from_secs(150),
        "the grace belongs to the watch, not to each change: {waited:?}"
    );

    let picky = house.app().await;
    house.transport.answer_app(&picky, Some(Answer::Status(422)));
    house.watch(&picky).await;
    let since = tokio::time::Instant::now();
    house.until("it is given up", async || house.letters(&picky).await.len() == 2).await;
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refused_announcement_blocks_and_its_2xx_unblocks() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let app = house.app_with(|delivery| delivery.resync = true).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    house.transport.answer_app(&app, Some(Answer::Status(404)));
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    let changes = house.tried(&app).len();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(house.tried(&app).len(), changes, "no change before the announcement is taken");
    house.transport.answer_app(&app, None);
    house.until_held(&watch, first).await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
    let arrivals = house.transport.arrivals();
    assert!(arrivals.iter().any(|arrival| arrival.action == Action::Resync && arrival.answer == Ok(200)));
}
