//! Tasks as rows: every verb in random order against a naive model, and what a promise is about.

mod model;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tidings_actors::{
    model::task::{ClaimProof, ClaimToken, MoveRefusal, Moved, TaskMove},
    ports::{
        AppStore, Claim, ClaimRequest, ClaimStore, Clock, CreateRefusal, CreatedTask, Creation, NewTask,
        Origin, QueueSettings, TaskFilter, TaskRequestKey, TaskStore, TaskTally, TaskWord, UpkeepStore,
        WordRefusal, Worded,
    },
    testing::{ManualClock, MemoryMeter},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, TaskId},
    kind::{OriginKind, TaskState},
};
use ulid::Ulid;

use self::model::every_verb_in_any_order_does_what_a_naive_queue_does;
use super::{
    home::{Home, on_both},
    new_app, number,
};
use crate::SqlStore;

const START: Timestamp = Timestamp(1_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn app() -> AppId {
    new_app(1).id
}

fn new(number: u64, command: &str) -> NewTask {
    NewTask {
        id: TaskId::new(Ulid::from_parts(number, u128::from(number))),
        command: command.into(),
        payload: format!("{{ \"number\" :{number}}}"),
        priority: 0,
        max_attempts: None,
        run_at: None,
        delay: None,
        key: None,
        origin: Origin { kind: OriginKind::Person, name: "tok_x".into() },
        callback: None,
    }
}

fn asks(commands: &[&str], count: usize) -> ClaimRequest {
    ClaimRequest {
        app: app(),
        commands: commands.iter().map(|command| (*command).to_owned()).collect(),
        count,
        claim: 60 * SECOND,
        worker: "tok_worker".into(),
    }
}

fn word(token: &ClaimToken, step: TaskMove) -> TaskWord {
    let proof = Some(ClaimProof::Hash(token.hash()));
    TaskWord { id: token.task.clone(), app: app(), proof, step, body: None, then: Vec::new() }
}

fn told(id: &TaskId, step: TaskMove) -> TaskWord {
    TaskWord { id: id.clone(), app: app(), proof: None, step, body: None, then: Vec::new() }
}

async fn open(home: &Home) -> (SqlStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START));
    let store = home.open_timed(clock.clone()).await.expect("opened");
    store.create_app(&new_app(1)).await.expect("an app");
    (store, clock)
}

async fn create(store: &SqlStore, tasks: Vec<NewTask>) -> Creation {
    store.create_tasks(&app(), tasks).await.expect("written")
}

async fn claim(store: &SqlStore, request: ClaimRequest) -> Claim {
    store.claim_tasks(vec![request]).await.expect("written").pop().expect("a claim")
}

async fn say(store: &SqlStore, word: TaskWord) -> Result<Worded, WordRefusal> {
    store.move_tasks(vec![word]).await.expect("written").pop().expect("an answer")
}

fn lost() -> Result<Worded, WordRefusal> {
    Err(WordRefusal::Move(MoveRefusal::ClaimLost))
}

async fn a_task_goes_from_its_producer_to_its_result(home: Home) {
    let (store, _clock) = open(&home).await;
    let created = create(&store, vec![new(1, "embed")]).await.expect("created");
    let id = new(1, "embed").id;
    assert_eq!(created, [CreatedTask { id: id.clone(), is_new: true }]);
    let claimed = claim(&store, asks(&["embed"], 5)).await;
    let [task] = &store.payloads(claimed.tasks).await.expect("read")[..] else { panic!("one task") };
    assert_eq!(task.payload, "{ \"number\" :1}", "byte for byte");
    assert_eq!((task.task.attempts, task.task.wake_at), (1, Some(START.after(60 * SECOND))));
    let done = TaskWord { body: Some("[ 1,2 ]".into()), ..word(&task.token, TaskMove::Complete) };
    assert_eq!(say(&store, done.clone()).await.expect("completed").moved, Moved::Now);
    assert_eq!(say(&store, done).await.expect("said again").moved, Moved::Before);
    assert_eq!(store.task_bodies(&app(), &id).await.expect("read").result.as_deref(), Some("[ 1,2 ]"));
    assert!(store.task(&new_app(2).id, &id).await.is_err(), "another app sees none of it");
    let queue = store.queue(&app(), "embed").await.expect("a queue");
    assert!(queue.counts.contains(&(TaskState::Succeeded, 1)) && queue.bytes == 0);
}

async fn a_key_names_one_task_and_one_request(home: Home) {
    let (store, _clock) = open(&home).await;
    let keyed = |number: u64, request: &str| {
        let key = TaskRequestKey { key_hash: "k".into(), request_hash: request.into() };
        NewTask { key: Some(key), ..new(number, "embed") }
    };
    let all = join_all((1..=200).map(|number| create(&store, vec![keyed(number, "same")]))).await;
    let ids: std::collections::BTreeSet<TaskId> =
        all.iter().map(|created| created.as_ref().expect("there")[0].id.clone()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(all.iter().filter(|created| created.as_ref().expect("there")[0].is_new).count(), 1);
    let other = create(&store, vec![new(500, "embed"), keyed(501, "other")]).await;
    assert_eq!(other, Err(CreateRefusal::KeyReused(1)));
    assert!(store.task(&app(), &new(500, "embed").id).await.is_err(), "nothing is half done");
    let elsewhere = create(&store, vec![NewTask { command: "other".into(), ..keyed(502, "other") }]).await;
    assert!(elsewhere.expect("created")[0].is_new, "a key is unique in its queue");
}

async fn what_follows_up_is_there_with_the_end_or_the_task_does_not_end(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, "first")]).await.expect("created");
    let token = claim(&store, asks(&["first"], 1)).await.tasks[0].token.clone();
    let large = NewTask { payload: "1".repeat(300 << 10), ..new(3, "second") };
    let mut done = TaskWord { then: vec![new(2, "second"), large], ..word(&token, TaskMove::Complete) };
    let refused = say(&store, done.clone()).await;
    assert!(matches!(refused, Err(WordRefusal::Then(CreateRefusal::PayloadTooLarge(1, _)))), "{refused:?}");
    assert!(store.queue(&app(), "second").await.is_err(), "nothing is half done");
    done.then.pop();
    let ended = say(&store, done).await.expect("completed");
    assert_eq!((ended.moved, ended.then.len()), (Moved::Now, 1));
    let follow = store.task(&app(), &new(2, "second").id).await.expect("there");
    assert_eq!(follow.parent, Some(token.task));
}

async fn bounds_of_an_app_refuse_all_of_a_request(home: Home) {
    let (store, _clock) = open(&home).await;
    for part in 0..10 {
        let commands: Vec<NewTask> = (0..100)
            .map(|number| new(part * 100 + number + 1, &format!("c{}", part * 100 + number)))
            .collect();
        create(&store, commands).await.expect("created");
    }
    let refused = create(&store, vec![new(5_000, "c1"), new(5_001, "one-too-many")]).await;
    assert_eq!(refused, Err(CreateRefusal::Queues));
    assert!(store.task(&app(), &new(5_000, "c1").id).await.is_err(), "nothing is half done");
    store.tamper("update queue set ready = 999001 where command = 'c1'").await;
    assert_eq!(create(&store, vec![new(6_000, "c1"), new(6_001, "c1")]).await, Err(CreateRefusal::OpenTasks));
    store.tamper("update queue set ready = 1, bytes = 1073741824 where command = 'c1'").await;
    assert_eq!(create(&store, vec![new(6_000, "c2")]).await, Err(CreateRefusal::OpenBytes));
}

async fn priorities_go_first_over_all_commands_and_then_the_older(home: Home) {
    let (store, _clock) = open(&home).await;
    for (number, command, priority) in [(5, "a", 0), (3, "b", 9), (4, "a", 9), (1, "b", 4), (2, "a", 0)] {
        create(&store, vec![NewTask { priority, ..new(number, command) }]).await.expect("created");
    }
    let claimed = claim(&store, asks(&["a", "b"], 9)).await;
    let order: Vec<u64> = claimed.tasks.iter().map(|task| task.task.id.ulid().timestamp_ms()).collect();
    assert_eq!(order, [3, 4, 1, 5, 2]);
}

async fn a_rate_and_a_bound_hold_over_many_claims(home: Home) {
    let (store, clock) = open(&home).await;
    let settings = QueueSettings { max_claimed: Some(3), ..QueueSettings::default() };
    store.set_queue(&app(), "few", &settings, START).await.expect("set");
    let rated = QueueSettings { rate: Some(50), ..QueueSettings::default() };
    store.set_queue(&app(), "slow", &rated, START).await.expect("set");
    let many = |command: &'static str, from: u64| (from..from + 100).map(move |n| new(n, command)).collect();
    create(&store, many("few", 1)).await.expect("created");
    create(&store, many("slow", 1_000)).await.expect("created");
    let tokens = claim(&store, asks(&["few"], 100)).await.tasks;
    assert_eq!(tokens.len(), 3);
    assert!(claim(&store, asks(&["few"], 100)).await.tasks.is_empty());
    say(&store, word(&tokens[0].token, TaskMove::Complete)).await.expect("completed");
    assert_eq!(claim(&store, asks(&["few"], 100)).await.tasks.len(), 1);
    let mut claims = Vec::new();
    while claims.len() < 60 {
        let claim = claim(&store, asks(&["slow"], 100)).await;
        claims.extend(claim.tasks.iter().map(|task| task.task.claimed_at.expect("claimed").0));
        match claim.again_at {
            Some(at) => clock.set(at),
            None => clock.advance(Duration::from_millis(1)),
        }
    }
    for (index, first) in claims.iter().enumerate() {
        let second = claims[index..].iter().take_while(|at| **at < first + 1_000).count();
        assert!(second <= 50, "{second} in a second");
    }
}

async fn a_restored_database_knows_no_claims(home: Home) {
    let (store, clock) = open(&home).await;
    create(&store, vec![new(1, "a"), new(2, "a")]).await.expect("created");
    let claimed = claim(&store, asks(&["a"], 2)).await.tasks;
    let flagged = say(&store, told(&claimed[1].token.task, TaskMove::Cancel)).await.expect("flagged");
    assert_eq!(flagged.moved, Moved::Flagged);
    let restored = store.writer.verb(|transaction, context| {
        Box::pin(async move {
            crate::tasks::of_restored(transaction, &*context.random, context.clock.now()).await
        })
    });
    restored.await.expect("restored");
    for task in &claimed {
        assert_eq!(say(&store, word(&task.token, TaskMove::Complete)).await, lost());
    }
    clock.advance(SECOND);
    let again = claim(&store, asks(&["a"], 2)).await.tasks;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].task.attempts, 1, "the void claim is no attempt");
    let queue = store.queue(&app(), "a").await.expect("a queue");
    assert!(queue.counts.contains(&(TaskState::Cancelled, 1)), "{:?}", queue.counts);
}

async fn replicas_that_make_a_queue_at_once_count_all_of_its_tasks(home: Home) {
    let (one, clock) = open(&home).await;
    // A file has one process.
    let is_file = home.url().starts_with("sqlite");
    let two = if is_file { one.clone() } else { home.open_timed(clock).await.expect("opened") };
    for round in 0..50 {
        let command = format!("queue-{round}");
        let task = |number: u64| vec![new(2 * round + number, &command)];
        let (first, second) = tokio::join!(create(&one, task(1)), create(&two, task(2)));
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
        let queue = one.queue(&app(), &command).await.expect("a queue");
        assert!(queue.counts.contains(&(TaskState::Ready, 2)), "{round}: {:?}", queue.counts);
    }
}

async fn a_large_turn_waits_and_loses_nothing(home: Home) {
    let (store, _clock) = open(&home).await;
    let large =
        |number: u64| NewTask { payload: format!("\"{}\"", "x".repeat(200 << 10)), ..new(number, "a") };
    let all = join_all((1..=60).map(|number| create(&store, vec![large(number)]))).await;
    assert!(all.iter().all(Result::is_ok));
    let listed = store.list_tasks(&app(), &TaskFilter::default(), None, 100).await.expect("listed");
    assert_eq!(listed.len(), 60);
}

async fn each_task_is_measured_once(home: Home) {
    let (store, clock) = open(&home).await;
    let meter = Arc::new(MemoryMeter::default());
    let store = store.with_meter(meter.clone());
    create(&store, vec![NewTask { max_attempts: Some(1), ..new(1, "a") }, new(2, "a")])
        .await
        .expect("created");
    let refused = create(&store, vec![NewTask { payload: "1".repeat(300 << 10), ..new(3, "a") }]).await;
    refused.expect_err("too large");
    let looked = store.backlog(clock.now()).await.expect("looked");
    assert_eq!(looked.tasks, BTreeMap::from([(TaskState::Ready, 2)]));
    assert_eq!(looked.task_ready_since, Some(clock.now()), "the first in line");
    clock.advance(3 * SECOND);
    let tokens = claim(&store, asks(&["a"], 9)).await.tasks;
    clock.advance(SECOND);
    let nack = TaskMove::Nack { delay: Some(5 * SECOND), reason: None };
    say(&store, word(&tokens[1].token, nack)).await.expect("given back");
    clock.advance(60 * SECOND);
    store.wake_tasks().await.expect("woken");
    clock.advance(2 * SECOND);
    let token = claim(&store, asks(&["a"], 9)).await.tasks.remove(0).token;
    say(&store, word(&token, TaskMove::Complete)).await.expect("completed");
    say(&store, word(&token, TaskMove::Complete)).await.expect("said again");
    let tally = TaskTally {
        created: 2,
        // The second task was ready again when the clock was looked at.
        queued: vec![3 * SECOND, 3 * SECOND, 2 * SECOND],
        ended: vec![(TaskState::Dead, 64 * SECOND), (TaskState::Succeeded, 66 * SECOND)],
        run_out: 1,
    };
    assert_eq!(meter.measured().tasks, tally);
    let looked = store.backlog(clock.now()).await.expect("looked");
    assert_eq!(looked.tasks, BTreeMap::from([(TaskState::Dead, 1), (TaskState::Succeeded, 1)]));
    assert_eq!(looked.task_ready_since, None, "nothing waits");
}

/// The claims of a task in words: when each began and ended, how, and why.
async fn claims_of(store: &SqlStore, id: &TaskId) -> Vec<String> {
    let task = store.task(&app(), id).await.expect("a task");
    let claims = store.task_claims(&task).await.expect("read").into_iter().map(|claim| {
        let from = claim.claimed_at.since(START).as_secs();
        let ended = claim.ended.map(|(at, end)| format!("{} {}", at.since(START).as_secs(), end.as_str()));
        format!("{from} {} {}", ended.as_deref().unwrap_or("-"), claim.reason.as_deref().unwrap_or("-"))
    });
    claims.collect()
}

async fn the_claims_of_a_task_are_kept_with_their_ends(home: Home) {
    let (store, clock) = open(&home).await;
    create(&store, vec![NewTask { max_attempts: Some(100), ..new(1, "a") }]).await.expect("created");
    let id = new(1, "a").id;
    assert!(claims_of(&store, &id).await.is_empty());
    let steps = [
        TaskMove::Nack { delay: Some(Duration::ZERO), reason: Some("busy".into()) },
        TaskMove::Abandon(Duration::ZERO),
    ];
    for step in steps {
        let token = claim(&store, asks(&["a"], 1)).await.tasks.remove(0).token;
        clock.advance(SECOND);
        say(&store, word(&token, step)).await.expect("moved");
    }
    let token = claim(&store, asks(&["a"], 1)).await.tasks.remove(0).token;
    assert_eq!(claims_of(&store, &id).await, ["0 1 nacked busy", "1 2 abandoned -", "2 - -"]);
    say(&store, word(&token, TaskMove::Heartbeat(60 * SECOND))).await.expect("extended");
    clock.advance(61 * SECOND);
    assert_eq!(store.wake_tasks().await.expect("woken").expired, 1);
    let token = claim(&store, asks(&["a"], 1)).await.tasks.remove(0).token;
    clock.advance(SECOND);
    say(&store, word(&token, TaskMove::Fail("no such page".into()))).await.expect("failed");
    let failed = ["0 1 nacked busy", "1 2 abandoned -", "2 63 expired -", "63 64 failed no such page"];
    assert_eq!(claims_of(&store, &id).await, failed);
    let raw = home.raw().await;
    let count = "select count(*) from task_claim";
    assert_eq!(number(&raw, count).await, 3, "the last claim stands in the row of the task");
    say(&store, told(&id, TaskMove::Redrive)).await.expect("sent again");
    assert_eq!(claims_of(&store, &id).await, failed, "also after it is sent again");
    for _ in 0..30 {
        let token = claim(&store, asks(&["a"], 1)).await.tasks.remove(0).token;
        clock.advance(SECOND);
        let step = TaskMove::Nack { delay: Some(Duration::ZERO), reason: None };
        say(&store, word(&token, step)).await.expect("moved");
    }
    let token = claim(&store, asks(&["a"], 1)).await.tasks.remove(0).token;
    clock.advance(SECOND);
    say(&store, word(&token, TaskMove::Complete)).await.expect("completed");
    let claims = claims_of(&store, &id).await;
    assert_eq!((claims.len(), claims[0].as_str()), (21, "74 75 nacked -"), "{claims:?}");
    assert_eq!(claims[20], "94 95 completed -");
    assert_eq!(number(&raw, count).await, 20);
}

async fn no_replica_takes_a_task_before_the_end_that_its_worker_was_told(home: Home) {
    let (store, clock) = open(&home).await;
    let ahead = Arc::new(ManualClock::new(START.after(Duration::from_millis(100))));
    let other = home.open_timed(ahead.clone()).await.expect("another replica, whose clock is ahead");
    create(&store, vec![new(1, "a"), new(2, "a")]).await.expect("created");
    let [first, second] = &claim(&store, asks(&["a"], 2)).await.tasks[..] else { panic!("two tasks") };
    let until = first.task.wake_at.expect("an end");
    for clock in [&clock, &ahead] {
        clock.advance(60 * SECOND - Duration::from_millis(1));
    }
    assert!(ahead.now() > until && clock.now() < until);
    let woken = other.wake_tasks().await.expect("woken");
    assert_eq!(woken.expired, 0, "by the clock that told the end it is still to come");
    let next = woken.next.expect("another look");
    assert!(next > ahead.now(), "and the other replica does not look all the time");
    assert_eq!(
        say(&store, word(&first.token, TaskMove::Complete)).await.expect("completed").moved,
        Moved::Now
    );
    ahead.set(next);
    assert_eq!(other.wake_tasks().await.expect("woken").expired, 1);
    assert_eq!(say(&store, word(&second.token, TaskMove::Complete)).await, lost());
}

#[tokio::test]
async fn replicas_wait_for_each_others_clocks() {
    // One process has one clock: only replicas of a server differ.
    if let Some(home) = Home::server().await {
        no_replica_takes_a_task_before_the_end_that_its_worker_was_told(home).await;
    }
}

async fn an_erased_app_leaves_no_task(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, "a"), new(2, "b")]).await.expect("created");
    let token = claim(&store, asks(&["a"], 1)).await.tasks.remove(0).token;
    say(&store, word(&token, TaskMove::Abandon(Duration::ZERO))).await.expect("given back");
    store.erase_app(&app()).await.expect("erased");
    let raw = home.raw().await;
    for table in ["queue", "task", "task_body", "task_claim"] {
        assert_eq!(number(&raw, &format!("select count(*) from {table}")).await, 0, "{table}");
    }
}

on_both! {
    a_task_goes_from_its_producer_to_its_result
    a_key_names_one_task_and_one_request
    what_follows_up_is_there_with_the_end_or_the_task_does_not_end
    bounds_of_an_app_refuse_all_of_a_request
    priorities_go_first_over_all_commands_and_then_the_older
    a_rate_and_a_bound_hold_over_many_claims
    a_restored_database_knows_no_claims
    replicas_that_make_a_queue_at_once_count_all_of_its_tasks
    a_large_turn_waits_and_loses_nothing
    each_task_is_measured_once
    the_claims_of_a_task_are_kept_with_their_ends
    an_erased_app_leaves_no_task
    every_verb_in_any_order_does_what_a_naive_queue_does
}
