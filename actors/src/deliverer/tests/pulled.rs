//! Apps that ask for their changes: waiting, leases, refusals, drains, and lanes that nobody asks for.

use std::time::Duration;

use tidings_entity::id::AppId;
use tokio::time::Instant;

use crate::{
    deliverer::outlets::pulling::{Acknowledgement, ClaimedChanges, PullRequest, Pulled, Refusal, Settled},
    model::sink::SinkAddress,
    ports::{AppPatch, AppStore, PrepareError, Watch, WatchStore},
    testing::house::{House, files, refs},
};

const LEASE: Duration = Duration::from_secs(60);

/// An app without an endpoint that watches `main`.
async fn pulling(house: &House) -> (AppId, Watch) {
    let app = house.app().await;
    let patch = AppPatch { receives_at: Some(SinkAddress::Pull), ..AppPatch::default() };
    house.store.patch_app(&app, &patch, house.context.now()).await.expect("changed");
    let watch = house.watch(&app).await;
    (app, watch)
}

async fn ask(house: &House, watch: &Watch, most: usize, wait: u64) -> Option<ClaimedChanges> {
    answer(house, watch, most, wait).await.claimed()
}

async fn answer(house: &House, watch: &Watch, most: usize, wait: u64) -> Pulled {
    let cursors = house.store.watch(&watch.app, &watch.id).await.expect("a watch").cursors;
    let cursors = cursors.into_iter().map(|cursor| cursor.id).collect();
    let wait = Duration::from_secs(wait);
    let (id, lease) = (watch.id.clone(), LEASE);
    house
        .handle()
        .pull(&watch.sink_key(), |reply| PullRequest { watch: id, cursors, most, lease, wait, reply })
        .await
}

async fn settle(
    house: &House,
    watch: &Watch,
    id: &str,
    accepted_through: Option<u64>,
    refused: &[u64],
) -> Result<Settled, Refusal> {
    let refused = refused.iter().map(|position| (*position, "no".to_owned())).collect();
    let (id, watch_id) = (id.to_owned(), watch.id.clone());
    let returned = |reply| Acknowledgement { id, watch: watch_id, accepted_through, refused, reply };
    house.handle().acknowledge(&watch.sink_key(), returned).await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_gets_a_change_as_soon_as_there_is_one() {
    let house = House::running().await;
    house.commit(&[("a", "1")]);
    let (_, watch) = pulling(&house).await;
    let lease = ask(&house, &watch, 64, 60).await.expect("a change");
    settle(&house, &watch, &lease.id, Some(0), &[]).await.expect("settled");
    let second = house.commit(&[("a", "2")]);
    let began = Instant::now();
    let (lease, ()) = tokio::join!(ask(&house, &watch, 64, 600), house.poke(&watch));
    let lease = lease.expect("a change");
    assert!(began.elapsed() < Duration::from_secs(600), "it did not wait for the end of its request");
    assert_eq!(lease.positions, 0..1);
    settle(&house, &watch, &lease.id, Some(0), &[]).await.expect("settled");
    house.until_held(&watch, second).await;
    assert!(house.transport.arrivals().is_empty(), "nothing is sent to anybody");
}

#[tokio::test(start_paused = true)]
async fn changes_that_wait_for_memory_are_never_said_to_be_none_and_come_to_a_later_request() {
    let house = House::running().await;
    house.commit(&refs(&files(3, "one")));
    let (_, watch) = pulling(&house).await;
    let other = house.app().await;
    let large = PrepareError::OverBudget(1 << 30);
    let place = house.context.budget.take(&other, 1 << 30).await;
    house.transport.fail_to_prepare([large]);
    let answers = [answer(&house, &watch, 64, 60).await, answer(&house, &watch, 64, 0).await];
    assert!(answers.iter().all(|answer| matches!(answer, Pulled::NotReady)), "{answers:?}");
    let asked = house.transport.rendered().len();
    drop(place);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lease = ask(&house, &watch, 64, 0).await.expect("it was rendered while nobody asked");
    assert_eq!(house.transport.rendered().len(), asked + 1);
    assert!(matches!(answer(&house, &watch, 64, 5).await, Pulled::Nothing), "a claim has them");
    settle(&house, &watch, &lease.id, Some(lease.positions.end - 1), &[]).await.expect("settled");
}

/// A claim may last an hour; the memory of its changes is that of the answer.
#[tokio::test(start_paused = true)]
async fn a_claim_holds_no_memory_beyond_its_answer() {
    let house = House::running().await;
    house.commit(&refs(&files(1, "one")));
    let (_, watch) = pulling(&house).await;
    let all = house.context.budget.free();
    let lease = ask(&house, &watch, 64, 60).await.expect("a change");
    assert!(house.context.budget.free() < all, "the answer holds it");
    drop(lease);
    assert_eq!(house.context.budget.free(), all);
    let again = ask(&house, &watch, 64, 100).await.expect("the same change, after the claim");
    assert_eq!(again.positions, 0..1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_its_time_and_then_its_changes_are_somebody_elses() {
    let house = House::running().await;
    house.commit(&refs(&files(3, "one")));
    let (_, watch) = pulling(&house).await;
    let first = ask(&house, &watch, 2, 60).await.expect("changes");
    let began = Instant::now();
    assert!(ask(&house, &watch, 64, 30).await.is_none(), "they are lent");
    assert_eq!(began.elapsed(), Duration::from_secs(30));
    let second = ask(&house, &watch, 64, 60).await.expect("changes");
    assert_eq!(began.elapsed(), LEASE, "exactly as long as it was lent for");
    let ids =
        |lease: &ClaimedChanges| lease.parcels.iter().map(|parcel| parcel.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first)[..], ids(&second)[..2]);
    assert_eq!(settle(&house, &watch, &first.id, Some(1), &[]).await, Err(Refusal::Stale));
    let last = second.positions.end - 1;
    let settled = settle(&house, &watch, &second.id, Some(last), &[]).await.expect("settled");
    assert_eq!(settled.position, second.positions.end);
}

#[tokio::test(start_paused = true)]
async fn what_is_lent_is_revoked_when_its_shard_is_lost() {
    let life = Duration::from_secs(9);
    let house = House::alone(life).await;
    house.commit(&refs(&files(3, "one")));
    let (_, watch) = pulling(&house).await;
    let lease = ask(&house, &watch, 2, 60).await.expect("changes");
    house.lose_shards().await;
    tokio::time::sleep(life).await;
    assert_eq!(settle(&house, &watch, &lease.id, Some(1), &[]).await, Err(Refusal::Stale));
    assert_eq!(house.cursor(&watch).await.open.expect("an open round").1, 0, "nothing of it is settled");
}

#[tokio::test(start_paused = true)]
async fn a_settlement_is_on_disk_before_its_answer() {
    let house = House::running().await;
    house.commit(&refs(&files(3, "one")));
    let (_, watch) = pulling(&house).await;
    let lease = ask(&house, &watch, 2, 60).await.expect("changes");
    let through = lease.positions.end - 1;
    settle(&house, &watch, &lease.id, Some(through), &[]).await.expect("settled");
    let open = house.cursor(&watch).await.open.expect("an open round");
    assert_eq!(open.1, through + 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_lent_cannot_be_settled_and_what_is_refused_is_parked() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(3, "one")));
    let (app, watch) = pulling(&house).await;
    let mut next = 0;
    while let Some(lease) = ask(&house, &watch, 64, 5).await {
        let end = lease.positions.end;
        assert_eq!(lease.positions.start, next, "in order, without a gap");
        let id = &lease.id;
        assert_eq!(settle(&house, &watch, id, Some(end), &[]).await, Err(Refusal::NotLent(end)));
        assert_eq!(settle(&house, &watch, id, None, &[next]).await, Err(Refusal::Beyond(next)));
        let refused: Vec<u64> = (next..end).filter(|position| *position == 1).collect();
        settle(&house, &watch, id, Some(end - 1), &refused).await.expect("settled");
        next = end;
    }
    house.until_held(&watch, commit).await;
    let letters = house.letters(&app).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].position, letters[0].excerpt.as_str()), (1, "no"));
}

#[tokio::test(start_paused = true)]
async fn whoever_pulls_may_refuse_as_much_as_it_likes() {
    let house = House::running().await;
    let commit = house.commit(&refs(&files(1_100, "one")));
    let (app, watch) = pulling(&house).await;
    while let Some(lease) = ask(&house, &watch, 64, 5).await {
        let positions: Vec<u64> = lease.positions.clone().collect();
        settle(&house, &watch, &lease.id, positions.last().copied(), &positions).await.expect("settled");
    }
    house.until_held(&watch, commit).await;
    assert_eq!(house.letters(&app).await.len(), 1_000, "a page of them");
    assert_eq!(house.cursor(&watch).await.state, tidings_entity::kind::CursorState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_leases_back_and_does_not_wait_for_them() {
    let mut house = House::running().await;
    house.commit(&refs(&files(3, "one")));
    let (_, watch) = pulling(&house).await;
    let lease = ask(&house, &watch, 64, 60).await.expect("changes");
    let began = Instant::now();
    house.stop(Duration::from_secs(20)).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    house.start().await;
    assert_eq!(settle(&house, &watch, &lease.id, Some(0), &[]).await, Err(Refusal::Stale));
    let again = ask(&house, &watch, 64, 60).await.expect("changes");
    assert_eq!(again.positions.start, 0);
}

#[tokio::test(start_paused = true)]
async fn lanes_that_nobody_asks_for_leave_memory_and_come_back_when_somebody_does() {
    let house = House::running().await;
    house.commit(&refs(&files(3, "one")));
    let (app, watch) = pulling(&house).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(house.cursor(&watch).await.open.is_none(), "nothing is opened that nobody asks for");
    let lease = ask(&house, &watch, 1, 60).await.expect("a change");
    settle(&house, &watch, &lease.id, Some(0), &[]).await.expect("settled");
    house.until("the deliverer ended", async || house.deliverer(&app).is_none()).await;
    let next = ask(&house, &watch, 1, 60).await.expect("a change");
    assert_eq!(next.positions, 1..2);
}
