//! What replicas do about a database that refuses, or that they do not reach.

use super::*;

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_stops_in_time_and_begins_again() {
    let mut houses = House::replicas(1, LIFE);
    houses[0].start().await;
    let one = &houses[0];
    until_balanced(&[one]).await;
    let (_, watch, cursor) = {
        let app = one.app().await;
        one.commit(&[("a", "1")]);
        let watch = one.watch(&app).await;
        one.until("it is held", async || one.cursor(&watch).await.held.is_some()).await;
        let cursor = watch.cursors[0].id.clone();
        (app, watch, cursor)
    };
    let fence = one.context.shards.hold(&watch.repository).expect("owned").fence().expect("leased");
    let leases = one.store.leases();
    leases.cut_off(true);
    sleep(LIFE).await;
    assert_eq!(one.shards(), 0, "nobody prolonged anything");
    one.until("its watcher is gone", async || {
        one.context.directory.cell(REPOSITORY_WATCHER, watch.repository.as_str()).is_none()
    })
    .await;
    // Another took the shard in between: what was begun before is worth nothing.
    leases.cut_off(false);
    leases.expire(&one.context.policy.replica.id);
    let other = House::replicas(9, LIFE).pop().expect("a replica").context.policy.replica.id.clone();
    let stolen = Leases::claim(&leases.seen_by(&other), &other, SHARDS, LIFE).await.expect("taken");
    assert_eq!(stolen.len(), SHARDS);
    let refused = one.store.under(fence).set_blocked(&cursor, Some("late")).await;
    assert!(matches!(refused, Err(StoreError::Lost)), "{refused:?}");
    until_balanced(&[one]).await;
    let commit = one.commit(&[("a", "2")]);
    one.poke(&watch).await;
    one.until_held(&watch, commit).await;
    assert_ne!(Shard::of(&watch.repository), Shard::FIRST);
}

#[tokio::test(start_paused = true)]
async fn what_was_gained_while_the_database_is_away_begins_when_it_is_back() {
    let house = House::alone(LIFE).await;
    let app = house.app().await;
    let commit = house.commit(&[("a", "1")]);
    let watch = house.watch(&app).await;
    house.until_held(&watch, commit).await;
    house.store.leases().cut_off(true);
    sleep(LIFE).await;
    let runs =
        |house: &House| house.context.directory.cell(REPOSITORY_WATCHER, watch.repository.as_str()).is_some();
    house.until("its watcher is gone", async || !runs(&house)).await;
    for _ in 0..3 {
        house.store.befall("repositories", down());
    }
    house.store.leases().cut_off(false);
    let began = Instant::now();
    house.until("it works again", async || runs(&house)).await;
    assert!(began.elapsed() < LIFE, "the sweep found it: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_failed_is_made_again_soon() {
    let mut house = House::replicas(1, LIFE).pop().expect("one");
    house.store.leases().refuse_claims(2);
    house.start().await;
    let began = Instant::now();
    house.until("it holds everything", async || house.shards() == SHARDS).await;
    assert!(began.elapsed() < LIFE / 3, "the next renewal took them: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn looks_do_not_multiply_while_the_database_refuses() {
    let house = House::alone(LIFE).await;
    house.store.leases().cut_off(true);
    let before = house.store.leases().renewals();
    sleep(Duration::from_secs(120)).await;
    let asked = house.store.leases().renewals() - before;
    let each = 2 * 120 + 120 / 3;
    assert!((each / 2..=each + 5).contains(&asked), "{asked} renewals in two minutes");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_told_is_told_when_leases_are_prolonged_again() {
    let house = House::alone(LIFE).await;
    let leases = house.store.leases();
    let other = leases.seen_by(&ReplicaId::new(Ulid::from_parts(1, 99)));
    let app = house.app().await;
    leases.mute(true);
    house.refresh(&app).await;
    house.refresh(&app).await;
    sleep(LIFE).await;
    leases.mute(false);
    let heard = tokio::time::timeout(LIFE, other.hear()).await.expect("within a third of a lease");
    assert_eq!(heard, Signal::App(app));
    assert!(tokio::time::timeout(LIFE * 2, other.hear()).await.is_err(), "and once");
}
