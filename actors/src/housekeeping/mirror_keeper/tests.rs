//! The keeper over mirrors in memory: what it does to which of them, and that neither a panic nor a
//! hang nor a failure ends it.

use tidings_entity::kind::HistoryMode;

use super::*;
use crate::{
    ports::{GitError, Keep, MirrorFacts, Share, SourceStore, Watch, WatchStore},
    supervision::tree::MIRROR_KEEPER,
    testing::{
        git::{Upkeep, UpkeepFault},
        house::{House, URL},
        transport::Answer,
    },
};

fn facts(repository: &RepositoryId, bytes: u64, packs: u64) -> MirrorFacts {
    MirrorFacts { repository: repository.clone(), bytes, packs, shallow: 1, evicted_to: None }
}

/// The work that was done, without scrubs.
fn done(house: &House) -> Vec<Upkeep> {
    let mut work = house.git.take_upkeep();
    work.retain(|work| !matches!(work, Upkeep::Scrubbed(..)));
    work
}

async fn another(house: &House, name: &str) -> Watch {
    let url = format!("https://git.example/one/{name}");
    house.git.commit(&crate::testing::house::location(&url), "main", &[("a", name)]);
    let app = house.app().await;
    house.watch_with(&app, &url, |new| new.url.clone_from(&url)).await
}

#[tokio::test(start_paused = true)]
async fn a_mirror_is_rebuilt_from_pins_and_heads_as_soon_as_a_fetch_piled_it_up() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    house.git.put_mirror(facts(&watch.repository, 100, 40));
    assert_eq!(done(&house), [Upkeep::Swept], "at the start, once");
    house.git.fetch_brings(3);
    let second = house.commit(&[("a", "2")]);
    house.poke(&watch).await;
    house.until_held(&watch, second).await;
    house.until("it was rebuilt", async || house.git.mirrors_now()[0].packs == 1).await;
    let [Upkeep::Compacted(repository, Keep { commits, chains: false, blobs: true })] = &done(&house)[..]
    else {
        panic!("something else was done")
    };
    assert_eq!(*repository, watch.repository);
    assert!(commits.contains(&second), "the head was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_rebuilding_keeps_the_trees_of_an_open_round_and_chains_where_every_commit_is_delivered() {
    for mode in [HistoryMode::Net, HistoryMode::Every] {
        let mut house = House::new();
        house.start().await;
        let first = house.commit(&[("a", "1")]);
        let app = house.app().await;
        let watch = house.watch_with(&app, URL, |new| new.mode = mode).await;
        house.until_held(&watch, first).await;
        house.transport.answer_app(&app, Some(Answer::Status(503)));
        let second = house.commit(&[("a", "2")]);
        house.poke(&watch).await;
        house.until("its round is open", async || house.cursor(&watch).await.open.is_some()).await;
        // The head goes on: no head and nothing held names the commit that the round leads to.
        let third = house.commit(&[("a", "3")]);
        house.poke(&watch).await;
        house.until("the head moved", async || heads(&house, &watch).await.contains(&third)).await;
        assert!(!heads(&house, &watch).await.contains(&second));
        done(&house);
        house.git.put_mirror(facts(&watch.repository, 100, 40));
        house.context.look_at_mirror(&watch.repository);
        house.until("it was rebuilt", async || house.git.mirrors_now()[0].packs == 1).await;
        let work = done(&house);
        let [Upkeep::Compacted(_, Keep { commits, chains, blobs: true })] = &work[..] else {
            panic!("something else was done: {work:?}")
        };
        for commit in [first, second, third] {
            assert!(commits.contains(&commit), "{commit} was dropped: {commits:?}");
        }
        assert_eq!(*chains, mode == HistoryMode::Every);
    }
}

/// What a fetch may name as present.
async fn heads(house: &House, watch: &Watch) -> Vec<tidings_entity::id::ObjectId> {
    house.store.sources(&watch.repository).await.expect("sources").remove(0).haves
}

#[tokio::test(start_paused = true)]
async fn a_mirror_goes_with_its_last_watch_and_not_before() {
    let mut house = House::new();
    house.start().await;
    house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    let other = house.app().await;
    let second = house.watch(&other).await;
    assert_eq!(second.repository, watch.repository);
    house.git.put_mirror(facts(&watch.repository, 100, 1));
    house.store.unwatch(&app, &watch.id).await.expect("unwatched");
    house.handle().repository_changed(&watch.repository).await;
    tokio::time::sleep(Duration::from_secs(7_300)).await;
    assert_eq!(house.git.mirrors_now().len(), 1, "somebody still watches");
    house.store.unwatch(&other, &second.id).await.expect("unwatched");
    house.handle().repository_changed(&watch.repository).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(house.git.mirrors_now().is_empty());
}

#[tokio::test(start_paused = true)]
async fn above_the_quota_the_least_recently_changed_loses_its_contents_and_only_they() {
    let mut house = House::with(|policy| {
        policy.mirrors_max_bytes = 1_500;
        policy.mirror_max_bytes = 2_000;
    });
    house.start().await;
    let mut watches = Vec::new();
    for name in ["old", "middle", "young"] {
        watches.push(another(&house, name).await);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    for watch in &watches {
        house.git.put_mirror(facts(&watch.repository, 1_000, 1));
    }
    // One look at all of them makes all the room that is missing.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let left: Vec<_> = watches
        .iter()
        .map(|watch| {
            let mirrors = house.git.mirrors_now();
            mirrors.iter().find(|facts| facts.repository == watch.repository).expect("a mirror").bytes
        })
        .collect();
    assert_eq!(left, [100, 100, 1_000]);
    let work = done(&house);
    let keep = |watch: &Watch| {
        work.iter().find_map(|work| match work {
            Upkeep::Compacted(repository, keep) if *repository == watch.repository => Some(keep.clone()),
            _ => None,
        })
    };
    let old = keep(&watches[0]).expect("it was freed");
    let held = house.cursor(&watches[0]).await.held.expect("synced");
    assert!(!old.blobs && old.commits.contains(&held), "{old:?}");
    assert_eq!(keep(&watches[2]), None);
    tokio::time::sleep(Duration::from_secs(3_700)).await;
    assert!(done(&house).is_empty(), "nothing gives twice");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_above_its_own_quota_is_rebuilt_and_then_freed_of_contents() {
    let mut house = House::with(|policy| policy.mirror_max_bytes = 500);
    house.start().await;
    house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.git.put_mirror(facts(&watch.repository, 1_000, 1));
    tokio::time::sleep(Duration::from_secs(120)).await;
    let blobs: Vec<_> = done(&house)
        .into_iter()
        .filter_map(|work| match work {
            Upkeep::Compacted(_, keep) => Some(keep.blobs),
            _ => None,
        })
        .collect();
    assert_eq!(blobs, [true, false]);
    assert_eq!(house.git.mirrors_now()[0].bytes, 100);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_frees_contents_within_a_minute_of_a_fetch() {
    let mut house = House::new();
    house.start().await;
    let first = house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.until_held(&watch, first).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    house.git.put_mirror(facts(&watch.repository, 1_000, 1));
    house.git.stop_fetches(Some("the disk is full"));
    house.git.fetch_brings(1);
    house.commit(&[("a", "2")]);
    house.poke(&watch).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(house.git.mirrors_now()[0].evicted_to, Some(100));
}

#[tokio::test(start_paused = true)]
async fn damage_that_a_scrub_finds_has_the_repository_scanned_at_once() {
    let mut house = House::with(|policy| {
        policy.poll_min = Duration::from_secs(86_000);
        policy.poll_max = Duration::from_secs(86_400);
    });
    house.start().await;
    house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    house.git.put_mirror(facts(&watch.repository, 1_000, 1));
    let polls = house.git.polls();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(house.git.polls(), polls, "nothing was due");
    house.git.damage(&watch.repository);
    tokio::time::sleep(Duration::from_secs(3_700)).await;
    assert_eq!(house.git.polls(), polls + 1);
}

#[tokio::test(start_paused = true)]
async fn every_look_reads_the_next_share() {
    let mut house = House::with(|policy| policy.scrub_every = Duration::from_secs(4 * 3_600));
    house.start().await;
    house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.git.put_mirror(facts(&watch.repository, 1_000, 1));
    tokio::time::sleep(Duration::from_secs(60 + 4 * 3_600 + 60)).await;
    let shares: Vec<Share> = house
        .git
        .take_upkeep()
        .into_iter()
        .filter_map(|work| match work {
            Upkeep::Scrubbed(_, share) => Some(share),
            _ => None,
        })
        .collect();
    assert!(shares.len() >= 4, "{shares:?}");
    for place in (0..=u16::MAX).step_by(97) {
        assert!(shares.iter().any(|share| share.covers(place)), "{place} was never read: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn neither_a_panic_nor_a_hang_nor_a_failure_ends_the_keeper() {
    let mut house = House::with(|policy| policy.upkeep_interval = Duration::from_secs(600));
    house.git.fail_upkeep([
        UpkeepFault::Panics,
        UpkeepFault::Fails(GitError::Storage("down".into())),
        UpkeepFault::Hangs,
    ]);
    house.start().await;
    house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.git.put_mirror(facts(&watch.repository, 100, 40));
    // The sweep panics, is done again and fails, and the first work on the mirror hangs.
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(house.git.mirrors_now()[0].packs, 40);
    house.until("it was rebuilt", async || house.git.mirrors_now()[0].packs == 1).await;
    let tree = house.handle().tree().await;
    let keeper =
        tree.children.iter().flat_map(|node| &node.children).find(|node| node.actor == MIRROR_KEEPER);
    assert_eq!(keeper.expect("it runs").restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn one_mirror_that_cannot_be_kept_does_not_hold_up_the_others() {
    let mut house = House::new();
    house.start().await;
    let watches = [another(&house, "one").await, another(&house, "two").await];
    for watch in &watches {
        house.git.put_mirror(facts(&watch.repository, 100, 40));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    house.git.fail_upkeep([UpkeepFault::Fails(GitError::Corrupt("x".into()))]);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let packs: Vec<_> = house.git.mirrors_now().iter().map(|facts| facts.packs).collect();
    assert_eq!(packs, [40, 1]);
    tokio::time::sleep(Duration::from_secs(3_700)).await;
    assert!(house.git.mirrors_now().iter().all(|facts| facts.packs == 1));
}

#[tokio::test(start_paused = true)]
async fn a_look_that_waits_is_not_lost_in_a_crash_for_longer_than_an_interval() {
    let mut house = House::new();
    house.start().await;
    house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.git.put_mirror(facts(&watch.repository, 100, 40));
    house.kill(MIRROR_KEEPER, "");
    house.context.look_at_mirror(&watch.repository);
    house.until("it was rebuilt", async || house.git.mirrors_now()[0].packs == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_mirror_goes_when_another_replica_has_worked_on_its_repository_for_an_hour() {
    // Prolonged rarely: hours of renewals take long even where nobody waits for them.
    let house = House::alone(Duration::from_secs(300)).await;
    let commit = house.commit(&[("a", "1")]);
    let (_, watch, _) = house.watching().await;
    house.until_held(&watch, commit).await;
    house.git.put_mirror(facts(&watch.repository, 100, 1));
    tokio::time::sleep(Duration::from_secs(3 * 3_600)).await;
    assert_eq!(house.git.mirrors_now().len(), 1, "it is worked on here");
    house.lose_shards().await;
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    house.context.look_at_mirror(&watch.repository);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(house.git.mirrors_now().len(), 1, "it may come back");
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert_eq!(house.git.mirrors_now(), [], "its contents are the other's to keep");
}

#[tokio::test(start_paused = true)]
async fn where_mirrors_are_shared_each_replica_looks_after_those_it_works_on() {
    let house = House::alone_with(Duration::from_secs(300), |policy| policy.mirrors_shared = true).await;
    let commit = house.commit(&[("a", "1")]);
    let (app, watch, _) = house.watching().await;
    house.until_held(&watch, commit).await;
    house.git.put_mirror(facts(&watch.repository, 100, 40));
    house.context.look_at_mirror(&watch.repository);
    house.until("it was rebuilt", async || house.git.mirrors_now()[0].packs == 1).await;

    // Another works on it now: it is neither rebuilt nor removed here, also when nobody watches it.
    house.lose_shards().await;
    house.until("it hears of that", async || house.shards() == 0).await;
    house.git.put_mirror(facts(&watch.repository, 100, 40));
    tokio::time::sleep(Duration::from_secs(3 * 3_600)).await;
    assert_eq!(house.git.mirrors_now()[0].packs, 40);
    house.store.unwatch(&app, &watch.id).await.expect("unwatched");
    house.context.look_at_mirror(&watch.repository);
    tokio::time::sleep(Duration::from_secs(3 * 3_600)).await;
    assert_eq!(house.git.mirrors_now().len(), 1);
    assert!(done(&house).iter().filter(|done| **done == Upkeep::Swept).count() > 1, "what was replaced goes");
}

#[tokio::test(start_paused = true)]
async fn shared_mirrors_give_up_their_contents_one_a_minute_until_there_is_room() {
    let house = House::alone_with(Duration::from_secs(300), |policy| policy.mirrors_shared = true).await;
    for name in ["one", "two", "three"] {
        let watch = another(&house, name).await;
        house.git.put_mirror(facts(&watch.repository, 1_000, 1));
    }
    house.git.stop_fetches(Some("the disk is full"));
    let freed = || house.git.mirrors_now().iter().filter(|facts| facts.evicted_to.is_some()).count();
    house.until("the first gives", async || freed() > 0).await;
    assert_eq!(freed(), 1, "what it gave goes later: then there may be enough");
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(freed(), 2);
    house.git.stop_fetches(None);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(freed(), 2);
}
