//! Leases, fences and signals on a real PostgreSQL, and which rows belong to which shards on both.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tidings_actors::{
    ports::{
        AppStore, Begun, Fence, KeyedRequest, LaneStore, LeaseStanding, Leases, Reach, Replica, RequestStore,
        SHARDS, Settlement, Shard, Signal, SourceStore, Standing, Store, StoreError, Streak, WatchStore,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{CursorId, ReplicaId, Sha256Hash},
    kind::ReplicaRole,
};
use ulid::Ulid;

use super::{SqlStore, home::Home, new_app, watch};

const LIFE: Duration = Duration::from_secs(60);

pub(super) fn replica(number: u128) -> Replica {
    Replica {
        id: ReplicaId::new(Ulid::from_parts(1, number)),
        name: format!("host {number}"),
        version: "1.2.3".into(),
        role: ReplicaRole::All,
        works: true,
        address: Some("http://10.0.0.1:8080/".into()),
        started_at: Timestamp(7),
    }
}

/// As if nobody had prolonged anything.
async fn expire(store: &SqlStore) {
    store.tamper("update lease set expires_at = 0 where shard <> 'all'").await;
}

async fn standing(store: &SqlStore, number: u128) -> LeaseStanding {
    let replica = replica(number);
    let leases = store.leases(&replica.id).expect("replicas");
    leases.renew(&replica, LIFE).await.expect("renewed")
}

async fn claim(store: &SqlStore, number: u128, most: usize) -> Vec<Fence> {
    let id = replica(number).id;
    store.leases(&id).expect("replicas").claim(&id, most, LIFE).await.expect("claimed")
}

fn settlement(cursor: &CursorId) -> Settlement {
    Settlement {
        cursor: cursor.clone(),
        round: 1,
        position: 1,
        parked: vec![],
        streak: Streak::default(),
        above: vec![],
        absorbs: false,
        acknowledged: true,
        standing: Standing::Unchanged,
        redrive: Vec::new(),
        at: Timestamp(1),
    }
}

#[tokio::test]
async fn who_has_a_file_to_itself_has_no_leases() {
    let store = Home::file().open(1).await.expect("opened");
    assert!(store.leases(&replica(1).id).is_none());
}

#[tokio::test]
async fn a_shard_has_one_owner_and_every_owner_an_epoch_of_its_own() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let first = standing(&store, 1).await;
    assert_eq!((first.held.len(), first.workers, first.free), (0, 1, SHARDS));
    assert_eq!(claim(&store, 1, 100).await.len(), 100);
    let other = standing(&store, 2).await;
    assert_eq!((other.held.len(), other.workers, other.free), (0, 2, SHARDS - 100));
    assert!(other.free_in.is_some_and(|wait| wait <= LIFE && wait > LIFE / 2), "{:?}", other.free_in);
    let theirs = claim(&store, 2, SHARDS).await;
    assert_eq!(theirs.len(), SHARDS - 100, "what another holds is not taken");
    let mine = standing(&store, 1).await.held;
    assert_eq!(mine.len(), 100);
    expire(&store).await;
    assert_eq!(standing(&store, 1).await.held.len(), 100, "nobody took it: it is prolonged");
    expire(&store).await;
    let taken = claim(&store, 2, SHARDS).await;
    assert_eq!(taken.len(), SHARDS);
    assert_eq!(standing(&store, 1).await.held, [], "a renewal takes nothing back");
    let before: BTreeSet<Fence> = mine.iter().chain(&theirs).copied().collect();
    assert!(taken.iter().all(|fence| !before.contains(fence)), "every epoch is new");

    let ending = Replica { works: false, ..replica(1) };
    let leases = store.leases(&ending.id).expect("replicas");
    assert_eq!(leases.renew(&ending, LIFE).await.expect("renewed").workers, 1, "it takes no share any more");

    let id = replica(2).id;
    let leases = store.leases(&id).expect("replicas");
    leases.release(&id, &[mine[0], taken[0], taken[1]]).await.expect("released");
    assert_eq!(standing(&store, 2).await.held.len(), SHARDS - 2, "an epoch that is over is nobody's");
    leases.leave(&id).await.expect("left");
    let alone = standing(&store, 1).await;
    assert_eq!((alone.workers, alone.free), (1, SHARDS));
    let seen = leases.replicas().await.expect("seen");
    assert_eq!(seen.len(), 1);
    assert_eq!((&seen[0].replica, seen[0].shards), (&replica(1), 0));
    assert!(seen[0].seen < LIFE, "{:?}", seen[0].seen);
}

#[tokio::test]
async fn what_was_begun_under_a_lease_that_is_over_changes_nothing() {
    let Some(home) = Home::server().await else { return };
    let (zombie, heir) = (home.open(1).await.expect("opened"), home.open(2).await.expect("opened"));
    let app = new_app(1);
    zombie.create_app(&app).await.expect("created");
    let watch = watch(&zombie, &app.id, 1, None).await;
    let (cursor, shard) = (&watch.cursors[0].id, Shard::of(&watch.repository));
    let of = |fences: &[Fence]| *fences.iter().find(|fence| fence.shard == shard).expect("all of them");
    let old = of(&claim(&zombie, 1, SHARDS).await);
    zombie.under(old).set_blocked(cursor, Some("first")).await.expect("its own");
    expire(&zombie).await;
    let new = of(&claim(&heir, 2, SHARDS).await);
    assert!(new.epoch > old.epoch);

    let rows = async || format!("{:?}", heir.watches(&app.id, None, 10).await.expect("read"));
    let before = rows().await;
    let (late, living) = (zombie.under(old), zombie.under(new));
    for refused in [
        late.set_blocked(cursor, Some("late")).await,
        late.advance(cursor, 0, None).await,
        late.request_cursor_resync(cursor, true, "late").await,
        late.settle(settlement(cursor)).await.map(drop),
        late.finish_round(cursor, 1, Timestamp(1), false).await.map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::Lost)), "{refused:?}");
    }
    assert_eq!(rows().await, before);
    // In one turn with what stands, it costs that nothing.
    let answers = join_all((0..40).map(|index| if index % 2 == 0 { &late } else { &living }).map(|store| {
        let settlement = settlement(cursor);
        async move { store.settle(settlement).await }
    }))
    .await;
    for (index, answer) in answers.iter().enumerate() {
        let is_right = if index % 2 == 0 {
            matches!(answer, Err(StoreError::Lost))
        } else {
            matches!(answer, Ok(false))
        };
        assert!(is_right, "{index}: {answer:?}");
    }
    living.set_blocked(cursor, Some("second")).await.expect("it stands");
    let id = replica(2).id;
    heir.leases(&id).expect("replicas").leave(&id).await.expect("left");
    let refused = living.set_blocked(cursor, None).await;
    assert!(matches!(refused, Err(StoreError::Lost)), "it was given back: {refused:?}");
}

#[tokio::test]
async fn what_a_replica_began_before_it_lost_a_lease_is_worth_nothing_when_it_has_it_again() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let leased = Leased::cursor(&store).await;
    let old = leased.claim(&store, 1).await;
    expire(&store).await;
    let new = leased.claim(&store, 1).await;
    assert_eq!(new.owner, old.owner);
    leased.assert_follows(&store, old, new).await;
}

/// A cursor, and the shard that the right to move it follows from.
struct Leased {
    cursor: CursorId,
    shard: Shard,
}

impl Leased {
    async fn cursor(store: &SqlStore) -> Self {
        let app = new_app(1);
        store.create_app(&app).await.expect("created");
        let watch = watch(store, &app.id, 1, None).await;
        Self { cursor: watch.cursors[0].id.clone(), shard: Shard::of(&watch.repository) }
    }

    /// Claims all shards for a replica; its right to this one.
    async fn claim(&self, store: &SqlStore, replica: u128) -> Fence {
        let claimed = claim(store, replica, SHARDS).await;
        *claimed.iter().find(|fence| fence.shard == self.shard).expect("all of them")
    }

    /// What is written under the old right changes nothing, what is under the new one does.
    async fn assert_follows(&self, store: &SqlStore, old: Fence, new: Fence) {
        let refused = store.under(old).set_blocked(&self.cursor, Some("late")).await;
        assert!(matches!(refused, Err(StoreError::Lost)), "{refused:?}");
        store.under(new).set_blocked(&self.cursor, None).await.expect("it stands");
    }
}

#[tokio::test]
async fn a_renewal_tells_what_the_clock_of_the_database_says() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let leases = store.leases(&replica(1).id).expect("replicas");
    let before = leases.now().await.expect("said");
    let told = leases.renew(&replica(1), LIFE).await.expect("renewed").now.expect("said");
    let after = leases.now().await.expect("said");
    assert!(
        before <= told && told <= after && before > Timestamp(1_700_000_000_000),
        "{before:?} {told:?} {after:?}"
    );
}

#[tokio::test]
async fn an_epoch_that_was_given_twice_is_worth_nothing_to_the_first() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let leased = Leased::cursor(&store).await;
    let old = leased.claim(&store, 1).await;
    store.under(old).set_blocked(&leased.cursor, Some("its own")).await.expect("it stands");
    // A standby took over without the last commits, and another replica claimed there.
    store.tamper("update lease set epoch = epoch - 1, expires_at = 0 where shard <> 'all'").await;
    let new = leased.claim(&store, 2).await;
    assert_eq!(new.epoch, old.epoch);
    leased.assert_follows(&store, old, new).await;
}

#[tokio::test]
async fn a_replica_without_a_lease_is_waited_for_until_its_word_ends() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    assert_eq!(standing(&store, 1).await.free_in, None, "nobody else is there");
    standing(&store, 2).await;
    let wait = standing(&store, 1).await.free_in.expect("the other may be dead");
    assert!(wait <= LIFE && wait > LIFE / 2, "{wait:?}");
}

#[tokio::test]
async fn replicas_write_side_by_side_until_all_are_fenced_off() {
    let Some(home) = Home::server().await else { return };
    let (one, two) = (home.open(1).await.expect("opened"), home.open(2).await.expect("opened"));
    one.create_app(&new_app(1)).await.expect("created");
    two.create_app(&new_app(2)).await.expect("created");
    one.create_app(&new_app(3)).await.expect("created");
    let fence = claim(&one, 1, 1).await[0];
    two.tamper("update lease set epoch = epoch + 1 where shard = 'all'").await;
    assert!(matches!(one.create_app(&new_app(4)).await, Err(StoreError::Fenced)));
    let cursor = CursorId::new(Ulid::from_parts(1, 1));
    assert!(matches!(two.under(fence).set_blocked(&cursor, None).await, Err(StoreError::Fenced)));
}

#[tokio::test]
async fn what_one_tells_the_others_hear() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let one = store.leases(&replica(1).id).expect("replicas");
    let two = store.leases(&replica(2).id).expect("replicas");
    let app = Signal::App(new_app(1).id);
    let tell = async {
        // The first may come before anybody listens.
        loop {
            two.tell(&Signal::Redrive).await.expect("told");
            one.tell(&app).await.expect("told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = tell => {}
        heard = two.hear() => assert_eq!(heard, app, "its own words are not heard"),
    }
    store.tamper("select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%' and datname = current_database()").await;
    // The word may have been told several times before it was heard.
    let after = async {
        loop {
            let heard = two.hear().await;
            if heard != app {
                break heard;
            }
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(60), after).await.expect("in time");
    assert_eq!(heard, Signal::Missed, "some may have been missed");
}

pub(super) async fn the_rows_of_a_shard_are_found_by_the_ids_of_their_repositories(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("created");
    let mut watches = Vec::new();
    for number in 0..40 {
        watches.push(watch(&store, &app.id, number, None).await);
    }
    let shards: BTreeSet<Shard> = watches.iter().map(|watch| Shard::of(&watch.repository)).collect();
    assert!(shards.len() > 20, "{} shards prove little", shards.len());
    for shard in Shard::all() {
        let of_this = |watch: &&super::Watch| Shard::of(&watch.repository) == shard;
        let (reach, expected) = (Reach::These(vec![shard]), watches.iter().filter(of_this).count());
        let repositories = store.repositories(&reach).await.expect("read");
        assert!(repositories.iter().all(|(repository, _)| Shard::of(repository) == shard));
        assert_eq!(repositories.len(), expected, "{shard:?}");
        assert_eq!(store.pending(None, &reach).await.expect("read").len(), expected, "{shard:?}");
        assert_eq!(store.pending(Some(&app.id), &reach).await.expect("read").len(), expected, "{shard:?}");
    }
    let all = store.pending(None, &Reach::These(Shard::all().collect())).await.expect("read");
    assert_eq!(all, store.pending(None, &Reach::All).await.expect("read"));
    assert!(store.pending(None, &Reach::These(Vec::new())).await.expect("read").is_empty());
}

#[tokio::test]
async fn a_keyed_request_runs_as_long_as_its_replica_lives() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let (first, second) = (replica(1), replica(2));
    let leases = store.leases(&first.id).expect("replicas");
    leases.renew(&first, LIFE).await.expect("renewed");
    let owner = new_app(1).id;
    let request =
        |key: &str| KeyedRequest { owner: owner.clone(), key: key.into(), hash: Sha256Hash::of(b"a") };
    let begin = async |key: &str, runner: &Replica| {
        let now = leases.now().await.expect("a clock");
        store.begin_request(&request(key), now, &runner.id).await.expect("begun")
    };
    assert!(matches!(begin("a", &first).await, Begun::New));
    assert!(matches!(begin("a", &second).await, Begun::Running), "whichever started first");
    // It says no more that it lives.
    store.tamper("update replica set seen_at = seen_at - life_ms").await;
    assert!(matches!(begin("a", &first).await, Begun::Running), "its own it knows");
    assert!(matches!(begin("a", &second).await, Begun::New));
    assert!(matches!(begin("a", &second).await, Begun::Running));
    assert!(matches!(begin("a", &first).await, Begun::New), "the second never said that it lives");
    leases.leave(&first.id).await.expect("left");
    assert!(matches!(begin("a", &second).await, Begun::New));

    // What a version before left says not who runs it.
    assert!(matches!(begin("b", &first).await, Begun::New));
    store.tamper("update idempotency set runner = null").await;
    assert!(matches!(begin("b", &second).await, Begun::Running), "for a minute");
    store.tamper("update idempotency set created_at = created_at - 60001").await;
    assert!(matches!(begin("b", &second).await, Begun::New));
}
