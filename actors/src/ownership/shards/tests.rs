//! What this process believes of its leases, on paused time.

use std::time::Duration;

use tidings_entity::id::RepositoryId;
use ulid::Ulid;

use super::*;

const LIFE: Duration = Duration::from_secs(10);

fn fence(shard: u8, epoch: i64) -> Fence {
    Fence { shard: Shard::new(shard), epoch, owner: Ulid::nil() }
}

fn repository(number: u128) -> RepositoryId {
    RepositoryId::new(Ulid::from_parts(1, number))
}

#[test]
fn the_shard_of_a_repository_is_the_end_of_its_id() {
    for number in [0, 1, 31, 32, 255, 256, 511, 123_456_789] {
        let expected = u8::try_from(number % 256).expect("a byte");
        assert_eq!(Shard::of(&repository(number)).number(), expected, "{number}");
    }
    assert_eq!(Shard::all().count(), crate::ports::SHARDS);
}

#[test]
fn who_has_a_database_alone_owns_everything() {
    let shards = Shards::sole();
    assert!(shards.is_sole() && shards.owns(&repository(7)) && shards.leads());
    let hold = shards.hold(&repository(7)).expect("a hold");
    assert!(hold.stands() && hold.fence().is_none());
    assert_eq!(shards.reach(), Reach::All);
}

#[tokio::test(start_paused = true)]
async fn belief_ends_by_itself() {
    let shards = Shards::leased();
    assert!(!shards.owns(&repository(3)), "nothing is owned before the first renewal");
    assert_eq!(shards.workers(), 1, "nor is anything divided");
    let changes = shards.renewed(&[fence(3, 1)], Instant::now() + LIFE);
    assert_eq!(changes, Changes { gained: vec![Shard::new(3)], lost: vec![] });
    let hold = shards.hold(&repository(3)).expect("it is owned");
    assert!(shards.hold(&repository(4)).is_none() && !shards.leads());
    assert_eq!((hold.fence(), hold.stands()), (Some(fence(3, 1)), true));
    tokio::time::advance(LIFE).await;
    assert!(!hold.stands() && !shards.owns(&repository(3)), "nobody prolonged it");
    assert_eq!(shards.reach(), Reach::These(vec![]));
    assert_eq!(shards.trusted_until(), None);
    // Prolonged after all: the epoch is the same, so nobody was there in between.
    let changes = shards.renewed(&[fence(3, 1)], Instant::now() + LIFE);
    assert_eq!(changes.gained, [Shard::new(3)], "what stood still begins again");
    assert!(hold.stands());
    assert!(shards.renewed(&[fence(3, 1)], Instant::now() + LIFE).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_be_given_away_may_be_brought_to_its_end() {
    let shards = Shards::leased();
    shards.renewed(&[fence(3, 1)], Instant::now() + LIFE);
    let hold = shards.hold(&repository(3)).expect("it is owned");
    shards.leave_all();
    assert!(!hold.stands() && hold.lasts(), "nothing begins, what began goes on");
    shards.gave_back(&[fence(3, 1)]);
    assert!(!hold.lasts());
    shards.renewed(&[fence(3, 2)], Instant::now() + LIFE);
    assert!(!hold.lasts(), "it is of another epoch");
}

#[tokio::test(start_paused = true)]
async fn how_long_a_repository_is_away_is_counted_from_the_end_of_its_lease() {
    let (shards, away) = (Shards::leased(), |seconds| Some(Duration::from_secs(seconds)));
    tokio::time::advance(LIFE).await;
    assert_eq!(shards.away_for(&repository(3)), away(10), "it never was here");
    shards.renewed(&[fence(3, 1), fence(4, 1), fence(5, 1)], Instant::now() + LIFE);
    assert_eq!(shards.away_for(&repository(3)), None);
    shards.renewed(&[fence(4, 1), fence(5, 1)], Instant::now() + LIFE);
    shards.gave_back(&[fence(4, 1)]);
    tokio::time::advance(LIFE * 2).await;
    let ages = [3, 4, 5].map(|number| shards.away_for(&repository(number)));
    assert_eq!(ages, [away(20), away(20), away(10)], "lost, given back, not prolonged");
    assert_eq!(Shards::sole().away_for(&repository(3)), None);
}

#[tokio::test(start_paused = true)]
async fn an_older_epoch_is_worth_nothing() {
    let shards = Shards::leased();
    shards.renewed(&[fence(3, 1)], Instant::now() + LIFE);
    let old = shards.hold(&repository(3)).expect("it is owned");
    let changes = shards.renewed(&[fence(3, 2)], Instant::now() + LIFE);
    assert_eq!((changes.lost, changes.gained), (vec![Shard::new(3)], vec![Shard::new(3)]));
    assert!(!old.stands(), "another worked in between");
    let new = shards.hold(&repository(3)).expect("it is owned again");
    drop(old);
    assert!(new.stands(), "an old hold does not count for the new lease");
    shards.leave(1);
    assert_eq!(shards.left(LIFE), []);
    drop(new);
    assert_eq!(shards.left(LIFE), [fence(3, 2)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_away_begins_nothing_and_is_left_when_nothing_goes_on() {
    let shards = Shards::leased();
    shards.renewed(&[fence(0, 1), fence(1, 1), fence(2, 1)], Instant::now() + LIFE);
    let busy = shards.hold(&repository(1)).expect("it is owned");
    assert_eq!(shards.leave(1), 1);
    assert!(shards.hold(&repository(2)).is_none() && busy.stands(), "not the busy one, and not the first");
    assert_eq!((shards.left(LIFE), shards.held()), (vec![fence(2, 1)], (3, 2)));
    assert_eq!(shards.leave(5), 1, "not the first");
    assert!(!busy.stands());
    assert_eq!(shards.left(LIFE), [fence(2, 1)], "an attempt is on its way in the other");
    // Its lease is prolonged meanwhile, and still begins nothing.
    let standing = [fence(0, 1), fence(1, 1), fence(2, 1)];
    assert!(shards.renewed(&standing, Instant::now() + LIFE * 3).is_empty());
    assert!(!busy.stands() && shards.is_leaving());
    tokio::time::advance(LIFE).await;
    assert_eq!(shards.left(LIFE), [fence(1, 1), fence(2, 1)], "nobody waits for ever");
    drop(busy);
    shards.gave_back(&[fence(1, 1), fence(2, 1)]);
    assert_eq!(shards.reach(), Reach::These(vec![Shard::FIRST]));
    assert!(shards.leads() && !shards.is_leaving());
    shards.leave_all();
    assert!(!shards.leads());
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_says_nothing_of_what_is_held() {
    let shards = Shards::leased();
    shards.renewed(&[fence(1, 1)], Instant::now() + LIFE);
    let first_end = Instant::now() + LIFE;
    tokio::time::advance(LIFE / 2).await;
    let changes = shards.claimed(&[fence(2, 7)], Instant::now() + LIFE);
    assert_eq!(changes, Changes { gained: vec![Shard::new(2)], lost: vec![] });
    assert_eq!(shards.trusted_until(), Some(first_end));
    tokio::time::advance(LIFE / 2).await;
    assert!(shards.is_in_doubt() && !shards.owns(&repository(1)), "taking another did not prolong it");
    assert!(shards.owns(&repository(2)));
    // An answer that comes after its own belief ended begins nothing.
    let late = shards.claimed(&[fence(3, 1)], Instant::now());
    assert!(late.is_empty() && !shards.owns(&repository(3)));
}
