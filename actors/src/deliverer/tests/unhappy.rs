//! What happens to a change that was refused or failed, and then to its letter: each story goes on until
//! the app and its branch are compared.

use std::time::Duration;

use tidings_entity::{
    id::{AppId, ObjectId},
    kind::{CursorState, LetterStatus, OrderMode},
};
use tokio::time::Instant;

use crate::{
    model::sink::SinkAddress,
    ports::{AppPatch, AppStore, BatchSettings, LetterStore, SendFailure, StoreError, Watch, WatchStore},
    testing::{
        Fault,
        house::{House, files, refs},
        transport::{Answer, Reply},
    },
};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A house whose app has `a`, and what `edit` wants.
async fn house(order: OrderMode) -> (House, AppId, Watch) {
    let house = House::running().await;
    let first = house.commit(&[("a", "1"), ("o", "1")]);
    let app = house.app_with(|delivery| (delivery.order, delivery.max_in_flight) = (order, 8)).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    (house, app, watch)
}

async fn deliver(house: &House, watch: &Watch, files: &[(&str, &str)]) -> ObjectId {
    let commit = house.commit(files);
    house.poke(watch).await;
    house.until_held(watch, commit).await;
    commit
}

async fn open_letters(house: &House, app: &AppId) -> usize {
    house.letters(app).await.iter().filter(|letter| letter.status == LetterStatus::Open).count()
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_applied_and_then_refused_is_undone_when_the_file_goes() {
    for after in [Reply::Status(500), Reply::Failure(SendFailure::Timeout), Reply::Status(409)] {
        let (house, app, watch) = house(OrderMode::Strict).await;
        // Applied, and nobody hears of it; then it is refused, because it is there already.
        house.transport.answer_path("new", Some(Answer::Applied(after)));
        let with_new = house.commit(&[("a", "1"), ("o", "1"), ("new", "1")]);
        house.poke(&watch).await;
        house.transport.until("it was tried", |all| all.iter().any(|one| one.path == b"new")).await;
        house.transport.answer_path("new", Some(Answer::Status(409)));
        house.until_held(&watch, with_new).await;
        assert_eq!(open_letters(&house, &app).await, 1);
        house.transport.answer_path("new", None);
        let without = deliver(&house, &watch, &[("a", "1"), ("o", "1")]).await;
        house.assert_mirrors(&app, without);
        assert_eq!(open_letters(&house, &app).await, 0, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_that_was_applied_and_then_refused_is_undone_when_it_is_reverted() {
    for after in [Reply::Status(500), Reply::Failure(SendFailure::Connection), Reply::Status(422)] {
        let (house, app, watch) = house(OrderMode::Strict).await;
        house.transport.answer_path("a", Some(Answer::Applied(after)));
        let second = house.commit(&[("a", "2"), ("o", "1")]);
        house.poke(&watch).await;
        house.transport.until("it was tried", |all| all.len() > 2).await;
        house.transport.answer_path("a", Some(Answer::Status(422)));
        house.until_held(&watch, second).await;
        house.transport.answer_path("a", None);
        let back = deliver(&house, &watch, &[("a", "1"), ("o", "1")]).await;
        house.assert_mirrors(&app, back);
    }
}

/// The letter of `a` is bound to an open round, asked for by a redrive and taken back.
async fn taken_back_in_mid_round(order: OrderMode, restarts: bool) {
    let (house, app, watch) = house(order).await;
    house.transport.answer_path("a", Some(Answer::Status(422)));
    deliver(&house, &watch, &[("a", "2"), ("o", "1")]).await;
    // The next round binds the letter of a, and waits at its head.
    house.transport.answer_path("a", None);
    house.transport.answer_path("B", Some(Answer::Status(503)));
    let third = house.commit(&[("B", "1"), ("a", "3"), ("o", "1")]);
    house.poke(&watch).await;
    house.until("a round is open", async || house.cursor(&watch).await.open.is_some()).await;
    for _ in 0..2 {
        house.redrive_all(&app).await;
        house.refresh(&app).await;
    }
    house.store.cancel_redrive(&app, None).await.expect("cancelled");
    house.refresh(&app).await;
    if restarts {
        let mut house = house;
        house.stop(Duration::ZERO).await;
        house.start().await;
        return end_of_story(house, app, watch, third).await;
    }
    end_of_story(house, app, watch, third).await;
}

async fn end_of_story(house: House, app: AppId, watch: Watch, third: ObjectId) {
    house.transport.answer_path("B", None);
    house.until_held(&watch, third).await;
    house.assert_mirrors(&app, third);
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
    assert_eq!(open_letters(&house, &app).await, 0, "the round closed what it had bound");
    let back = deliver(&house, &watch, &[("a", "1"), ("o", "1")]).await;
    house.assert_mirrors(&app, back);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_is_taken_back_leaves_what_an_open_round_bound() {
    for order in [OrderMode::Strict, OrderMode::Phased] {
        taken_back_in_mid_round(order, false).await;
        taken_back_in_mid_round(order, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_redrive_asked_for_twice_and_cancelled_keeps_what_was_acknowledged_closed() {
    let (house, app, watch) = house(OrderMode::Strict).await;
    let all = files(6, "one");
    for (path, _) in &all {
        house.transport.answer_path(path, Some(Answer::Status(422)));
    }
    let mut with_all = refs(&all);
    with_all.extend([("a", "1"), ("o", "1")]);
    deliver(&house, &watch, &with_all).await;
    for (path, _) in &all {
        house.transport.answer_path(path, None);
    }
    house.transport.answer_path("name0005", Some(Answer::Status(503)));
    assert_eq!(house.redrive_all(&app).await, 6);
    house.refresh(&app).await;
    house
        .until("five are sent", async || {
            house.cursor(&watch).await.open.is_some_and(|(_, position, _)| position == 5)
        })
        .await;
    assert_eq!(house.redrive_all(&app).await, 0, "an open redrive is sending all of them already");
    house.store.cancel_redrive(&app, None).await.expect("cancelled");
    house.refresh(&app).await;
    house.until("it ended", async || house.cursor(&watch).await.open.is_none()).await;
    let sent = house.letters(&app).await;
    assert_eq!(sent.iter().filter(|letter| letter.status == LetterStatus::Redriven).count(), 5);
    house.transport.answer_path("name0005", None);
    let without = deliver(&house, &watch, &[("a", "1"), ("o", "1")]).await;
    house.assert_mirrors(&app, without);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_redrive_remembers_that_its_attempts_may_have_been_applied() {
    for order in [OrderMode::Strict, OrderMode::Phased] {
        let (house, app, watch) = house(order).await;
        house.transport.answer_path("a", Some(Answer::Status(422)));
        house.transport.answer_path("o", Some(Answer::Status(422)));
        deliver(&house, &watch, &[("a", "2"), ("o", "2")]).await;
        assert_eq!(open_letters(&house, &app).await, 2);
        // `a` is applied and nobody hears of it; in `phased`, `o` is acknowledged beyond it.
        house.transport.answer_path("a", Some(Answer::Applied(Reply::Status(500))));
        house.transport.answer_path("o", None);
        house.redrive_all(&app).await;
        house.refresh(&app).await;
        let tried = house.tried(&app).len();
        house.transport.until("it was tried", |all| all.len() > tried + 1).await;
        house.store.cancel_redrive(&app, None).await.expect("cancelled");
        house.refresh(&app).await;
        house.until("it ended", async || house.cursor(&watch).await.open.is_none()).await;
        house.transport.answer_path("a", None);
        let back = deliver(&house, &watch, &[("a", "1"), ("o", "1")]).await;
        house.assert_mirrors(&app, back);
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_is_sent_again_by_itself_once_only() {
    let (house, app, watch) = house(OrderMode::Strict).await;
    let all = files(11, "one");
    for (path, _) in &all[..10] {
        house.transport.answer_path(path, Some(Answer::Status(404)));
    }
    let mut with_all = refs(&all);
    with_all.extend([("a", "1"), ("o", "1")]);
    // The eleventh is taken: the streak of ten is sent again, refused again, and then left alone.
    let second = deliver(&house, &watch, &with_all).await;
    house.until("it was sent again", async || house.letters(&app).await.len() == 20).await;
    for content in ["2", "3", "4", "5"] {
        with_all.last_mut().expect("o").1 = content;
        deliver(&house, &watch, &with_all).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(house.letters(&app).await.len(), 20, "after {second} nothing is tried again");
        assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
    }
}

#[tokio::test(start_paused = true)]
async fn a_streak_of_batches_is_sent_again_whole_after_a_restart() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let batch = BatchSettings { count: 8, ..BatchSettings::default() };
    let app = house.app_with(|delivery| delivery.batch = Some(batch)).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    let all = files(80, "one");
    let mut with_all = refs(&all);
    with_all.push(("a", "1"));
    house.transport.answer_app(&app, Some(Answer::Status(500)));
    let second = house.commit(&with_all);
    house.poke(&watch).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    let parked = house.letters(&app).await.len();
    house.stop(Duration::ZERO).await;
    house.start().await;
    house.transport.answer_app(&app, None);
    house.until_held(&watch, second).await;
    house
        .until("all is redriven", async || {
            let letters = house.letters(&app).await;
            letters.iter().filter(|letter| letter.status == LetterStatus::Redriven).count() == parked
        })
        .await;
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_endpoint_of_before_say_nothing_of_the_new_one() {
    for last_word in [
        Answer::Slow(410, Duration::from_secs(20)),
        Answer::Slow(503, Duration::from_secs(20)),
        Answer::Slow(404, Duration::from_secs(20)),
    ] {
        let (house, app, watch) = house(OrderMode::Strict).await;
        house.transport.answer_app(&app, Some(last_word));
        let second = house.commit(&[("a", "2"), ("o", "2")]);
        house.poke(&watch).await;
        house.until("it is on its way", async || house.transport.flying(&app) > 0).await;
        house.transport.answer_app(&app, None);
        let moved = AppPatch {
            receives_at: Some(SinkAddress::Endpoint("https://moved.example/".to_owned())),
            ..AppPatch::default()
        };
        house.store.patch_app(&app, &moved, house.context.now()).await.expect("patched");
        house.refresh(&app).await;
        let since = Instant::now();
        house.until_held(&watch, second).await;
        assert!(since.elapsed() < Duration::from_secs(25), "{:?} after {last_word:?}", since.elapsed());
        let app_row = house.store.app(&app).await.expect("read").expect("there");
        assert_eq!(app_row.disabled, None, "{last_word:?}");
        house.assert_mirrors(&app, second);
        assert!(house.letters(&app).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_endpoint_of_before_takes_late_is_not_sent_to_the_new_one() {
    let (house, app, watch) = house(OrderMode::Strict).await;
    let before = house.taken(&app).len();
    house.transport.answer_path("a", Some(Answer::Slow(200, Duration::from_secs(20))));
    let second = house.commit(&[("a", "2"), ("o", "2")]);
    house.poke(&watch).await;
    house.until("it is on its way", async || house.transport.flying(&app) > 0).await;
    house.transport.answer_path("a", None);
    let moved = AppPatch {
        receives_at: Some(SinkAddress::Endpoint("https://moved.example/".to_owned())),
        ..AppPatch::default()
    };
    house.store.patch_app(&app, &moved, house.context.now()).await.expect("patched");
    house.refresh(&app).await;
    house.until_held(&watch, second).await;
    assert_eq!(house.taken(&app)[before..], ["U a", "U o"], "each once");
}

#[tokio::test(start_paused = true)]
async fn patience_that_the_endpoint_of_before_asked_for_ends_with_it() {
    let (house, app, watch) = house(OrderMode::Strict).await;
    house.transport.answer_app(&app, Some(Answer::RetryAfter(503, Duration::from_secs(3_600))));
    let second = house.commit(&[("a", "2"), ("o", "2")]);
    house.poke(&watch).await;
    house.transport.until("it asks for patience", |all| all.iter().any(|one| one.answer == Ok(503))).await;
    house.transport.answer_app(&app, None);
    let moved = AppPatch {
        receives_at: Some(SinkAddress::Endpoint("https://moved.example/".to_owned())),
        ..AppPatch::default()
    };
    house.store.patch_app(&app, &moved, house.context.now()).await.expect("patched");
    house.refresh(&app).await;
    let since = Instant::now();
    house.until_held(&watch, second).await;
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_and_a_reload_repeat_nothing_that_was_answered() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let app =
        house.app_with(|delivery| (delivery.order, delivery.max_in_flight) = (OrderMode::Phased, 8)).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    let all = files(60, "one");
    house.transport.answer_path("name0000", Some(Answer::Status(500)));
    house.transport.answer_path("name0030", Some(Answer::Status(422)));
    let mut with_a = refs(&all);
    with_a.push(("a", "1"));
    let second = house.commit(&with_a);
    house.poke(&watch).await;
    house.until("58 are taken", async || house.taken(&app).len() == 1 + 58).await;
    house.refresh(&app).await;
    house.stop(Duration::from_secs(20)).await;
    house.start().await;
    house.refresh(&app).await;
    house.transport.answer_path("name0000", None);
    house.until_held(&watch, second).await;
    assert_eq!(house.taken(&app).len(), 1 + 59, "each once");
    assert_eq!(house.letters(&app).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_the_database_takes_no_writes_nothing_is_sent_twice() {
    let (house, app, watch) = house(OrderMode::Strict).await;
    for _ in 0..40 {
        house.store.befall("settle", Fault::Fails(StoreError::Unavailable("full".into())));
    }
    let all = files(200, "one");
    let mut with_a = refs(&all);
    with_a.extend([("a", "1"), ("o", "1")]);
    let since = Instant::now();
    let second = deliver(&house, &watch, &with_a).await;
    assert!(since.elapsed() > Duration::from_secs(600), "the writes were tried with patience");
    assert_eq!(house.taken(&app).len(), 2 + 200, "each once");
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_can_be_had_nowhere_blocks_its_branch_and_costs_a_look_now_and_then() {
    let (house, app, watch) = house(OrderMode::Strict).await;
    let head = house.cursor(&watch).await.held.expect("held");
    house.git.lose(head);
    house.store.request_resync(&app, &watch.id, true).await.expect("asked");
    house.refresh(&app).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    let reason = house.cursor(&watch).await.reason.expect("a reason");
    assert!(reason.contains("neither in the mirror nor at the Git host"), "{reason}");
    let asked = house.git.refusals();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let asked = house.git.refusals() - asked;
    assert!(asked < 200, "{asked} requests in an hour");
    let next = deliver(&house, &watch, &[("a", "2"), ("o", "2")]).await;
    house.assert_mirrors(&app, next);
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_registered_by_a_clock_ahead_waits_a_second() {
    let house = House::running().await;
    let commit = house.commit(&[("a", "1")]);
    let app = house.app().await;
    let ahead = house.context.now().after(2 * DAY);
    let url = crate::testing::house::URL;
    let watch = house.watch_with(&app, url, |new| new.deliver_after = ahead).await;
    let since = Instant::now();
    house.until_held(&watch, commit).await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}
