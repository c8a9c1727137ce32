//! Callbacks of tasks as rows: each end makes one entry, addressed to the callback of its address.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tidings_actors::{
    model::task::{ClaimProof, ClaimToken, TaskMove},
    ports::{
        AppStore, CALLBACKS_MAX, ClaimRequest, ClaimStore, Clock, CreateRefusal, LedgerFilter, Ledgers,
        NewTask, QueueSettings, Reach, SUBSCRIPTIONS_MAX, SubscriberStore, Subscription, SubscriptionPatch,
        Subscriptions, TaskStore, TaskWord, UpkeepStore, WordRefusal,
    },
    testing::ManualClock,
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, SubscriptionId, TaskId},
    kind::{EntryType, TaskState},
};

use super::{
    home::{Home, on_both},
    new_app, number,
};
use crate::SqlStore;

const START: Timestamp = Timestamp(1_000_000);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const HERE: &str = "https://calls.example/here";

fn app() -> AppId {
    new_app(1).id
}

fn callback(address: &str) -> SubscriptionId {
    SubscriptionId::of_callback(&app(), address)
}

fn new(number: u64, address: Option<&str>) -> NewTask {
    NewTask { callback: address.map(str::to_owned), ..super::tasks::new(number, "embed") }
}

async fn open(home: &Home) -> (SqlStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START));
    let store = home.open_timed(clock.clone()).await.expect("opened");
    store.create_app(&new_app(1)).await.expect("an app");
    let settings = QueueSettings { retry_base_ms: Some(0), ..QueueSettings::default() };
    store.set_queue(&app(), "embed", &settings, START).await.expect("set");
    (store, clock)
}

async fn create(store: &SqlStore, tasks: Vec<NewTask>) -> Result<(), CreateRefusal> {
    store.create_tasks(&app(), tasks).await.expect("written").map(drop)
}

async fn claim(store: &SqlStore, claim: Duration) -> ClaimToken {
    let commands = vec!["embed".to_owned()];
    let request = ClaimRequest { app: app(), commands, count: 1, claim, worker: "tok_w".into() };
    let claims = store.claim_tasks(vec![request]).await.expect("written");
    claims[0].tasks.first().expect("a task").token.clone()
}

async fn say(store: &SqlStore, token: &ClaimToken, step: TaskMove, body: Option<String>) {
    let proof = Some(ClaimProof::Hash(token.hash()));
    let word = TaskWord { id: token.task.clone(), app: app(), proof, step, body, then: Vec::new() };
    store.move_tasks(vec![word]).await.expect("written").pop().expect("an answer").expect("moved");
}

fn told(number: u64, step: TaskMove) -> TaskWord {
    let id = new(number, None).id;
    TaskWord { id, app: app(), proof: None, step, body: None, then: Vec::new() }
}

async fn shown(store: &SqlStore) -> Vec<Subscription> {
    store.subscriptions(&app(), None, None, 1_000).await.expect("read")
}

/// The entries about ends, of all tasks or of those with this address: the number of the task, and the data.
async fn ends(store: &SqlStore, address: Option<&str>) -> Vec<(u64, Value)> {
    let types = vec![EntryType::TaskEnded];
    let filter = LedgerFilter { types, recipient: address.map(callback), ..LedgerFilter::default() };
    let entries = store.entries_between(&app(), &filter, 0, i64::MAX, 1_000).await.expect("read").found;
    let of = |subject: &str| subject.parse::<TaskId>().expect("a task").ulid().timestamp_ms();
    let data = |data: &str| serde_json::from_str(data).expect("an object");
    entries.iter().map(|entry| (of(&entry.subject), data(&entry.data))).collect()
}

async fn each_end_makes_one_entry_and_no_other_move_makes_one(home: Home) {
    let (store, clock) = open(&home).await;
    let all = (1..=6).map(|task| NewTask { max_attempts: Some(1), ..new(task, Some(HERE)) }).collect();
    create(&store, all).await.expect("created");
    // 1 succeeds, and says so twice.
    let token = claim(&store, 60 * SECOND).await;
    say(&store, &token, TaskMove::Complete, Some("{\"a\" : 1}".into())).await;
    say(&store, &token, TaskMove::Complete, Some("{\"a\" : 1}".into())).await;
    // 2 fails, 3 is dead by the word of its worker, 4 by the clock.
    let token = claim(&store, 60 * SECOND).await;
    say(&store, &token, TaskMove::Fail("no".into()), None).await;
    let token = claim(&store, 60 * SECOND).await;
    say(&store, &token, TaskMove::Nack { delay: None, reason: Some("later".into()) }, None).await;
    claim(&store, SECOND).await;
    clock.advance(2 * SECOND);
    store.wake_tasks().await.expect("woken");
    // 5 is cancelled; 6 is abandoned, and removed with the open tasks of its queue.
    store.move_tasks(vec![told(5, TaskMove::Cancel)]).await.expect("written");
    let token = claim(&store, 60 * SECOND).await;
    say(&store, &token, TaskMove::Abandon(Duration::ZERO), None).await;
    assert_eq!(store.purge_queue(&app(), "embed", 100).await.expect("purged"), 1);
    let found = ends(&store, Some(HERE)).await;
    let states: Vec<(u64, &str)> =
        found.iter().map(|(task, data)| (*task, data["state"].as_str().expect("a state"))).collect();
    let all = [(1, "succeeded"), (2, "failed"), (3, "dead"), (4, "dead"), (5, "cancelled"), (6, "cancelled")];
    assert_eq!(states, all);
    let data = |index: usize| &found[index].1;
    assert_eq!(data(0)["result"], json!({ "a": 1 }));
    assert_eq!((&data(0)["result_bytes"], &data(0)["command"]), (&json!(9), &json!("embed")));
    assert_eq!(data(0)["result_url"], format!("/api/tasks/{}/result", new(1, None).id));
    assert_eq!((&data(1)["error"], &data(1)["attempts"]), (&json!("no"), &json!(1)));
    assert_eq!(data(2)["error"], "later");
    assert_eq!(data(5)["error"], "the queue was purged");
    assert!(data(1).get("result_url").is_none(), "{}", data(1));
    // A task that is sent again ends again.
    store.move_tasks(vec![told(2, TaskMove::Redrive)]).await.expect("written");
    assert_eq!(ends(&store, None).await.len(), 6, "a redrive is no end");
    let token = claim(&store, 60 * SECOND).await;
    say(&store, &token, TaskMove::Complete, None).await;
    let found = ends(&store, None).await;
    assert_eq!((found.len(), found[6].0, &found[6].1["state"]), (7, 2, &json!("succeeded")));
}

async fn a_result_that_is_nested_deeply_keeps_its_entry_readable(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, Some(HERE)), new(2, Some(HERE))]).await.expect("created");
    // A reader of JSON takes 127 arrays within each other, and no more.
    for depth in [127, 60] {
        let token = claim(&store, 60 * SECOND).await;
        let result = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        say(&store, &token, TaskMove::Complete, Some(result)).await;
    }
    let found = ends(&store, Some(HERE)).await;
    let [(1, deep), (2, shallow)] = &found[..] else { panic!("two ends: {found:?}") };
    assert!(deep.get("result").is_none() && deep["result_url"].is_string(), "{deep}");
    assert_eq!(deep["result_bytes"], 254);
    assert!(shallow["result"].is_array(), "{shallow}");
}

async fn an_end_and_its_redrive_in_one_turn_are_an_end(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, Some(HERE))]).await.expect("created");
    store.move_tasks(vec![told(1, TaskMove::Cancel), told(1, TaskMove::Redrive)]).await.expect("written");
    assert_eq!(store.task(&app(), &new(1, None).id).await.expect("there").state, TaskState::Ready);
    assert_eq!(ends(&store, Some(HERE)).await.len(), 1);
}

async fn a_task_without_an_address_makes_neither_entry_nor_callback(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, None)]).await.expect("created");
    let token = claim(&store, 60 * SECOND).await;
    say(&store, &token, TaskMove::Complete, Some("1".into())).await;
    assert!(ends(&store, None).await.is_empty());
    assert!(shown(&store).await.is_empty());
}

async fn an_entry_is_for_the_callback_of_its_address_alone(home: Home) {
    const THERE: &str = "https://calls.example/there";
    let (store, clock) = open(&home).await;
    create(&store, vec![new(1, Some(HERE)), new(2, Some(THERE)), new(3, Some(HERE))]).await.expect("created");
    let found = shown(&store).await;
    let addresses: Vec<Option<&str>> = found.iter().map(|one| one.callback.as_deref()).collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    assert!(addresses.contains(&Some(HERE)) && addresses.contains(&Some(THERE)));
    assert_eq!(found[0].sink.address.base_url(), found[0].callback.as_deref());
    for task in [1, 3] {
        store.move_tasks(vec![told(task, TaskMove::Cancel)]).await.expect("written");
    }
    let behind = store.subscriptions_behind(&Reach::All, clock.now()).await.expect("read");
    assert_eq!(behind, [(callback(HERE), app())], "the other has nothing to read");
    let work = store.subscription_work(&callback(HERE), clock.now(), 10).await.expect("read").expect("there");
    let numbers: Vec<i64> = work.entries.iter().map(|entry| entry.id.number).collect();
    assert_eq!(numbers, [1, 2]);
    let work =
        store.subscription_work(&callback(THERE), clock.now(), 10).await.expect("read").expect("there");
    assert!(work.entries.is_empty());
    // One that nothing waits for goes on to the end of the ledger, the other one does not.
    store.forget_tasks(100).await.expect("forgotten");
    let positions: BTreeMap<SubscriptionId, i64> =
        shown(&store).await.into_iter().map(|one| (one.id, one.position)).collect();
    assert_eq!((positions[&callback(HERE)], positions[&callback(THERE)]), (0, 2));
    store.tamper("update subscription set position = 0").await;
    // What is pruned is no gap for one that none of it was for.
    store.move_tasks(vec![told(2, TaskMove::Cancel)]).await.expect("written");
    clock.advance(DAY);
    store.prune_ledgers(clock.now(), DAY, 1, 100).await.expect("pruned");
    let work =
        store.subscription_work(&callback(THERE), clock.now(), 10).await.expect("read").expect("there");
    let first = work.ends.expect("a ledger").first;
    assert_eq!((work.subscription.position, first, work.entries.len()), (2, 3, 1));
    let work = store.subscription_work(&callback(HERE), clock.now(), 10).await.expect("read").expect("there");
    assert_eq!(work.subscription.position, 0, "its two entries are gone, which it is told");
}

async fn an_app_has_so_many_addresses_and_all_its_subscriptions_beside_them(home: Home) {
    let (store, _clock) = open(&home).await;
    let address = |number: u64| format!("https://calls.example/{number}");
    let tasks = |range: std::ops::Range<u64>| range.map(|task| new(task, Some(&address(task)))).collect();
    create(&store, tasks(1..CALLBACKS_MAX)).await.expect("created");
    assert_eq!(create(&store, tasks(1_000..1_002)).await, Err(CreateRefusal::Callbacks));
    assert!(store.task(&app(), &new(1_000, None).id).await.is_err(), "nothing is half done");
    create(&store, tasks(2_000..2_001)).await.expect("the last one");
    create(&store, vec![new(3_000, Some(&address(1)))]).await.expect("an address that is known");
    assert_eq!(create(&store, vec![new(3_001, Some(HERE))]).await, Err(CreateRefusal::Callbacks));
    assert_eq!(shown(&store).await.len() as u64, CALLBACKS_MAX);
    assert_eq!(number(&home.raw().await, "select count(*) from sink").await, 100);
    const { assert!(SUBSCRIPTIONS_MAX == 100) };
}

async fn a_redrive_needs_room_for_the_address_of_its_task(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, Some(HERE))]).await.expect("created");
    store.move_tasks(vec![told(1, TaskMove::Cancel)]).await.expect("written");
    store.remove_subscription(&app(), &callback(HERE)).await.expect("removed");
    let address = |number: u64| format!("https://calls.example/{number}");
    let others = (100..100 + CALLBACKS_MAX).map(|task| new(task, Some(&address(task)))).collect();
    create(&store, others).await.expect("created");
    let redrive =
        async || store.move_tasks(vec![told(1, TaskMove::Redrive)]).await.expect("written").remove(0);
    let full = Err(WordRefusal::Redrive(CreateRefusal::Callbacks));
    assert_eq!(redrive().await, full, "the app has as many addresses as it may have");
    store.remove_subscription(&app(), &callback(&address(100))).await.expect("removed");
    redrive().await.expect("sent again");
    assert!(shown(&store).await.iter().any(|one| one.id == callback(HERE)), "its callback is there again");
}

async fn a_callback_that_went_is_there_again_when_a_task_ends(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, Some(HERE)), new(2, Some(HERE))]).await.expect("created");
    store.move_tasks(vec![told(1, TaskMove::Cancel)]).await.expect("written");
    store.remove_subscription(&app(), &callback(HERE)).await.expect("removed");
    store.move_tasks(vec![told(2, TaskMove::Cancel)]).await.expect("written");
    let found = shown(&store).await;
    assert_eq!((found.len(), found[0].position), (1, 1), "it begins behind what it was removed with");
}

async fn a_callback_without_tasks_and_entries_goes_after_a_day(home: Home) {
    let (store, clock) = open(&home).await;
    create(&store, vec![new(1, Some(HERE))]).await.expect("created");
    clock.advance(2 * DAY);
    store.forget_tasks(100).await.expect("forgotten");
    assert_eq!(shown(&store).await.len(), 1, "a task is open");
    store.move_tasks(vec![told(1, TaskMove::Cancel)]).await.expect("written");
    clock.advance(2 * DAY);
    store.forget_tasks(100).await.expect("forgotten");
    assert_eq!(shown(&store).await.len(), 1, "an entry was not sent");
    store.tamper("update subscription set position = 1").await;
    clock.set(START.after(2 * DAY + Duration::from_secs(3_600)));
    store.forget_tasks(100).await.expect("forgotten");
    assert_eq!(shown(&store).await.len(), 1, "its last entry is of today");
    clock.advance(2 * DAY);
    store.tamper("update subscription set state = 'paused'").await;
    store.forget_tasks(100).await.expect("forgotten");
    assert_eq!(shown(&store).await.len(), 1, "a person paused it");
    store.tamper("update subscription set state = 'active'").await;
    store.forget_tasks(100).await.expect("forgotten");
    assert!(shown(&store).await.is_empty());
    assert_eq!(number(&home.raw().await, "select count(*) from sink").await, 0);
}

async fn a_person_pauses_a_callback_and_changes_nothing_else(home: Home) {
    let (store, clock) = open(&home).await;
    create(&store, vec![new(1, Some(HERE))]).await.expect("created");
    let change = async |patch: SubscriptionPatch| {
        store.change_subscription(&app(), &callback(HERE), &patch, clock.now()).await
    };
    let refused = change(SubscriptionPatch { filter: Some((String::new(), true)), ..Default::default() });
    assert!(refused.await.expect_err("refused").to_string().contains("callback of tasks"));
    change(SubscriptionPatch { is_paused: Some(true), ..Default::default() }).await.expect("paused");
    store.move_tasks(vec![told(1, TaskMove::Cancel)]).await.expect("written");
    assert!(store.subscriptions_behind(&Reach::All, clock.now()).await.expect("read").is_empty());
    change(SubscriptionPatch { is_paused: Some(false), ..Default::default() }).await.expect("resumed");
    assert_eq!(store.subscriptions_behind(&Reach::All, clock.now()).await.expect("read").len(), 1);
}

async fn replicas_that_need_a_callback_at_once_make_one(home: Home) {
    let (one, clock) = open(&home).await;
    let is_file = home.url().starts_with("sqlite");
    let two = if is_file { one.clone() } else { home.open_timed(clock).await.expect("opened") };
    for round in 0..20_u64 {
        let (here, there) = (format!("https://a.example/{round}"), format!("https://b.example/{round}"));
        let tasks =
            |first: u64, one: &str, other: &str| vec![new(first, Some(one)), new(first + 1, Some(other))];
        let (first, second) = tokio::join!(
            create(&one, tasks(round * 10 + 1, &here, &there)),
            create(&two, tasks(round * 10 + 3, &there, &here))
        );
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    }
    assert_eq!(shown(&one).await.len(), 40);
    assert_eq!(number(&home.raw().await, "select count(*) from sink").await, 40);
}

async fn a_restore_tells_the_ends_that_it_makes(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, Some(HERE)), new(2, Some(HERE))]).await.expect("created");
    claim(&store, 60 * SECOND).await;
    claim(&store, 60 * SECOND).await;
    store.move_tasks(vec![told(1, TaskMove::Cancel)]).await.expect("flagged");
    assert!(ends(&store, None).await.is_empty());
    let restored = store.writer.verb(|transaction, context| {
        Box::pin(async move {
            crate::tasks::of_restored(transaction, &*context.random, context.clock.now()).await
        })
    });
    restored.await.expect("restored");
    let found = ends(&store, Some(HERE)).await;
    assert_eq!((found.len(), found[0].0, &found[0].1["state"]), (1, 1, &json!("cancelled")));
}

on_both! {
    each_end_makes_one_entry_and_no_other_move_makes_one
    a_result_that_is_nested_deeply_keeps_its_entry_readable
    an_end_and_its_redrive_in_one_turn_are_an_end
    a_task_without_an_address_makes_neither_entry_nor_callback
    an_entry_is_for_the_callback_of_its_address_alone
    an_app_has_so_many_addresses_and_all_its_subscriptions_beside_them
    a_redrive_needs_room_for_the_address_of_its_task
    a_callback_that_went_is_there_again_when_a_task_ends
    a_callback_without_tasks_and_entries_goes_after_a_day
    a_person_pauses_a_callback_and_changes_nothing_else
    replicas_that_need_a_callback_at_once_make_one
    a_restore_tells_the_ends_that_it_makes
}
