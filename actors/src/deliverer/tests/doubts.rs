//! Receivers that apply a change and answer as if they had not, and those that really did not. Each test
//! goes on after the dead letter: the path is turned back, then removed, and the trees are compared. A
//! letter that claims to know what the receiver has shows only there.

use std::time::Duration;

use tidings_entity::{
    id::{AppId, ObjectId},
    kind::{ContentRule, CursorState, LetterStatus, OrderMode},
};

use crate::{
    deliverer::outlets::pulling::{Acknowledgement, PullRequest},
    model::{
        sink::SinkAddress,
        view::{MAX_SIZE_DEFAULT, View},
    },
    ports::{
        AppPatch, AppStore, BatchSettings, DeliverySettings, LetterStore, SendFailure, SinkKey, Watch,
        WatchStore,
    },
    testing::{
        house::{House, URL, location},
        transport::{Answer, Reply},
    },
};

type Files = &'static [(&'static str, &'static str)];

const OLD: Files = &[("keep", "1"), ("p", "old")];
const NEW: Files = &[("keep", "1"), ("p", "new")];
const GONE: Files = &[("keep", "1")];

/// What a commit does to the path: before, after.
const CHANGES: [(&str, Files, Files); 3] =
    [("create", GONE, NEW), ("update", OLD, NEW), ("delete", OLD, GONE)];

const TIMED_OUT: SendFailure = SendFailure::Timeout;
const RESET: SendFailure = SendFailure::Connection;

/// Answers to the first tries of the change; then the answer to each further one.
const ANSWERS: [(&[Answer], Answer); 10] = [
    (&[], Answer::Status(409)),
    (&[], Answer::Status(422)),
    (&[], Answer::Status(500)),
    (&[], Answer::Applied(Reply::Status(409))),
    (&[], Answer::Applied(Reply::Status(404))),
    (&[], Answer::Applied(Reply::Status(500))),
    (&[Answer::Applied(Reply::Status(500))], Answer::Status(409)),
    (&[Answer::Applied(Reply::Failure(TIMED_OUT))], Answer::Status(409)),
    (&[Answer::Applied(Reply::Failure(RESET))], Answer::Status(422)),
    (&[Answer::Applied(Reply::Late(Duration::from_secs(20)))], Answer::Status(422)),
];

/// Commits, and waits until the app holds that with nothing open.
async fn brought_to(house: &House, watch: &Watch, files: Files) -> ObjectId {
    let commit = house.commit(files);
    house.poke(watch).await;
    house.until_held(watch, commit).await;
    commit
}

/// The receiver takes everything; these commits follow `after`, and after each the receiver has the files of
/// the commit. Only a letter whose path a commit leaves as it was may stay open.
async fn goes_on(house: &House, app: &AppId, watch: &Watch, what: &str, after: Files, then: &[Files]) {
    house.transport.answer_path("p", None);
    let mut before = after;
    for files in then {
        let commit = brought_to(house, watch, files).await;
        let is_parked = *files == before && !open_letters(house, app).await.is_empty();
        let has = house.transport.mirror(app);
        assert!(
            is_parked || has == house.git.files(commit),
            "{what}, then {files:?}: the receiver has {has:?}"
        );
        before = files;
    }
    let open = open_letters(house, app).await;
    assert!(open.is_empty(), "{what}: all that was given up was sent again, and yet {open:?}");
}

async fn open_letters(house: &House, app: &AppId) -> Vec<String> {
    let letters = house.letters(app).await;
    let open = letters.iter().filter(|letter| letter.status == LetterStatus::Open);
    open.map(|letter| String::from_utf8_lossy(&letter.path).into_owned()).collect()
}

/// The ways of an app.
pub(super) fn ways() -> [DeliverySettings; 4] {
    let batch = BatchSettings { count: 10, bytes: 1 << 20, linger_ms: 50 };
    let way = |order, batch| DeliverySettings { order, batch, ..DeliverySettings::default() };
    [
        way(OrderMode::Strict, None),
        way(OrderMode::Phased, None),
        way(OrderMode::Strict, Some(batch)),
        way(OrderMode::Phased, Some(batch)),
    ]
}

/// An app of these ways that holds `files`.
async fn holding(house: &House, way: &DeliverySettings, files: Files) -> (AppId, Watch) {
    let commit = house.commit(files);
    let app = house.app_with(|delivery| *delivery = way.clone()).await;
    let watch = house.watch(&app).await;
    house.until_held(&watch, commit).await;
    (app, watch)
}

/// Each change with each answer and each ending, for an app of this way.
async fn all_is_right_after_the_path_is_turned_back_and_removed(way: &DeliverySettings) {
    for (operation, before, after) in CHANGES {
        for (first, then) in ANSWERS {
            for ending in [[before, GONE], [GONE, OLD], [NEW, before]] {
                let house = House::running().await;
                let (app, watch) = holding(&house, way, before).await;
                house.transport.script_path("p", first.iter().copied());
                house.transport.answer_path("p", Some(then));
                brought_to(&house, &watch, after).await;
                let batch = way.batch.is_some();
                let what =
                    format!("{operation} ({:?}, batch {batch}) answered {first:?} {then:?}", way.order);
                assert_eq!(open_letters(&house, &app).await, ["p"], "{what}");
                goes_on(&house, &app, &watch, &what, after, &ending).await;
            }
        }
    }
}

/// One test for each of the ways, because each takes minutes.
macro_rules! given_up {
    ($($test:ident: $way:literal)+) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $test() {
                all_is_right_after_the_path_is_turned_back_and_removed(&ways()[$way]).await;
            }
        )+
    };
}

given_up! {
    what_a_strict_lane_gave_up_is_right_after_the_path_is_turned_back_and_removed: 0
    what_a_phased_lane_gave_up_is_right_after_the_path_is_turned_back_and_removed: 1
    what_strict_batches_gave_up_is_right_after_the_path_is_turned_back_and_removed: 2
    what_phased_batches_gave_up_is_right_after_the_path_is_turned_back_and_removed: 3
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_on_its_way_at_a_kill_and_is_then_refused_may_have_been_applied() {
    for (operation, before, after) in CHANGES {
        let mut house = House::new();
        house.start().await;
        let (app, watch) = holding(&house, &DeliverySettings::default(), before).await;
        house.transport.answer_path("p", Some(Answer::Applied(Reply::Hang)));
        let commit = house.commit(after);
        house.poke(&watch).await;
        let applied = async || house.transport.mirror(&app) == house.git.files(commit);
        house.until("it was applied", applied).await;
        house.stop(Duration::ZERO).await;
        house.transport.answer_path("p", Some(Answer::Status(409)));
        house.start().await;
        house.until_held(&watch, commit).await;
        assert_eq!(open_letters(&house, &app).await, ["p"], "{operation}");
        goes_on(&house, &app, &watch, operation, after, &[before, OLD, GONE]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_was_applied_and_cancelled_is_turned_back() {
    for answer in [Reply::Status(500), Reply::Failure(TIMED_OUT), Reply::Failure(RESET), Reply::Hang] {
        for (operation, before, after) in CHANGES {
            let mut house = House::new();
            house.start().await;
            let (app, watch) = holding(&house, &DeliverySettings::default(), before).await;
            house.transport.answer_path("p", Some(Answer::Status(422)));
            let commit = brought_to(&house, &watch, after).await;
            house.transport.answer_path("p", Some(Answer::Applied(answer)));
            house.redrive_all(&app).await;
            house.refresh(&app).await;
            let applied = async || house.transport.mirror(&app) == house.git.files(commit);
            house.until("it was applied", applied).await;
            house.store.cancel_redrive(&app, None).await.expect("asked");
            // What is on its way when a redrive is cancelled is waited for; a kill ends that wait.
            if answer == Reply::Hang {
                house.stop(Duration::ZERO).await;
                house.start().await;
            }
            house.refresh(&app).await;
            house.until("it ended", async || house.cursor(&watch).await.open.is_none()).await;
            let what = format!("{operation}, redriven, applied, answered {answer:?} and cancelled");
            goes_on(&house, &app, &watch, &what, after, &[before, OLD, GONE]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_cancelled_redrive_had_acknowledged_above_its_head_is_turned_back() {
    const BEFORE: Files = &[("head", "old"), ("p", "old"), ("q", "old")];
    const AFTER: Files = &[("head", "new"), ("p", "new"), ("q", "new")];
    for way in ways() {
        let house = House::running().await;
        let (app, watch) = holding(&house, &way, BEFORE).await;
        for path in ["head", "p", "q"] {
            house.transport.answer_path(path, Some(Answer::Status(422)));
        }
        brought_to(&house, &watch, AFTER).await;
        for path in ["p", "q"] {
            house.transport.answer_path(path, None);
        }
        house.transport.answer_path("head", Some(Answer::Status(503)));
        let before = house.tried(&app).len();
        house.redrive_all(&app).await;
        house.refresh(&app).await;
        let enough = if way.order == OrderMode::Phased && way.batch.is_none() { 3 } else { 1 };
        house.until("what goes out went out", async || house.tried(&app).len() >= before + enough).await;
        house.store.cancel_redrive(&app, None).await.expect("asked");
        house.refresh(&app).await;
        house.until("it ended", async || house.cursor(&watch).await.open.is_none()).await;
        house.transport.answer_path("head", None);
        goes_on(&house, &app, &watch, &format!("{:?}", way.order), AFTER, &[BEFORE, &[]]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_open_round_bound_is_not_given_back_by_a_redrive_that_is_cancelled() {
    const THIRD: Files = &[("keep", "1"), ("p", "third"), ("z", "1")];
    for is_reloaded in [false, true] {
        let mut house = House::new();
        house.start().await;
        let (app, watch) = holding(&house, &DeliverySettings::default(), OLD).await;
        house.transport.answer_path("p", Some(Answer::Applied(Reply::Status(422))));
        brought_to(&house, &watch, NEW).await;
        // The next round binds the letter, and waits at another path of it.
        house.transport.answer_path("p", None);
        house.transport.answer_path("z", Some(Answer::Status(503)));
        let third = house.commit(THIRD);
        house.poke(&watch).await;
        let waits = async || house.tried(&app).iter().any(|arrival| arrival.path == b"z");
        house.until("the round waits", waits).await;
        house.redrive_all(&app).await;
        house.refresh(&app).await;
        house.store.cancel_redrive(&app, None).await.expect("asked");
        house.refresh(&app).await;
        if is_reloaded {
            house.stop(Duration::ZERO).await;
            house.start().await;
        }
        house.transport.answer_path("z", None);
        house.until_held(&watch, third).await;
        assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
        goes_on(&house, &app, &watch, &format!("reloaded: {is_reloaded}"), THIRD, &[OLD, GONE]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_open_resync_bound_is_not_given_back_by_a_redrive_that_is_cancelled() {
    let house = House::running().await;
    let (app, watch) = holding(&house, &DeliverySettings::default(), OLD).await;
    house.transport.answer_path("p", Some(Answer::Status(422)));
    let second = brought_to(&house, &watch, NEW).await;
    house.transport.answer_path("p", None);
    house.transport.answer_path("keep", Some(Answer::Status(503)));
    let before = house.tried(&app).len();
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    house.until("the resync waits", async || house.tried(&app).len() > before).await;
    house.redrive_all(&app).await;
    house.store.cancel_redrive(&app, None).await.expect("asked");
    house.refresh(&app).await;
    house.transport.answer_path("keep", None);
    house.until_held(&watch, second).await;
    assert!(house.transport.mirror(&app) == house.git.files(second), "the resync sent all");
    goes_on(&house, &app, &watch, "resync", NEW, &[OLD, GONE]).await;
}

#[tokio::test(start_paused = true)]
async fn letters_that_were_acknowledged_stay_so_when_a_second_redrive_is_cancelled() {
    const BEFORE: Files = &[("p0", "old"), ("p1", "old"), ("p2", "old"), ("p3", "old")];
    const AFTER: Files = &[("p0", "new"), ("p1", "new"), ("p2", "new"), ("p3", "new")];
    let house = House::running().await;
    let (app, watch) = holding(&house, &DeliverySettings::default(), BEFORE).await;
    for (path, _) in AFTER {
        house.transport.answer_path(path, Some(Answer::Status(422)));
    }
    brought_to(&house, &watch, AFTER).await;
    for (path, _) in &AFTER[..3] {
        house.transport.answer_path(path, None);
    }
    house.transport.answer_path("p3", Some(Answer::Status(503)));
    house.redrive_all(&app).await;
    house.refresh(&app).await;
    let position = async || house.cursor(&watch).await.open.map(|(_, position, _)| position);
    house.until("three were taken", async || position().await == Some(3)).await;
    house.redrive_all(&app).await;
    house.store.cancel_redrive(&app, None).await.expect("asked");
    house.refresh(&app).await;
    house.until("it ended", async || position().await.is_none()).await;
    assert_eq!(open_letters(&house, &app).await, ["p3"]);
    house.transport.answer_path("p3", None);
    goes_on(&house, &app, &watch, "twice all, then cancel", AFTER, &[BEFORE, &[]]).await;
}

/// A file that becomes a link, which is a delete and a create of one path.
#[tokio::test(start_paused = true)]
async fn a_file_that_became_a_link_and_was_refused_in_part_is_turned_back_and_removed() {
    const FILE: (&str, &str, u32) = ("p", "content", 0o100_644);
    const LINK: (&str, &str, u32) = ("p", "keep", 0o120_000);
    const NOTHING: Option<(&str, &str, u32)> = None;
    // Answers to the tries of the delete, then to those of the create; the rest is accepted.
    let refused = vec![Answer::Status(405); 3];
    let applied = vec![Answer::Applied(Reply::Status(405)); 3];
    let both = [refused.clone(), refused.clone()].concat();
    let both_applied = [applied.clone(), applied.clone()].concat();
    let second = [vec![Answer::Status(200)], refused.clone()].concat();
    let second_applied = [vec![Answer::Status(200)], applied.clone()].concat();
    for answers in [refused, applied, both, both_applied, second, second_applied] {
        for (from, to) in [(FILE, LINK), (LINK, FILE)] {
            for ending in [[Some(from), NOTHING], [NOTHING, Some(from)], [Some(to), NOTHING]] {
                let house = House::running().await;
                let commit = |entry: Option<(&str, &str, u32)>| {
                    let keep = ("keep", "1", 0o100_644);
                    let files: Vec<_> = entry.into_iter().chain([keep]).collect();
                    house.git.commit_modes(&location(URL), "main", &files)
                };
                let first = commit(Some(from));
                let app = house.app().await;
                let view = View::new(vec![], vec![], true, ContentRule::Inline, MAX_SIZE_DEFAULT);
                let view = view.expect("a view");
                let watch = house.watch_with(&app, URL, |new| new.view = view).await;
                house.until_held(&watch, first).await;
                house.transport.script_path("p", answers.iter().copied());
                let changed = commit(Some(to));
                house.poke(&watch).await;
                house.until_held(&watch, changed).await;
                let mut before = Some(to);
                for entry in ending {
                    let next = commit(entry);
                    house.poke(&watch).await;
                    house.until_held(&watch, next).await;
                    let has = house.transport.mirror(&app);
                    let is_parked = entry == before && !open_letters(&house, &app).await.is_empty();
                    let what = format!("{from:?} to {to:?}, {answers:?}, then {entry:?}");
                    assert!(is_parked || has == house.git.files(next), "{what}: the receiver has {has:?}");
                    before = entry;
                }
                assert!(open_letters(&house, &app).await.is_empty());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_puller_let_expire_and_then_refused_is_lent_again_when_it_is_turned_back() {
    const LEASE: Duration = Duration::from_secs(60);
    let house = House::running().await;
    let app = house.app().await;
    let patch = AppPatch { receives_at: Some(SinkAddress::Pull), ..AppPatch::default() };
    house.store.patch_app(&app, &patch, house.context.now()).await.expect("changed");
    house.commit(OLD);
    let watch = house.watch(&app).await;
    let lend = async || {
        let cursors = house.store.watch(&app, &watch.id).await.expect("a watch").cursors;
        let cursors = cursors.into_iter().map(|cursor| cursor.id).collect();
        let (id, wait) = (watch.id.clone(), Duration::from_secs(600));
        house
            .handle()
            .pull(&SinkKey::own(&app), |reply| PullRequest {
                watch: id,
                cursors,
                most: 64,
                lease: LEASE,
                wait,
                reply,
            })
            .await
            .claimed()
    };
    let settle = async |id: String, through: Option<u64>, refused: Vec<u64>| {
        let refused = refused.into_iter().map(|position| (position, "no".to_owned())).collect();
        let watch = watch.id.clone();
        let returned = |reply| Acknowledgement { id, watch, accepted_through: through, refused, reply };
        house.handle().acknowledge(&SinkKey::own(&app), returned).await.expect("an answer").expect("settled");
    };
    while house.cursor(&watch).await.held.is_none() || house.cursor(&watch).await.open.is_some() {
        let lease = lend().await.expect("changes");
        settle(lease.id, Some(lease.positions.end - 1), vec![]).await;
    }
    let changed = house.commit(NEW);
    house.poke(&watch).await;
    let lost = lend().await.expect("the change");
    tokio::time::sleep(LEASE * 2).await;
    let again = lend().await.expect("the change");
    assert_eq!(lost.parcels[0].id, again.parcels[0].id);
    settle(again.id, Some(0), vec![0]).await;
    house.until_held(&watch, changed).await;
    assert_eq!(open_letters(&house, &app).await, ["p"]);
    let back = house.commit(OLD);
    house.poke(&watch).await;
    let lease = lend().await.expect("what the puller may have is turned back");
    settle(lease.id, Some(0), vec![]).await;
    house.until_held(&watch, back).await;
    assert!(open_letters(&house, &app).await.is_empty());
}
