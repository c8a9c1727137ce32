//! Replicas over one set of rows, on paused time: they share, die, are cut off and come back.

mod trouble;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tidings_entity::id::{ReplicaId, RepositoryId};
use tokio::time::{Instant, sleep};
use ulid::Ulid;

use super::SWEEP;
use crate::{
    circuit_breaker::{endpoint_key, source_key},
    model::secret::Secret,
    ports::{
        Clock, GitError, Leases, Replica, SHARDS, Shard, Signal, Store, StoreError, UpkeepStore, WatchStore,
    },
    supervision::{
        directory::Doing,
        tree::{CIRCUIT_BREAKER, DELIVERER, LEASE_KEEPER, REPOSITORY_WATCHER},
    },
    testing::{
        Fault, SIGNALS,
        house::{House, URL, files, location, refs},
        transport::Answer,
    },
    time::Timestamp,
};

const LIFE: Duration = Duration::from_secs(9);

/// Waits until these replicas hold everything between them, no two of them more than rounding apart.
async fn until_balanced(houses: &[&House]) {
    let share = SHARDS.div_ceil(houses.len());
    let balanced = async || {
        let held: Vec<usize> = houses.iter().map(|house| house.shards()).collect();
        held.iter().sum::<usize>() == SHARDS && held.iter().all(|shards| *shards <= share)
    };
    houses[0].until("shards are shared evenly", balanced).await;
}

/// Which of them works on the repository of a watch.
fn owner<'h>(houses: &[&'h House], repository: &RepositoryId) -> Option<&'h House> {
    houses.iter().copied().find(|house| house.context.shards.owns(repository))
}

fn down() -> Fault {
    Fault::Fails(StoreError::Unavailable("down".into()))
}

#[tokio::test(start_paused = true)]
async fn replicas_share_evenly_as_they_come_and_go() {
    let mut houses = House::replicas(3, LIFE).into_iter();
    let (mut first, mut second, mut third) =
        (houses.next().expect("one"), houses.next().expect("two"), houses.next().expect("three"));
    first.start().await;
    until_balanced(&[&first]).await;
    second.start().await;
    third.start().await;
    until_balanced(&[&first, &second, &third]).await;
    let began = Instant::now();
    second.stop(Duration::from_secs(1)).await;
    until_balanced(&[&first, &third]).await;
    assert!(began.elapsed() < LIFE / 3, "who ends cleanly is not waited for: {:?}", began.elapsed());
    let began = Instant::now();
    first.die().await;
    until_balanced(&[&third]).await;
    assert!(began.elapsed() > LIFE / 2, "a lease was taken before its end");
    assert!(began.elapsed() < LIFE + Duration::from_secs(2), "{:?}", began.elapsed());
    third.stop(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_repository_is_delivered_by_whoever_owns_it_and_goes_on_in_mid_round_elsewhere() {
    let mut houses = House::replicas(2, LIFE);
    for house in &mut houses {
        house.start().await;
    }
    let (one, two) = (&houses[0], &houses[1]);
    until_balanced(&[one, two]).await;
    let files: Vec<(String, String)> = files(40, "x");
    let commit = one.commit(&refs(&files));
    let app = one.app().await;
    // Asked of either, it is done by the one that owns it.
    one.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_secs(1))));
    let watch = one.watch(&app).await;
    one.until("some of it was taken", async || one.taken(&app).len() > 5).await;
    let is_first = one.context.shards.owns(&watch.repository);
    assert_ne!(is_first, two.context.shards.owns(&watch.repository), "exactly one owns it");
    let (dying, living) = if is_first { (0, 1) } else { (1, 0) };
    let before = houses[dying].taken(&app).len();
    assert!(before < 40, "it is not done yet");
    houses[dying].die().await;
    let living = &houses[living];
    living.until_held(&watch, commit).await;
    living.assert_mirrors(&app, commit);
    let taken = living.taken(&app);
    assert!(taken.len() >= 40 && taken.len() <= 40 + 64, "{}", taken.len());
    let mut ids: Vec<_> = living.tried(&app).into_iter().map(|arrival| arrival.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40, "what came again came under the same id");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_moves_is_left_before_another_begins() {
    const FILES: usize = 30;
    /// So many that most shards have something going on: those that move must be left first.
    const WATCHES: usize = 300;
    let mut houses = House::replicas(2, LIFE);
    houses[0].start().await;
    until_balanced(&[&houses[0]]).await;
    let one = &houses[0];
    let app = one.app().await;
    one.transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_millis(200))));
    let files = files(FILES, "x");
    let mut watches = Vec::new();
    for number in 0..WATCHES {
        let url = format!("{URL}{number}");
        one.git.commit(&location(&url), "main", &refs(&files));
        watches.push(one.watch_with(&app, &url, |_| {}).await);
    }
    one.until("much is going on", async || one.tried(&app).len() > WATCHES).await;
    houses[1].start().await;
    let (one, two) = (&houses[0], &houses[1]);
    until_balanced(&[one, two]).await;
    let moved = watches.iter().filter(|watch| two.context.shards.owns(&watch.repository)).count();
    assert!(moved > WATCHES / 10, "{moved} of {WATCHES} repositories moved");
    two.until("all of it is held", async || two.store_holds(&watches).await == WATCHES).await;
    assert_eq!(two.tried(&app).len(), FILES * WATCHES, "a clean move repeats nothing");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_on_one_replica_opens_on_the_others_and_one_of_them_probes() {
    let mut houses = House::replicas(2, LIFE);
    for house in &mut houses {
        house.start().await;
    }
    let (one, two) = (&houses[0], &houses[1]);
    until_balanced(&[one, two]).await;
    let app = one.app().await;
    one.transport.answer_app(&app, Some(Answer::Status(503)));
    let mut watches = Vec::new();
    for number in 0..8 {
        let url = format!("{URL}{number}");
        one.git.commit(&location(&url), "main", &[("a", "1")]);
        watches.push(one.watch_with(&app, &url, |_| {}).await);
    }
    let owners = watches.iter().filter(|watch| owner(&[one, two], &watch.repository).is_some()).count();
    assert_eq!(owners, 8);
    let key = endpoint_key(app.as_str());
    two.until("both breakers are open", async || {
        let open = |house: &&House| {
            house.doing(CIRCUIT_BREAKER, &key).is_some_and(|doing| doing.to_string() == "open")
        };
        [one, two].iter().all(open)
    })
    .await;
    let before = one.tried(&app).len();
    sleep(Duration::from_secs(600)).await;
    let probes = one.tried(&app).len() - before;
    assert!((5..=25).contains(&probes), "one probe a minute of both together, not {probes}");
    one.transport.answer_app(&app, None);
    for watch in &watches {
        one.until("it is held", async || one.cursor(watch).await.held.is_some()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_app_takes_at_once_is_divided_among_those_that_work() {
    let mut houses = House::replicas(2, LIFE);
    houses[0].start().await;
    until_balanced(&[&houses[0]]).await;
    let app = houses[0].app_with(|delivery| delivery.max_concurrent = Some(4)).await;
    houses[0].transport.answer_app(&app, Some(Answer::Slow(200, Duration::from_secs(5))));
    let contents = files(40, "1");
    let watch = async |house: &House, numbers: std::ops::Range<usize>| {
        for number in numbers {
            let url = format!("{URL}{number}");
            house.git.commit(&location(&url), "main", &refs(&contents));
            house.watch_with(&app, &url, |_| {}).await;
        }
    };
    watch(&houses[0], 0..8).await;
    let in_flight = |house: &House| match house.doing(DELIVERER, app.as_str()) {
        Some(Doing::Delivering { in_flight, .. }) => in_flight,
        _ => 0,
    };
    houses[0].until("one sends all that the app takes", async || in_flight(&houses[0]) == 4).await;
    houses[1].start().await;
    let began = Instant::now();
    houses[0].until("it leaves half to the other one", async || in_flight(&houses[0]) == 2).await;
    assert!(began.elapsed() < 2 * LIFE, "after {:?}", began.elapsed());
    until_balanced(&[&houses[0], &houses[1]]).await;
    // What is being worked on goes to nobody else; of the rest each gets some.
    watch(&houses[0], 8..24).await;
    let both = async || houses.iter().all(|house| in_flight(house) == 2);
    houses[0].until("both send as much as they may", both).await;
    for _ in 0..20 {
        sleep(Duration::from_secs(1)).await;
        let flying: Vec<usize> = houses.iter().map(in_flight).collect();
        assert!(flying.iter().all(|flying| *flying <= 2), "{flying:?} of 4");
    }
    houses[1].die().await;
    let died = Instant::now();
    houses[0].until("one sends what both did", async || in_flight(&houses[0]) == 4).await;
    assert!(died.elapsed() < 2 * LIFE, "after {:?}", died.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_is_restarted_goes_on_giving_away() {
    let mut houses = House::replicas(2, LIFE);
    houses[0].start().await;
    until_balanced(&[&houses[0]]).await;
    let of = |number: usize| RepositoryId::new(Ulid::from_parts(1, number as u128));
    // Something goes on in every shard.
    let holds: Vec<_> = (0..SHARDS).filter_map(|number| houses[0].context.shards.hold(&of(number))).collect();
    assert_eq!(holds.len(), SHARDS);
    houses[1].start().await;
    let (one, two) = (&houses[0], &houses[1]);
    one.until("it gives shards away", async || one.context.shards.is_leaving()).await;
    one.context.directory.cell(LEASE_KEEPER, "").expect("it runs").kill();
    assert_eq!(two.shards(), 0, "nothing is given away before its end");
    drop(holds);
    until_balanced(&[one, two]).await;
    assert!(!one.context.shards.is_leaving());
}

#[tokio::test(start_paused = true)]
async fn who_has_nothing_to_send_takes_no_probe() {
    let mut houses = House::replicas(2, LIFE);
    for house in &mut houses {
        house.start().await;
    }
    let (one, two) = (&houses[0], &houses[1]);
    until_balanced(&[one, two]).await;
    let app = one.app().await;
    one.transport.answer_app(&app, Some(Answer::Status(503)));
    one.commit(&[("a", "1")]);
    let watch = one.watch(&app).await;
    let key = endpoint_key(app.as_str());
    two.until("both breakers are open", async || {
        [one, two].iter().all(|house| house.context.directory.cell(CIRCUIT_BREAKER, &key).is_some())
    })
    .await;
    sleep(Duration::from_secs(300)).await;
    let before = one.tried(&app).len();
    sleep(Duration::from_secs(1_200)).await;
    let probes = one.tried(&app).len() - before;
    assert!((18..=21).contains(&probes), "one a minute, by the replica that has the change, not {probes}");
    // One that begins again is the last to see that a probe is due.
    let busy = owner(&[one, two], &watch.repository).expect("an owner");
    for _ in 0..3 {
        let before = one.tried(&app).len();
        busy.kill(CIRCUIT_BREAKER, &key);
        sleep(Duration::from_secs(75)).await;
        assert!(one.tried(&app).len() > before, "the other took the probe and had nothing to send");
    }
    one.transport.answer_app(&app, None);
    one.until("it is held", async || one.cursor(&watch).await.held.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn who_stops_gives_its_shards_away_while_it_drains() {
    let mut houses = House::replicas(2, LIFE);
    for house in &mut houses {
        house.start().await;
    }
    until_balanced(&[&houses[0], &houses[1]]).await;
    let app = houses[0].app().await;
    let slow = Answer::Slow(200, Duration::from_secs(12));
    houses[0].transport.answer_app(&app, Some(slow));
    let commit = houses[0].commit(&[("a", "1")]);
    let watch = houses[0].watch(&app).await;
    let flies = |house: &House| {
        matches!(house.doing(DELIVERER, app.as_str()), Some(Doing::Delivering { in_flight: 1, .. }))
    };
    houses[0].until("an attempt is on its way", async || houses.iter().any(flies)).await;
    let owner = usize::from(houses[1].context.shards.owns(&watch.repository));
    let mut stopping = houses.remove(owner);
    let heir = &houses[0];
    let took = async {
        let began = Instant::now();
        heir.until("all shards but the busy one are here", async || heir.shards() == SHARDS - 1).await;
        began.elapsed()
    };
    let (took, ()) = tokio::join!(took, stopping.stop(Duration::from_secs(20)));
    assert!(took < Duration::from_secs(2), "it waits for no other: {took:?}");
    heir.until_held(&watch, commit).await;
    assert_eq!(heir.tried(&app).len(), 1, "what was on its way ended there, longer than a lease lives");
    assert_eq!(heir.shards(), SHARDS);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_told_of_is_found_by_a_sweep() {
    let mut houses = House::replicas(1, LIFE);
    houses[0].start().await;
    let one = &houses[0];
    until_balanced(&[one]).await;
    let app = one.app().await;
    let commit = one.commit(&[("a", "1")]);
    let first = one.watch(&app).await;
    one.until_held(&first, commit).await;
    // Another app watches the same repository with a credential of its own; the word of it is lost.
    let other = one.app().await;
    let watch = one.register(&other, URL, |new| new.credential = Some(Secret::new("own".into()))).await;
    assert_ne!(watch.source, first.source);
    one.until_held(&watch, commit).await;
    one.until("both sources are watched, though nothing moved", async || {
        let doing = one.doing(REPOSITORY_WATCHER, watch.repository.as_str());
        doing.is_some_and(|doing| doing.to_string() == "watching 2 sources")
    })
    .await;
    let commit = one.commit(&[("a", "2")]);
    one.until_held(&watch, commit).await;
}

#[tokio::test(start_paused = true)]
async fn the_share_of_a_dead_replica_is_taken_when_its_word_ends() {
    let mut house = House::replicas(1, LIFE).pop().expect("one");
    // One that holds nothing, but would.
    let id = ReplicaId::new(Ulid::from_parts(1, 99));
    let dead = Replica { id: id.clone(), ..house.context.policy.replica.clone() };
    house.store.leases().seen_by(&id).renew(&dead, LIFE).await.expect("told");
    let began = Instant::now();
    sleep(Duration::from_secs(1)).await;
    house.start().await;
    house.until("it holds its share", async || house.shards() == SHARDS / 2).await;
    house.until("it holds everything", async || house.shards() == SHARDS).await;
    let took = began.elapsed();
    assert!(took >= LIFE && took < LIFE + Duration::from_millis(500), "not at a renewal: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_of_a_source_ends_with_its_shard_and_its_row_stays() {
    let house = House::alone(LIFE).await;
    let app = house.app().await;
    let commit = house.commit(&[("a", "1")]);
    let watch = house.watch(&app).await;
    house.until_held(&watch, commit).await;
    house.git.fail(vec![GitError::Unauthorized; 20]);
    let key = source_key(watch.source.as_str(), watch.repository.as_str());
    let is_open =
        async || house.doing(CIRCUIT_BREAKER, &key).is_some_and(|doing| doing.to_string() == "open");
    house.until("it is open", is_open).await;
    house.lose_shards().await;
    sleep(LIFE).await;
    assert!(
        house.context.directory.cell(CIRCUIT_BREAKER, &key).is_none(),
        "the replica that works on it has its breaker"
    );
    assert_eq!(house.store.breakers().await.expect("rows").len(), 1);
    let polls = house.git.polls();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(house.git.polls(), polls, "nobody probes here");
}

#[tokio::test(start_paused = true)]
async fn keys_are_taken_when_they_are_told_of_when_that_may_be_missed_and_by_each_sweep() {
    const MOMENT: Duration = Duration::from_millis(1);
    let house = House::alone(LIFE).await;
    let (leases, id) = (house.store.leases(), house.context.policy.replica.id.clone());
    let other = leases.seen_by(&ReplicaId::new(Ulid::from_parts(1, 99)));
    let taken = || leases.keys_taken(&id);
    assert_eq!(taken(), 0, "nobody told of any");
    other.tell(&Signal::Keys).await.expect("told");
    sleep(MOMENT).await;
    assert_eq!(taken(), 1);

    // More words than a listener keeps, none of them of keys: one that was may be lost.
    let renewals = leases.renewals();
    for _ in 0..=SIGNALS {
        other.tell(&Signal::Redrive).await.expect("told");
    }
    sleep(MOMENT).await;
    assert_eq!(taken(), 2);
    assert_eq!(leases.renewals(), renewals + 1, "and of a shard that is free");

    // Word of a key that comes while it looks is of one that it may not have seen.
    leases.take_keys_slowly(Duration::from_secs(5));
    for _ in 0..3 {
        other.tell(&Signal::Keys).await.expect("told");
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(taken(), 3, "one look at a time");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(taken(), 4);

    // A look that failed does not end it.
    leases.take_keys_slowly(Duration::ZERO);
    leases.cut_off(true);
    other.tell(&Signal::Keys).await.expect("told");
    sleep(MOMENT).await;
    leases.cut_off(false);
    assert_eq!(taken(), 4);
    sleep(SWEEP).await;
    assert_eq!(taken(), 5, "without a word");
}

/// A clock that notes what it is told of another.
struct Following {
    own: Arc<dyn Clock>,
    told: Mutex<Vec<(Timestamp, Instant, Duration)>>,
}

impl Clock for Following {
    fn now(&self) -> Timestamp {
        self.own.now()
    }

    fn follow(&self, told: Timestamp, at: Instant, error: Duration) {
        self.told.lock().expect("sound").push((told, at, error));
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_the_database_is_followed_with_each_renewal() {
    let mut house = House::replicas(1, LIFE).pop().expect("one");
    let clock = Arc::new(Following { own: house.context.clock.clone(), told: Mutex::default() });
    house.context.clock = clock.clone();
    house.store.leases().stop_the_clock(Timestamp(17));
    let began = Instant::now();
    house.start().await;
    sleep(2 * LIFE).await;
    let told = clock.told.lock().expect("sound").clone();
    assert!(told.len() > 4, "{told:?}");
    for (index, (now, at, error)) in told.into_iter().enumerate() {
        assert_eq!((now, error), (Timestamp(17), Duration::ZERO));
        assert!(at >= began + LIFE / 3 * u32::try_from(index / 2).expect("few"), "{index}: {at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_host_takes_is_divided_among_those_that_work() {
    let mut houses = House::replicas(2, LIFE);
    let sharers = |house: &House| house.context.git.hosts().sharers();
    houses[0].start().await;
    until_balanced(&[&houses[0]]).await;
    assert_eq!(sharers(&houses[0]), 1);
    houses[1].start().await;
    until_balanced(&[&houses[0], &houses[1]]).await;
    assert_eq!(sharers(&houses[0]), 2);
    houses[1].die().await;
    houses[0].until("what the other one took is its own", async || sharers(&houses[0]) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_scan_whose_shard_is_lost_changes_nothing() {
    // Whether this replica hears of the loss while the scan is on its way, or from the scan itself.
    for (hears_first, longest) in [(true, LIFE), (false, LIFE / 9)] {
        let house = House::alone(LIFE).await;
        let app = house.app().await;
        let first = house.commit(&[("a", "1")]);
        let watch = house.watch(&app).await;
        house.until_held(&watch, first).await;
        house.store.befall("move_heads", Fault::Waits(longest));
        house.commit(&[("a", "2")]);
        house.poke(&watch).await;
        house.until("a scan is on its way", async || !house.store.awaits_fault("move_heads")).await;
        house.lose_shards().await;
        house.store.leases().cut_off(!hears_first);
        // What is met here was written, or would have been if it were its own.
        house.store.befall("record_scan_error", down());
        let watching =
            || house.doing(REPOSITORY_WATCHER, watch.repository.as_str()).map(|doing| doing.to_string());
        if !hears_first {
            house
                .until("the scan ended", async || {
                    watching().is_some_and(|doing| doing == "watching 1 source")
                })
                .await;
            assert!(house.context.shards.owns(&watch.repository), "nothing was heard yet");
        }
        house.store.leases().cut_off(false);
        sleep(LIFE * 2).await;
        assert_eq!(house.cursor(&watch).await.head, Some(first), "that is the other's to find out");
        let shown = house.store.watch(&app, &watch.id).await.expect("watched");
        assert_eq!(shown.last_error, None, "nothing failed");
        assert!(house.store.awaits_fault("record_scan_error"), "nor was it to be said that something did");
        assert!(house.store.breakers().await.expect("rows").is_empty());
        assert_eq!(watching(), None);
    }
}
