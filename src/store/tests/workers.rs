//! Worker subscriptions as rows: who listens to which work, until when.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tidings_actors::{
    ports::{
        AppPatch, AppStore, ClaimRequest, ClaimStore, Clock, QueueSettings, StoreError, TaskStore,
        WORKER_SUBSCRIPTIONS_MAX, WorkWords, WorkerSubscription, WorkerSubscriptions,
    },
    testing::ManualClock,
    time::Timestamp,
};
use tidings_entity::id::{AppId, QueueId, WorkerSubscriptionId};
use ulid::Ulid;

use super::{
    home::{Home, on_both},
    new_app, number,
};
use crate::SqlStore;

const START: Timestamp = Timestamp(1_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn app(number: u128) -> AppId {
    new_app(number).id
}

fn id(number: u128) -> WorkerSubscriptionId {
    WorkerSubscriptionId::new(Ulid::from_parts(1, number))
}

fn listener(of: u128, number: u128, commands: &[&str]) -> WorkerSubscription {
    WorkerSubscription {
        id: id(number),
        app: app(of),
        url: format!("https://workers.example/{number}"),
        commands: commands.iter().map(|command| (*command).to_owned()).collect(),
        group: None,
        min_interval: 5 * SECOND,
        ttl: 300 * SECOND,
        expires_at: START.after(300 * SECOND),
        created_at: START,
    }
}

async fn open(home: &Home) -> (SqlStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START));
    let store = home.open_timed(clock.clone()).await.expect("opened");
    for number in [1, 2] {
        store.create_app(&new_app(number)).await.expect("an app");
    }
    (store, clock)
}

async fn create(store: &SqlStore, of: u128, number: u64, command: &str) {
    let task = super::tasks::new(number, command);
    store.create_tasks(&app(of), vec![task]).await.expect("written").expect("created");
}

/// The command, the ready tasks and the listeners of each queue with work.
async fn work(store: &SqlStore, words: WorkWords) -> Vec<(String, u64, Vec<u128>)> {
    let found = store.work_for(&words).await.expect("read");
    let of = |one: &WorkerSubscription| one.id.ulid().random();
    let mut work: Vec<_> = found
        .into_iter()
        .map(|work| (work.command, work.ready, work.subscriptions.iter().map(of).collect()))
        .collect();
    work.sort();
    work
}

fn all() -> WorkWords {
    WorkWords { all: true, ..WorkWords::default() }
}

async fn work_is_for_those_who_listen_to_it_in_its_app(home: Home) {
    let (store, clock) = open(&home).await;
    for new in [listener(1, 1, &["a", "b"]), listener(1, 2, &["b"]), listener(2, 3, &["a"])] {
        assert!(store.create_worker_subscription(&new).await.expect("made"));
    }
    create(&store, 1, 1, "a").await;
    create(&store, 1, 2, "b").await;
    create(&store, 1, 3, "b").await;
    create(&store, 1, 4, "c").await;
    let (a, b) = (("a".to_owned(), 1, vec![1]), ("b".to_owned(), 2, vec![1, 2]));
    assert_eq!(work(&store, all()).await, [a.clone(), b]);
    let of_queue = |of: u128| {
        let place = (app(of), QueueId::of(&app(of), "a"));
        WorkWords { queues: BTreeSet::from([place]), ..WorkWords::default() }
    };
    assert_eq!(work(&store, of_queue(1)).await, std::slice::from_ref(&a));
    assert!(work(&store, of_queue(2)).await.is_empty(), "the other app has no work");
    // Nothing can be claimed of a queue that is paused or full, or of a disabled app.
    store.pause_queue(&app(1), "a", true).await.expect("paused");
    let full = QueueSettings { max_claimed: Some(1), ..QueueSettings::default() };
    store.set_queue(&app(1), "b", &full, clock.now()).await.expect("set");
    let commands = vec!["b".to_owned()];
    let request =
        ClaimRequest { app: app(1), commands, count: 1, claim: 60 * SECOND, worker: "tok_w".into() };
    store.claim_tasks(vec![request]).await.expect("claimed");
    assert!(work(&store, all()).await.is_empty());
    store.pause_queue(&app(1), "a", false).await.expect("resumed");
    assert_eq!(work(&store, all()).await, [a]);
    let patch = AppPatch { disabled: Some(Some("by hand".into())), ..AppPatch::default() };
    store.patch_app(&app(1), &patch, clock.now()).await.expect("disabled");
    assert!(work(&store, all()).await.is_empty());
}

async fn work_that_a_rate_holds_back_is_told_with_the_moment_of_the_next_claim(home: Home) {
    let (store, clock) = open(&home).await;
    assert!(store.create_worker_subscription(&listener(1, 1, &["a"])).await.expect("made"));
    let rated = QueueSettings { rate: Some(1), ..QueueSettings::default() };
    store.set_queue(&app(1), "a", &rated, clock.now()).await.expect("set");
    create(&store, 1, 1, "a").await;
    create(&store, 1, 2, "a").await;
    let free_at = async || {
        let work = store.work_for(&all()).await.expect("read");
        work.first().expect("the queue has work").free_at
    };
    assert_eq!(free_at().await, None, "a task may be claimed");
    let commands = vec!["a".to_owned()];
    let request =
        ClaimRequest { app: app(1), commands, count: 1, claim: 60 * SECOND, worker: "tok_w".into() };
    store.claim_tasks(vec![request]).await.expect("claimed");
    let at = free_at().await.expect("the rate is used up");
    assert!(at > clock.now() && at <= clock.now().after(2 * SECOND), "{at:?}");
    clock.set(at);
    assert_eq!(free_at().await, None);
}

async fn one_that_has_ended_is_not_there_and_its_row_goes(home: Home) {
    let (store, clock) = open(&home).await;
    store.create_worker_subscription(&listener(1, 1, &["a"])).await.expect("made");
    create(&store, 1, 1, "a").await;
    clock.advance(200 * SECOND);
    let extended = store.extend_worker_subscription(&app(1), &id(1), None).await.expect("extended");
    assert_eq!(extended.expires_at, START.after(500 * SECOND));
    let extended = store.extend_worker_subscription(&app(1), &id(1), Some(10 * SECOND)).await;
    assert_eq!(extended.expect("shortened").expires_at, START.after(210 * SECOND));
    let foreign = store.extend_worker_subscription(&app(2), &id(1), None).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)));
    assert_eq!(work(&store, all()).await.len(), 1);
    clock.advance(10 * SECOND);
    assert!(work(&store, all()).await.is_empty());
    assert!(matches!(store.worker_subscription(&app(1), &id(1)).await, Err(StoreError::NotFound)));
    let again = store.extend_worker_subscription(&app(1), &id(1), None).await;
    assert!(matches!(again, Err(StoreError::NotFound)), "one that has ended does not come back");
    assert_eq!(number(&home.raw().await, "select count(*) from worker_subscription").await, 1);
    store.forget_tasks(100).await.expect("forgotten");
    assert_eq!(number(&home.raw().await, "select count(*) from worker_subscription").await, 0);
}

async fn an_app_has_so_many_and_another_one_cannot_touch_them(home: Home) {
    let (store, clock) = open(&home).await;
    for number in 1..=u128::from(WORKER_SUBSCRIPTIONS_MAX) {
        assert!(store.create_worker_subscription(&listener(1, number, &["a"])).await.expect("made"));
    }
    assert!(!store.create_worker_subscription(&listener(1, 500, &["a"])).await.expect("read"));
    assert!(store.create_worker_subscription(&listener(2, 501, &["a"])).await.expect("made"));
    let foreign = store.remove_worker_subscription(&app(2), &id(1)).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)));
    store.remove_worker_subscription(&app(1), &id(1)).await.expect("removed");
    let page = store.worker_subscriptions(&app(1), Some(&id(3)), 2).await.expect("read");
    assert_eq!(page.iter().map(|one| one.id.clone()).collect::<Vec<_>>(), [id(4), id(5)]);
    assert!(store.create_worker_subscription(&listener(1, 502, &["a"])).await.expect("made"));
    clock.advance(400 * SECOND);
    let later = WorkerSubscription { expires_at: clock.now().after(SECOND), ..listener(1, 503, &["a"]) };
    assert!(
        store.create_worker_subscription(&later).await.expect("made"),
        "those that have ended do not count"
    );
}

on_both! {
    work_is_for_those_who_listen_to_it_in_its_app
    work_that_a_rate_holds_back_is_told_with_the_moment_of_the_next_claim
    one_that_has_ended_is_not_there_and_its_row_goes
    an_app_has_so_many_and_another_one_cannot_touch_them
}
