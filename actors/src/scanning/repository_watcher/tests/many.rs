//! Two apps of one source: one follows `main`, the other follows many refs.

use super::*;
use crate::ports::CursorStatus;

const SECOND: Duration = Duration::from_secs(1);
/// More than a source lists in each of its polls.
const MANY: usize = 1_001;
const PREFIX: &str = "refs/heads/many/";

fn many(number: usize) -> String {
    format!("many/{number:04}")
}

/// A house whose sources are polled each second, which takes another second: so many refs rest for ten. One
/// app holds `main`, another one follows many refs and gets nothing.
async fn beside_many() -> (House, Watch, Watch) {
    let mut house = House::with(|policy| (policy.poll_min, policy.poll_max) = (SECOND, SECOND));
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    let app = house.app_with(|delivery| delivery.multi_branch = true).await;
    house.disable(&app, Some("it gets nothing")).await;
    let pattern = Selector { kind: SelectorKind::BranchPattern, value: "many/*".into() };
    let neighbour = house.watch_with(&app, URL, |watch| watch.selector = pattern).await;
    assert_eq!(neighbour.source, watch.source, "they share it");
    for number in 0..MANY {
        house.git.point(&location(URL), &many(number), first);
    }
    house.git.poll_takes(SECOND);
    let are_followed = async || cursors(&house, &neighbour).await.len() == MANY;
    house.until("all are followed", are_followed).await;
    (house, watch, neighbour)
}

async fn cursors(house: &House, watch: &Watch) -> Vec<CursorStatus> {
    house.store.watch(&watch.app, &watch.id).await.expect("it is watched").cursors
}

async fn cursor_of(house: &House, watch: &Watch, number: usize) -> CursorStatus {
    let name = format!("refs/heads/{}", many(number));
    let cursors = cursors(house, watch).await;
    cursors.into_iter().find(|cursor| cursor.branch == name).expect("a cursor")
}

#[tokio::test(start_paused = true)]
async fn few_refs_are_listed_in_each_poll_and_many_only_every_few_polls() {
    let (house, watch, neighbour) = beside_many().await;
    let asked = || (house.git.polls(), house.git.polls_for("refs/heads/main"), house.git.polls_for(PREFIX));
    let before = asked();
    tokio::time::sleep(120 * SECOND).await;
    let (all, few, many) = (asked().0 - before.0, asked().1 - before.1, asked().2 - before.2);
    assert_eq!(all, few, "no poll leaves out the refs of an app that follows few");
    assert!(all > 50 && many >= 5 && many * 4 < all, "{many} of {all} polls");

    // Neither a change of the app beside it nor what a poll without them learnt hides a change of many refs.
    let second = house.commit(&[("a", "2")]);
    house.git.point(&location(URL), &self::many(7), second);
    let start = Instant::now();
    house.until_held(&watch, second).await;
    assert!(start.elapsed() < 15 * SECOND, "{:?}", start.elapsed());
    let has_moved = async || cursor_of(&house, &neighbour, 7).await.head == Some(second);
    house.until("a poll lists them", has_moved).await;
    assert!(start.elapsed() < 30 * SECOND, "{:?}", start.elapsed());
    let shown = house.handle().polled(&watch.source).expect("it is watched here");
    assert_eq!(shown.unseen_of(&neighbour), None, "a rest is no fault");
}

#[tokio::test(start_paused = true)]
async fn each_poke_lists_all_refs() {
    let (house, watch, _) = beside_many().await;
    let before = house.git.polls_for(PREFIX);
    for _ in 0..4 {
        house.poke(&watch).await;
        tokio::time::sleep(4 * SECOND).await;
    }
    let asked = house.git.polls_for(PREFIX) - before;
    assert!(asked >= 4, "{asked} polls in 16 seconds, after four pokes");
}

#[tokio::test(start_paused = true)]
async fn one_of_many_refs_that_vanishes_is_gone_in_time_although_few_polls_list_it() {
    let (house, watch, neighbour) = beside_many().await;
    let start = Instant::now();
    house.git.remove_branch(&location(URL), &many(3));
    let is_gone = async || cursor_of(&house, &neighbour, 3).await.state == CursorState::BranchMissing;
    house.until("it is gone", is_gone).await;
    let (took, least) = (start.elapsed(), house.context.policy.branch_gone_after);
    assert!(took >= least && took < least + 40 * SECOND, "after {took:?}");
    let others = cursors(&house, &neighbour).await;
    assert_eq!(others.iter().filter(|cursor| cursor.state == CursorState::BranchMissing).count(), 1);
    assert_eq!(house.cursor(&watch).await.state, CursorState::Active);
}
