//! Tasks as rows: every verb in random order against a naive model, and what a promise is about.

mod bounds;
mod filtered;
mod model;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
use tidings_actors::{
    model::{
        filter::{Filter, sets::TASKS},
        queue_name::QueueName,
        task::{ClaimProof, ClaimToken, MoveRefusal, Moved, TaskMove},
    },
    ports::{
        AppStore, Claim, ClaimRequest, ClaimStore, Clock, CreateRefusal, CreatedTask, Creation, NewTask,
        Origin, QueueSettings, QueueTally, TaskFilter, TaskRequestKey, TaskStore, TaskTally, TaskWord,
        UpkeepStore, WordRefusal, Worded,
    },
    testing::{ManualClock, MemoryMeter},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, TaskId},
    kind::{OriginKind, TaskState},
};
use ulid::Ulid;

use self::{
    bounds::{
        a_claim_that_leaves_tasks_to_a_later_moment_of_the_rate_is_told,
        a_purge_of_dead_tasks_leaves_those_whose_key_holds,
        a_redrive_stops_at_the_bounds_of_its_app_and_goes_on_when_there_is_room,
        an_app_at_its_bound_ends_a_task_that_one_other_follows_up, bounds_of_an_app_refuse_all_of_a_request,
    },
    filtered::a_filter_over_tasks_means_what_a_naive_filter_means,
    model::every_verb_in_any_order_does_what_a_naive_queue_does,
};
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

/// A task that a producer makes.
pub(super) fn new(number: u64, command: &str) -> NewTask {
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
    let listed = store.list_tasks(&app(), &TaskFilter::default(), None, 100).await.expect("listed").found;
    assert_eq!(listed.len(), 60);
}

/// Two queues, the first with 9,001 tasks, the second one with 3,001 tasks that are newer.
async fn crowd(home: &Home, store: &SqlStore) {
    create(store, vec![new(1, "a"), new(2, "b")]).await.expect("created");
    let raw = home.raw().await;
    for (number, first, last) in [(1, 1_000_001, 1_009_000), (2, 1_009_001, 1_012_000)] {
        let text = format!(
            "insert into task (id, queue_id, app_id, state, rank, priority, attempts, abandons, max_attempts,
               origin_kind, origin, depth, bytes, created_at, updated_at)
             with recursive n(i) as (select {first} union all select i + 1 from n where i < {last})
             select 'tsk_7000000000000000000' || cast(n.i as text), t.queue_id, t.app_id, t.state, t.rank,
               t.priority, t.attempts, t.abandons, t.max_attempts, t.origin_kind, t.origin, t.depth, t.bytes,
               t.created_at, t.updated_at
             from n cross join task t where t.id = '{}'",
            new(number, "a").id
        );
        sea_orm::ConnectionTrait::execute_unprepared(&raw, &text).await.expect("written");
    }
}

async fn a_filtered_list_looks_at_a_bounded_number_of_tasks_and_leaves_none_out(home: Home) {
    let (store, _clock) = open(&home).await;
    crowd(&home, &store).await;
    for (q, all, pages) in [("error:~nothing", 0, 2), ("attempts:0", 12_002, 2)] {
        let query = Filter::parse(q, &TASKS, START).expect("a filter");
        let filter = TaskFilter { query: Some(query), ..TaskFilter::default() };
        let (mut seen, mut before, mut count) = (Vec::new(), None, 0);
        loop {
            let page = store.list_tasks(&app(), &filter, before.as_ref(), 20_000).await.expect("listed");
            assert!(page.found.len() <= 10_000, "{q}: {}", page.found.len());
            seen.extend(page.found.into_iter().map(|task| task.id));
            (before, count) = (page.next, count + 1);
            if before.is_none() {
                break;
            }
        }
        assert_eq!((seen.len(), count), (all, pages), "{q}");
        assert!(seen.is_sorted_by(|newer, older| newer > older), "{q}");
    }
}

async fn a_redrive_looks_at_a_bounded_number_of_tasks_and_leaves_none_out(home: Home) {
    let (store, _clock) = open(&home).await;
    crowd(&home, &store).await;
    let text = "update task set state = 'dead'";
    sea_orm::ConnectionTrait::execute_unprepared(&home.raw().await, text).await.expect("written");
    for (q, all, steps) in [("error:~nothing", 0, 2), ("attempts:0", 12_002, 13)] {
        let query = Filter::parse(q, &TASKS, START).expect("a filter");
        let filter = TaskFilter { query: Some(query), ..TaskFilter::default() };
        let (mut seen, mut after, mut count) = (Vec::new(), None, 0);
        loop {
            let step = store.redrivable(&app(), &filter, after.as_ref(), 1_000).await.expect("looked");
            seen.extend(step.found);
            (after, count) = (step.next, count + 1);
            if after.is_none() {
                break;
            }
        }
        assert_eq!((seen.len(), count), (all, steps), "{q}");
        assert!(seen.is_sorted_by(|older, newer| older < newer), "{q}");
    }
}

async fn a_task_that_was_claimed_for_a_caller_that_is_gone_goes_back_and_no_attempt_is_counted(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, "a")]).await.expect("created");
    let mut asked = Box::pin(store.claim_tasks(vec![asks(&["a"], 1)]));
    assert!(asked.as_mut().now_or_never().is_none(), "the writer is asked, and has not answered");
    drop(asked);
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.extend(claim(&store, asks(&["a"], 1)).await.tasks);
    }
    let [task] = &tasks[..] else { panic!("one task, once: {tasks:?}") };
    assert_eq!(task.task.attempts, 1);
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
    let tally = QueueTally {
        created: 2,
        // The second task was ready again when the clock was looked at.
        queued: vec![3 * SECOND, 3 * SECOND, 2 * SECOND],
        ended: vec![(TaskState::Dead, 64 * SECOND), (TaskState::Succeeded, 66 * SECOND)],
        run_out: 1,
        ..QueueTally::default()
    };
    let name = QueueName { app: app(), command: "a".into() };
    let told = TaskTally { queues: [(name.clone(), tally)].into(), of_watches: vec![] };
    assert_eq!(meter.measured().tasks, told);
    let other = QueueName { command: "none".into(), ..name.clone() };
    let depths = store.depths(&[name.clone(), other]).await.expect("read");
    assert_eq!(depths.len(), 1, "one of the queues is there");
    assert_eq!((depths[&name][&TaskState::Dead], depths[&name][&TaskState::Ready]), (1, 0));
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

async fn a_purge_ends_the_waits_for_the_results_of_its_tasks(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, (1..=3).map(|number| new(number, "a")).collect()).await.expect("created");
    assert_eq!(claim(&store, asks(&["a"], 1)).await.tasks.len(), 1);
    drop(store.task_news().await);
    assert_eq!(store.purge_queue(&app(), "a", 10).await.expect("purged"), 2);
    assert_eq!(store.task_news().await.ended, [new(2, "a").id, new(3, "a").id].into());
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
    a_task_that_was_claimed_for_a_caller_that_is_gone_goes_back_and_no_attempt_is_counted
    a_filtered_list_looks_at_a_bounded_number_of_tasks_and_leaves_none_out
    a_redrive_looks_at_a_bounded_number_of_tasks_and_leaves_none_out
    a_task_goes_from_its_producer_to_its_result
    a_key_names_one_task_and_one_request
    what_follows_up_is_there_with_the_end_or_the_task_does_not_end
    bounds_of_an_app_refuse_all_of_a_request
    an_app_at_its_bound_ends_a_task_that_one_other_follows_up
    a_redrive_stops_at_the_bounds_of_its_app_and_goes_on_when_there_is_room
    a_claim_that_leaves_tasks_to_a_later_moment_of_the_rate_is_told
    priorities_go_first_over_all_commands_and_then_the_older
    a_rate_and_a_bound_hold_over_many_claims
    a_restored_database_knows_no_claims
    replicas_that_make_a_queue_at_once_count_all_of_its_tasks
    a_large_turn_waits_and_loses_nothing
    each_task_is_measured_once
    the_claims_of_a_task_are_kept_with_their_ends
    a_purge_ends_the_waits_for_the_results_of_its_tasks
    a_purge_of_dead_tasks_leaves_those_whose_key_holds
    an_erased_app_leaves_no_task
    every_verb_in_any_order_does_what_a_naive_queue_does
    a_filter_over_tasks_means_what_a_naive_filter_means
}
