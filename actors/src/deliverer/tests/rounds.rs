//! Rounds one after another: what arrives, in which order, and what is held afterwards.

use std::time::Duration;

use tidings_entity::kind::{
    BranchGone, CursorState, HistoryMode, LetterStatus, OrderMode, ParkReason, SelectorKind, WatchState,
};

use crate::{
    model::view::View,
    ports::{Action, LetterStore, Selector, WatchPatch, WatchStore},
    testing::{
        house::{House, URL, files, location, refs},
        transport::Answer,
    },
};

fn view(include: &[&str]) -> View {
    let globs = include.iter().map(|glob| (*glob).to_owned()).collect();
    View::new(globs, vec![], false, tidings_entity::kind::ContentRule::Inline, 1 << 20).expect("globs")
}

#[tokio::test(start_paused = true)]
async fn the_first_sync_delivers_every_file_in_order_and_then_each_commit_its_difference() {
    let house = House::running().await;
    let first = house.commit(&[("b", "1"), ("a", "1"), ("c/d", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    assert_eq!(house.taken(&app), ["C a", "C b", "C c/d"]);
    house.assert_mirrors(&app, first);

    let second = house.commit(&[("a", "2"), ("b", "1"), ("e", "1"), ("aa", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert_eq!(house.taken(&app)[3..], ["D c/d", "C aa", "C e", "U a"], "deletes, creates, updates");
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn a_long_round_arrives_whole_once_and_in_order_also_in_phased_order() {
    for order in [OrderMode::Strict, OrderMode::Phased] {
        let house = House::running().await;
        let all = files(700, "one");
        let commit = house.commit(&refs(&all));
        let app = house.app_with(|delivery| delivery.order = order).await;
        let watch = house.watch(&app).await;
        house.until_held(&watch, commit).await;
        house.assert_mirrors(&app, commit);
        let mut expected: Vec<String> = all.iter().map(|(path, _)| format!("C {path}")).collect();
        let mut taken = house.taken(&app);
        if order == OrderMode::Phased {
            taken.sort();
            expected.sort();
        }
        assert_eq!(taken, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_moves_faster_than_a_round_is_planned_is_delivered_all_the_same() {
    let house = House::running().await;
    let first = house.commit(&[("a", "0")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.git.plan_takes(Duration::from_secs(3));
    for number in 1..60 {
        house.commit(&[("a", &number.to_string())]);
        house.poke(&watch).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(house.taken(&app).len() > 5, "{:?}", house.taken(&app));
    let last = house.commit(&[("a", "last")]);
    house.until_held(&watch, last).await;
    house.assert_mirrors(&app, last);
}

#[tokio::test(start_paused = true)]
async fn every_mode_makes_a_round_of_each_commit() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let app = house.app().await;
    let watch = house.watch_with(&app, URL, |watch| watch.mode = HistoryMode::Every).await;
    house.until_held(&watch, first).await;
    house.commit(&[("a", "2")]);
    house.commit(&[("a", "2"), ("b", "1")]);
    let last = house.commit(&[("b", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, last).await;
    assert_eq!(house.taken(&app), ["C a", "U a", "C b", "D a", "U b"]);
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_file_does_not_block_the_next_and_the_next_round_remembers_its_letter() {
    let house = House::running().await;
    let empty = house.commit(&[("ok", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, empty).await;

    house.transport.answer_path("poison", Some(Answer::Status(422)));
    house.transport.answer_path("broken", Some(Answer::Status(500)));
    let second = house.commit(&[("ok", "1"), ("broken", "1"), ("poison", "1"), ("z", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert_eq!(house.taken(&app), ["C ok", "C z"]);
    let letters = house.letters(&app).await;
    let reasons: Vec<_> = letters.iter().map(|letter| (letter.path.as_slice(), letter.reason)).collect();
    assert!(reasons.contains(&(b"poison".as_slice(), ParkReason::Rejected)), "{reasons:?}");
    assert!(reasons.contains(&(b"broken".as_slice(), ParkReason::Failing)), "{reasons:?}");

    house.transport.answer_path("poison", None);
    house.transport.answer_path("broken", None);
    let third = house.commit(&[("ok", "1"), ("z", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, third).await;
    // What the app has of a path that it refused or failed on is unknown.
    assert_eq!(house.taken(&app)[2..], ["D broken", "D poison"]);
    let open = house.letters(&app).await.iter().filter(|letter| letter.status == LetterStatus::Open).count();
    assert_eq!(open, 0, "both letters are superseded");
    house.assert_mirrors(&app, third);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_was_given_up_is_sent_also_when_it_goes_back_to_what_it_was() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1"), ("b", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_path("a", Some(Answer::Status(422)));
    let second = house.commit(&[("a", "2"), ("b", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.transport.answer_path("a", None);
    let third = house.commit(&[("a", "1"), ("b", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, third).await;
    assert_eq!(house.taken(&app), ["C a", "C b", "U b", "U a"]);
    assert!(house.letters(&app).await.iter().all(|letter| letter.status == LetterStatus::Superseded));
    house.assert_mirrors(&app, third);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_is_a_round_of_its_own_with_new_ids_that_names_what_it_replays() {
    let house = House::running().await;
    let first = house.commit(&[("ok", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_path("poison", Some(Answer::Status(422)));
    let second = house.commit(&[("ok", "1"), ("poison", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.transport.answer_path("poison", None);
    let letter = house.letters(&app).await.remove(0);
    house.store.request_redrive(&app, &[letter.id]).await.expect("open");
    house.refresh(&app).await;
    house
        .until("the letter is redriven", async || {
            house.letters(&app).await[0].status == LetterStatus::Redriven
        })
        .await;
    house.assert_mirrors(&app, second);
    let arrival = house.tried(&app).pop().expect("it arrived");
    assert_ne!(arrival.id, letter.delivery);
    let order = house.transport.order(&arrival.id).expect("rendered");
    assert_eq!(order.change.replay_of, Some(letter.delivery));
}

#[tokio::test(start_paused = true)]
async fn a_filter_changed_in_mid_round_comes_as_the_next_round() {
    let house = House::running().await;
    let all = files(100, "one");
    let commit = house.commit(&refs(&all));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(100))));
    let watch = house.watch(&app).await;
    house.transport.until("ten arrived", |arrivals| arrivals.len() >= 10).await;
    let patch = WatchPatch { view: Some(view(&["name000*"])), ..WatchPatch::default() };
    house.store.patch_watch(&app, &watch.id, &patch).await.expect("patched");
    house.refresh(&app).await;
    house.until("ten files are left", async || house.taken(&app).len() == 190).await;
    let taken = house.taken(&app);
    let creates: Vec<String> = all.iter().map(|(path, _)| format!("C {path}")).collect();
    assert_eq!(taken[..100], creates, "the round ends under the filter it began with");
    assert_eq!(taken.len(), 190);
    assert_eq!(taken[100], "D name0010");
    house.until_held(&watch, commit).await;
}

#[tokio::test(start_paused = true)]
async fn a_resync_in_mid_round_leaves_neither_ghosts_nor_gaps() {
    let house = House::running().await;
    let first = house.commit(&refs(&files(60, "one")));
    let app = house.app_with(|delivery| (delivery.resync, delivery.synced) = (true, true)).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(50))));
    let mut other = files(60, "two");
    other.iter_mut().for_each(|(path, _)| path.insert(0, 'x'));
    house.commit(&refs(&other));
    house.poke(&watch).await;
    house.transport.until("creates of the second arrived", |arrivals| arrivals.len() > 150).await;
    assert!(house.cursor(&watch).await.open.is_some(), "in mid-round");
    let third = house.commit(&[("last", "1"), ("name0003", "new")]);
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    house.poke(&watch).await;
    house.until_held(&watch, third).await;
    house.assert_mirrors(&app, third);
    let actions: Vec<Action> = house.transport.arrivals().iter().map(|arrival| arrival.action).collect();
    let resync = actions.iter().rposition(|action| *action == Action::Resync).expect("announced");
    assert_eq!(actions[resync + 1], Action::Delete, "after the announcement the deletes");
    assert_eq!(actions.last(), Some(&Action::Synced));
}

#[tokio::test(start_paused = true)]
async fn unwatching_in_mid_round_stops_sending() {
    let house = House::running().await;
    house.commit(&refs(&files(100, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(100))));
    let watch = house.watch(&app).await;
    house.transport.until("ten arrived", |arrivals| arrivals.len() >= 10).await;
    house.store.unwatch(&app, &watch.id).await.expect("unwatched");
    house.refresh(&app).await;
    let sent = house.transport.arrivals().len();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let more = house.transport.arrivals().len() - sent;
    assert!(more <= 1, "{more} were sent after it");
    assert!(house.deliverer(&app).is_none(), "its deliverer ended");
}

#[tokio::test(start_paused = true)]
async fn a_paused_watch_is_left_alone_in_mid_round_and_goes_on_where_it_was() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(50, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(100))));
    let watch = house.watch(&app).await;
    house.transport.until("ten arrived", |arrivals| arrivals.len() >= 10).await;
    let to = |state| WatchPatch { state: Some((state, None)), ..WatchPatch::default() };
    house.store.patch_watch(&app, &watch.id, &to(WatchState::Paused)).await.expect("paused");
    house.refresh(&app).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let sent = house.tried(&app).len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(house.tried(&app).len(), sent, "nothing goes while it is paused");
    house.store.patch_watch(&app, &watch.id, &to(WatchState::Active)).await.expect("resumed");
    house.refresh(&app).await;
    house.until_held(&watch, commit).await;
    assert_eq!(house.taken(&app).len(), 50, "nothing twice");
}

#[tokio::test(start_paused = true)]
async fn a_round_that_deletes_too_much_pauses_and_a_resume_lets_it_pass() {
    let mut house = House::with(|policy| policy.max_delete_percent = Some(50));
    house.start().await;
    let first = house.commit(&refs(&files(10, "one")));
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    let second = house.commit(&refs(&files(2, "one")));
    house.poke(&watch).await;
    house
        .until("it is paused", async || {
            house.store.watch(&app, &watch.id).await.expect("watched").state == WatchState::Paused
        })
        .await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(house.taken(&app).len(), 10);
    let resume = WatchPatch { state: Some((WatchState::Active, None)), ..WatchPatch::default() };
    house.store.patch_watch(&app, &watch.id, &resume).await.expect("resumed");
    house.refresh(&app).await;
    house.until_held(&watch, second).await;
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn the_guard_asks_before_the_files_of_a_vanished_branch_go() {
    let mut house = House::with(|policy| policy.max_delete_percent = Some(99));
    house.start().await;
    house.commit(&[("a", "1")]);
    let release = house.git.commit(&location(URL), "release/1", &[("r", "1")]);
    let app = house.app_with(|delivery| delivery.multi_branch = true).await;
    let watch = house
        .watch_with(&app, URL, |watch| {
            watch.selector = Selector { kind: SelectorKind::BranchPattern, value: "release/*".into() };
            watch.on_branch_gone = BranchGone::Delete;
        })
        .await;
    house.until_held(&watch, release).await;
    house.git.remove_branch(&location(URL), "release/1");
    let shown = async || house.store.watch(&app, &watch.id).await.expect("watched");
    house.until("it is paused", async || shown().await.state == WatchState::Paused).await;
    let reason = shown().await.reason.expect("a reason");
    assert!(reason.contains("1 of 1 files") && reason.contains("resume"), "{reason}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(house.taken(&app), ["C r"]);
    let resume = WatchPatch { state: Some((WatchState::Active, None)), ..WatchPatch::default() };
    house.store.patch_watch(&app, &watch.id, &resume).await.expect("resumed");
    house.refresh(&app).await;
    house.until("its files went", async || house.taken(&app) == ["C r", "D r"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_open_round_that_cannot_go_on_says_so_and_goes_on_when_it_can() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_app(&app, Some(Answer::Status(503)));
    let second = house.commit(&[("a", "2"), ("b", "1")]);
    house.poke(&watch).await;
    house.until("a round is open", async || house.cursor(&watch).await.open.is_some()).await;
    house.stop(Duration::ZERO).await;
    // The next process has lower caps.
    house.git.too_large(second, true);
    house.transport.answer_app(&app, None);
    house.start().await;
    house.until("it says so", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    let shown = house.cursor(&watch).await;
    let reason = shown.reason.expect("a reason");
    assert!(
        reason.contains("repository too large") && reason.contains("a resync is the way out"),
        "{reason}"
    );
    assert!(shown.open.is_some(), "the round stays");
    house.git.too_large(second, false);
    house.until_held(&watch, second).await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
    house.assert_mirrors(&app, second);
}

#[tokio::test(start_paused = true)]
async fn a_vanished_mirror_is_fetched_again_by_id_and_delivery_goes_on() {
    let house = House::running().await;
    let first = house.commit(&refs(&files(40, "one")));
    let app = house.app().await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(100))));
    let watch = house.watch(&app).await;
    house.transport.until("ten arrived", |arrivals| arrivals.len() >= 10).await;
    house.git.forget_objects();
    house.refresh(&app).await;
    house.until_held(&watch, first).await;
    let second = house.commit(&refs(&files(20, "two")));
    house.git.forget_objects();
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.assert_mirrors(&app, second);
    assert!(house.letters(&app).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_held_commit_that_is_obtainable_nowhere_leads_to_a_complete_resync() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1"), ("ghost", "1")]);
    let app = house.app_with(|delivery| delivery.resync = true).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    house.git.lose(first);
    let second = house.commit(&[("a", "2"), ("b", "1")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert_eq!(house.taken(&app)[2..], ["C a", "C b"]);
    let complete = house.transport.notices(&app).into_iter().any(|notice| {
        matches!(notice, crate::ports::Notice::OfRound { action: Action::Resync, round, .. } if round.complete)
    });
    assert!(complete, "the app is told to drop what is not named");
}

#[tokio::test(start_paused = true)]
async fn a_resync_of_a_missing_branch_sends_what_stays_and_spins_on_nothing() {
    let house = House::running().await;
    house.git.commit(&location(URL), "other", &[("x", "1")]);
    let first = house.commit(&[("a", "1"), ("bad", "1")]);
    let app = house.app().await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, first).await;
    house.transport.answer_path("bad", Some(Answer::Status(422)));
    let second = house.commit(&[("a", "1"), ("bad", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.git.remove_branch(&location(URL), "main");
    house.poke(&watch).await;
    house
        .until("the branch is missing", async || {
            house.cursor(&watch).await.state == CursorState::BranchMissing
        })
        .await;
    house.redrive_all(&app).await;
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    house.transport.answer_path("bad", None);
    house.git.point(&location(URL), "main", second);
    let third = house.commit(&[("a", "1"), ("bad", "3")]);
    house.poke(&watch).await;
    house.until_held(&watch, third).await;
    assert_eq!(house.taken(&app)[2..], ["C a", "U bad"], "it was resynced while it was gone");
    house.assert_mirrors(&app, third);
}

#[tokio::test(start_paused = true)]
async fn acknowledged_attempts_are_rows_only_where_all_history_is_wanted() {
    for (all, expected) in [
        (false, vec![(0, 1, Some(500))]),
        (true, vec![(0, 1, Some(500)), (0, 2, Some(200)), (1, 1, Some(200))]),
    ] {
        let mut house = House::with(|policy| policy.record_all = all);
        house.start().await;
        let commit = house.commit(&[("a", "1"), ("b", "1")]);
        house.transport.script([Answer::Status(500)]);
        let (_, watch, _) = house.watching().await;
        house.until_held(&watch, commit).await;
        let rows = || {
            let rows = house.store.attempts();
            let mut rows: Vec<_> = rows.iter().map(|row| (row.position, row.number, row.status)).collect();
            rows.sort_unstable();
            rows
        };
        house.until("its attempts are rows", async || rows() == expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_after_a_doubt_is_still_in_doubt() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1"), ("b", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    // The app does it and says 500.
    house.transport.answer_path("a", Some(Answer::Status(500)));
    let second = house.commit(&[("a", "2"), ("b", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    let mut mirror = house.transport.mirror(&app);
    mirror.insert(b"a".to_vec(), house.git.files(second)[b"a".as_slice()]);
    house.transport.restore(&app, mirror);
    house.transport.answer_path("a", Some(Answer::Status(422)));
    let third = house.commit(&[("a", "3"), ("b", "3")]);
    house.poke(&watch).await;
    house.until_held(&watch, third).await;
    house.transport.answer_path("a", None);
    let fourth = house.commit(&[("a", "1"), ("b", "4")]);
    house.poke(&watch).await;
    house.until_held(&watch, fourth).await;
    house.assert_mirrors(&app, fourth);
}

#[tokio::test(start_paused = true)]
async fn what_a_resync_could_not_bring_is_still_deleted_later() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1"), ("b", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.transport.answer_path("a", Some(Answer::Status(422)));
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    house.until("it is refused", async || !house.letters(&app).await.is_empty()).await;
    house.transport.answer_path("a", None);
    let second = house.commit(&[("b", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.assert_mirrors(&app, second);
}
