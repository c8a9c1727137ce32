//! What branches do: they appear, vanish and come back, are rewritten, and name what is no commit.

use std::time::Duration;

use tidings_entity::{
    id::{AppId, ObjectId},
    kind::{BranchGone, CursorState, HistoryMode, SelectorKind},
};

use crate::{
    model::round::Round,
    ports::{CursorStatus, LaneStore, Selector, Watch, WatchStore},
    testing::{
        house::{House, URL, location},
        transport::Answer,
    },
};

/// A house in which `main` and two releases are watched as far as they match `release/*`.
async fn releases(gone: BranchGone) -> (House, AppId, Watch) {
    let house = House::running().await;
    house.commit(&[("main", "1")]);
    house.git.commit(&location(URL), "release/1", &[("one", "1"), ("shared", "1")]);
    house.git.commit(&location(URL), "release/2", &[("two", "1")]);
    let app = house.app().await;
    let watch = house
        .watch_with(&app, URL, |watch| {
            watch.selector = Selector { kind: SelectorKind::BranchPattern, value: "release/*".into() };
            watch.on_branch_gone = gone;
        })
        .await;
    settled(&house, &watch).await;
    assert_eq!(sorted(house.taken(&app)), ["C one", "C shared", "C two"]);
    (house, app, watch)
}

fn sorted(mut taken: Vec<String>) -> Vec<String> {
    taken.sort();
    taken
}

async fn branch(house: &House, watch: &Watch, name: &str) -> CursorStatus {
    let watch = house.store.watch(&watch.app, &watch.id).await.expect("it is watched");
    let name = format!("refs/heads/{name}");
    watch.cursors.into_iter().find(|cursor| cursor.branch == name).expect("it has a cursor")
}

/// Every branch holds its head and nothing is open.
async fn settled(house: &House, watch: &Watch) {
    house
        .until("every branch is settled", async || {
            let watch = house.store.watch(&watch.app, &watch.id).await.expect("it is watched");
            let settled = |cursor: &CursorStatus| cursor.held == cursor.head && cursor.open.is_none();
            !watch.cursors.is_empty() && watch.cursors.iter().all(settled)
        })
        .await;
}

async fn missing(house: &House, watch: &Watch, name: &str) {
    house.poke(watch).await;
    house
        .until("the branch is missing", async || {
            branch(house, watch, name).await.state == CursorState::BranchMissing
        })
        .await;
}

/// The rounds that an app saw, one of each change.
fn rounds(house: &House, app: &AppId) -> Vec<(String, Round)> {
    let tried = house.tried(app);
    let order = |id| house.transport.order(id).expect("it was sent");
    let shown = |change| crate::testing::house::shown(change).expect("a change");
    tried.iter().map(|change| (shown(change), (*order(&change.id).lane.round).clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_vanished_branch_takes_its_own_files_and_returns_from_nothing() {
    let (house, app, watch) = releases(BranchGone::Delete).await;
    let first = branch(&house, &watch, "release/1").await;
    house.git.remove_branch(&location(URL), "release/1");
    missing(&house, &watch, "release/1").await;
    settled(&house, &watch).await;
    assert_eq!(house.taken(&app)[3..], ["D one", "D shared"]);

    house.git.point(&location(URL), "release/1", first.head.expect("a head"));
    house.poke(&watch).await;
    house.until("it is back", async || branch(&house, &watch, "release/1").await.held.is_some()).await;
    assert_eq!(house.taken(&app)[5..], ["C one", "C shared"], "from nothing, though nothing changed");
    let mut numbers: Vec<i64> = rounds(&house, &app)
        .into_iter()
        .filter(|(_, round)| round.cursor == first.id)
        .map(|(_, round)| round.number)
        .collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "one cursor");
    assert!(numbers.is_sorted(), "round numbers go on");
}

#[tokio::test(start_paused = true)]
async fn with_keep_the_files_of_a_vanished_branch_stay_and_it_goes_on_where_it_was() {
    let (house, app, watch) = releases(BranchGone::Keep).await;
    house.git.remove_branch(&location(URL), "release/1");
    missing(&house, &watch, "release/1").await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(house.taken(&app).len(), 3, "nothing goes");
    let back = house.git.commit(&location(URL), "release/1", &[("one", "2"), ("shared", "1")]);
    house.poke(&watch).await;
    house.until("it is held", async || branch(&house, &watch, "release/1").await.held == Some(back)).await;
    assert_eq!(house.taken(&app)[3..], ["U one"]);
}

#[tokio::test(start_paused = true)]
async fn a_resync_of_a_vanished_branch_whose_files_stay_sends_them_again_and_holds_up_nothing() {
    let (house, app, watch) = releases(BranchGone::Keep).await;
    house.git.remove_branch(&location(URL), "release/1");
    missing(&house, &watch, "release/1").await;
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    house.until("all files came again", async || house.taken(&app).len() == 6).await;
    let again = house.taken(&app)[3..].iter().map(|taken| taken[2..].to_owned()).collect();
    assert_eq!(sorted(again), ["one", "shared", "two"]);
    let gone = branch(&house, &watch, "release/1").await;
    let is_over = async || house.store.lane(&gone.id).await.expect("a lane").resync.is_none();
    house.until("the resync is over", is_over).await;
    assert_eq!(branch(&house, &watch, "release/1").await.state, CursorState::BranchMissing);
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_returns_while_its_files_go_is_whole_again_afterwards() {
    let (house, app, watch) = releases(BranchGone::Delete).await;
    let head = branch(&house, &watch, "release/1").await.head.expect("a head");
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_secs(5))));
    house.git.remove_branch(&location(URL), "release/1");
    missing(&house, &watch, "release/1").await;
    house.git.point(&location(URL), "release/1", head);
    house.poke(&watch).await;
    house.until("it is back", async || branch(&house, &watch, "release/1").await.head.is_some()).await;
    settled(&house, &watch).await;
    assert_eq!(house.taken(&app)[3..], ["D one", "D shared", "C one", "C shared"]);
}

#[tokio::test(start_paused = true)]
async fn a_resync_of_a_branch_that_vanished_in_mid_round_leaves_no_ghosts() {
    let (house, app, watch) = releases(BranchGone::Delete).await;
    let late = Answer::Slow(200, Duration::from_secs(600));
    house.transport.answer_path("late", Some(late));
    house.git.commit(&location(URL), "release/1", &[("early", "1"), ("late", "1"), ("shared", "1")]);
    house.poke(&watch).await;
    house.until("the new file is in", async || house.taken(&app).contains(&"C early".to_owned())).await;
    house.git.remove_branch(&location(URL), "release/1");
    missing(&house, &watch, "release/1").await;
    house.store.request_resync(&app, &watch.id, false).await.expect("asked");
    house.refresh(&app).await;
    settled(&house, &watch).await;
    let left: Vec<Vec<u8>> = house.transport.mirror(&app).into_keys().collect();
    assert_eq!(left, [b"two".to_vec()], "ghosts");
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_waits_while_the_files_of_its_branch_go_deletes_what_its_commit_had() {
    let (house, app, watch) = releases(BranchGone::Delete).await;
    let first = branch(&house, &watch, "release/1").await;
    let backup = house.transport.mirror(&app);
    house.git.commit(&location(URL), "release/1", &[("one", "1")]);
    house.poke(&watch).await;
    house.until("a file went", async || house.taken(&app).contains(&"D shared".to_owned())).await;
    settled(&house, &watch).await;
    house.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_secs(5))));
    house.git.remove_branch(&location(URL), "release/1");
    missing(&house, &watch, "release/1").await;
    house.until("its files go", async || branch(&house, &watch, "release/1").await.open.is_some()).await;
    house.transport.restore(&app, backup);
    let commit = first.head.expect("a head");
    let from = house.store.was_held(&app, &watch.id, Some(&first.id), commit).await.expect("held once").1;
    house.store.request_replay(&first.id, &from).await.expect("asked");
    house.refresh(&app).await;
    let only_the_other = async || house.transport.mirror(&app).into_keys().eq([b"two".to_vec()]);
    house.until("nothing of the branch is left", only_the_other).await;
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_names_no_commit_says_so_and_heals_with_the_next_head() {
    let house = House::running().await;
    let first = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    let blob = house.git.files(first)[&b"a".to_vec()];
    house.git.point(&location(URL), "main", blob);
    house.poke(&watch).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    let reason = house.cursor(&watch).await.reason;
    assert_eq!(reason, Some(format!("refs/heads/main cannot be delivered: object {blob} is no commit")));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(house.taken(&app), ["C a"], "nothing is invented");
    // The same files again: no round is needed, and the reason is gone all the same.
    house.git.point(&location(URL), "main", first);
    house.poke(&watch).await;
    house.until("it moves", async || house.cursor(&watch).await.state == CursorState::Active).await;
    house.git.point(&location(URL), "main", blob);
    house.poke(&watch).await;
    house.until("it is blocked", async || house.cursor(&watch).await.state == CursorState::Blocked).await;
    house.git.point(&location(URL), "main", first);
    let second = house.commit(&[("a", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
}

/// A house that watches `main` commit by commit, at most three at a time.
async fn every() -> (House, AppId, Watch, ObjectId) {
    let mut house = House::with(|policy| policy.every_max = 3);
    house.start().await;
    let first = house.commit(&[("a", "0")]);
    let app = house.app().await;
    let watch = house.watch_with(&app, URL, |watch| watch.mode = HistoryMode::Every).await;
    house.until_held(&watch, first).await;
    (house, app, watch, first)
}

/// `(what, whether the history was rewritten, whether commits were skipped)` of what came after the
/// first change.
fn flags(house: &House, app: &AppId) -> Vec<(String, bool, bool)> {
    let rounds = rounds(house, app).into_iter().skip(1);
    rounds.map(|(what, round)| (what, round.history_rewritten, round.skipped_commits)).collect()
}

#[tokio::test(start_paused = true)]
async fn as_many_commits_as_are_allowed_come_one_by_one_and_one_more_is_a_jump() {
    let (house, app, watch, _) = every().await;
    let last = ["1", "2", "3"].map(|number| house.commit(&[("a", number)]))[2];
    house.poke(&watch).await;
    house.until_held(&watch, last).await;
    let plain = ("U a".to_owned(), false, false);
    assert_eq!(flags(&house, &app), [plain.clone(), plain.clone(), plain.clone()]);
    let last = ["4", "5", "6", "7"].map(|number| house.commit(&[("a", number)]))[3];
    house.poke(&watch).await;
    house.until_held(&watch, last).await;
    assert_eq!(flags(&house, &app)[3..], [("U a".to_owned(), false, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_rewritten_history_is_one_round_that_says_so() {
    let (house, app, watch, _) = every().await;
    house.git.commit(&location(URL), "fresh", &[("a", "0"), ("b", "1")]);
    let head = house.git.commit(&location(URL), "fresh", &[("a", "0"), ("b", "2")]);
    house.git.point(&location(URL), "main", head);
    house.poke(&watch).await;
    house.until_held(&watch, head).await;
    assert_eq!(flags(&house, &app), [("C b".to_owned(), true, false)]);
    let last = house.commit(&[("a", "0")]);
    house.poke(&watch).await;
    house.until_held(&watch, last).await;
    assert_eq!(flags(&house, &app)[1..], [("D b".to_owned(), false, false)], "the next one is plain");
}
