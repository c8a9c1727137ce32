//! Schedules as rows: each tick has its task once, over restarts, replicas and moved clocks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tidings_actors::{
    model::{
        filter::{Filter, sets},
        task::{ClaimProof, TaskMove},
    },
    ports::{
        AppStore, Claim, ClaimRequest, ClaimStore, GONE, LedgerFilter, Ledgers, Schedule, ScheduleFilter,
        ScheduleSettings, ScheduleStore, Task, TaskFilter, TaskStore, TaskWord, Woken,
    },
    testing::ManualClock,
    time::Timestamp,
};
use tidings_entity::{
    id::AppId,
    kind::{EntryType, MissedTicks, OriginKind, TickOverlap},
};

use super::{
    home::{Home, on_both},
    new_app, number,
};
use crate::SqlStore;

mod resyncs;

const MINUTE: Duration = Duration::from_secs(60);
/// The moment at which the tests begin; a minute begins at it.
const START: Timestamp = Timestamp(1_800_000_000_000);

fn app() -> AppId {
    new_app(1).id
}

fn minute(number: u32) -> Timestamp {
    START.after(number * MINUTE)
}

fn every(minutes: u32) -> ScheduleSettings {
    ScheduleSettings {
        cron: format!("*/{minutes} * * * *"),
        zone: "UTC".into(),
        missed: MissedTicks::One,
        overlap: TickOverlap::Allow,
        watch: None,
        command: "report".into(),
        payload: "{ \"a\" : 1.50 }".into(),
        priority: 3,
        max_attempts: Some(2),
        callback: None,
    }
}

async fn open(home: &Home) -> (SqlStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START));
    let store = home.open_timed(clock.clone()).await.expect("opened");
    store.create_app(&new_app(1)).await.expect("an app");
    (store, clock)
}

async fn set(store: &SqlStore, settings: &ScheduleSettings) {
    store.set_schedule(&app(), "nightly", settings).await.expect("set");
}

async fn wake(store: &SqlStore) -> Woken {
    store.wake_tasks().await.expect("woken")
}

/// The tasks that are there, oldest first.
async fn tasks(store: &SqlStore) -> Vec<Task> {
    let mut tasks =
        store.list_tasks(&app(), &TaskFilter::default(), None, 1_000).await.expect("listed").found;
    tasks.reverse();
    tasks
}

/// The minutes whose ticks have a task.
async fn minutes(store: &SqlStore) -> Vec<i64> {
    let minute = |task: &Task| {
        assert_eq!(task.origin.kind, OriginKind::Tick);
        let moment = task.origin.name.strip_prefix("nightly/").expect("the schedule");
        (Timestamp::parsed(moment).expect("a moment").0 - START.0) / 60_000
    };
    let mut minutes: Vec<i64> = tasks(store).await.iter().map(minute).collect();
    minutes.sort_unstable();
    minutes
}

async fn end_one(store: &SqlStore) {
    let request = ClaimRequest {
        app: app(),
        commands: vec!["report".into()],
        count: 1,
        claim: MINUTE,
        worker: "tok_worker".into(),
    };
    let claim: Claim = store.claim_tasks(vec![request]).await.expect("claimed").remove(0);
    let token = &claim.tasks[0].token;
    let word = TaskWord {
        id: token.task.clone(),
        app: app(),
        proof: Some(ClaimProof::Hash(token.hash())),
        step: TaskMove::Complete,
        body: None,
        then: Vec::new(),
    };
    store.move_tasks(vec![word]).await.expect("said").remove(0).expect("completed");
}

/// How many ticks the ledger says were missed, entry by entry.
async fn told(store: &SqlStore) -> Vec<u64> {
    let filter = LedgerFilter { types: vec![EntryType::ScheduleMissed], ..LedgerFilter::default() };
    let entries = store.entries(&app(), &filter, None, 100).await.expect("listed").found;
    let count = |data: &str| {
        let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
        data["count"].as_u64().expect("a count")
    };
    entries.iter().map(|entry| count(&entry.data)).collect()
}

async fn a_tick_has_its_task_once_over_restarts_and_replicas(home: Home) {
    let (store, clock) = open(&home).await;
    set(&store, &every(10)).await;
    clock.set(Timestamp(minute(10).0 - 1));
    assert_eq!((wake(&store).await.ticks, wake(&store).await.next), (0, Some(minute(10))));
    clock.set(minute(10));
    let woken = wake(&store).await;
    assert_eq!((woken.ticks, woken.next), (1, Some(minute(20))));
    let task = tasks(&store).await.remove(0);
    assert_eq!((task.command.as_str(), task.priority, task.max_attempts), ("report", 3, 2));
    assert_eq!(store.task_bodies(&app(), &task.id).await.expect("read").payload, "{ \"a\" : 1.50 }");
    assert_eq!(wake(&store).await.ticks, 0);
    // On a server a second replica works beside the first; a file is taken over.
    let other = home.open_timed(clock.clone()).await.expect("opened again");
    clock.set(minute(30));
    let (one, two) = tokio::join!(store.wake_tasks(), other.wake_tasks());
    let created = one.map_or(0, |woken| woken.ticks) + two.map_or(0, |woken| woken.ticks);
    assert_eq!((created, minutes(&other).await), (1, vec![10, 30]));
    assert_eq!(told(&other).await, [1], "the tick of minute 20");
    let schedule = other.schedule(&app(), "nightly").await.expect("there");
    assert_eq!((schedule.last_tick, schedule.missed_ticks), (minute(30), 1));
    assert_eq!(schedule.last_task, tasks(&other).await.last().map(|task| task.id.clone()));
}

async fn a_clock_that_moves_creates_no_task_twice(home: Home) {
    let (store, clock) = open(&home).await;
    set(&store, &ScheduleSettings { missed: MissedTicks::Each, ..every(10) }).await;
    for now in [5, 12, 3, 12, 25, 0, 25, 61, 0, 29, 61, 70] {
        clock.set(minute(now));
        let woken = wake(&store).await;
        assert!(woken.next > Some(minute(now)), "it does not spin");
    }
    assert_eq!(minutes(&store).await, [10, 20, 30, 40, 50, 60, 70]);
    assert!(told(&store).await.is_empty(), "each of them was made up");
}

async fn a_tick_waits_for_the_end_of_the_task_before_or_is_skipped(home: Home) {
    let (store, clock) = open(&home).await;
    set(&store, &ScheduleSettings { overlap: TickOverlap::Wait, missed: MissedTicks::Each, ..every(10) })
        .await;
    clock.set(minute(10));
    assert_eq!(wake(&store).await.ticks, 1);
    clock.set(minute(35));
    let woken = wake(&store).await;
    assert_eq!(woken.ticks, 0, "the task of minute 10 has not ended");
    assert!(woken.next > Some(minute(35)), "it does not spin");
    drop(store.task_news().await);
    for expected in [vec![10, 20], vec![10, 20, 30]] {
        end_one(&store).await;
        assert_eq!(store.task_news().await.wake_at, Some(minute(35)), "the clock is told of the end");
        assert_eq!(wake(&store).await.ticks, 1);
        assert_eq!(minutes(&store).await, expected);
        drop(store.task_news().await);
    }
    set(&store, &ScheduleSettings { overlap: TickOverlap::Skip, ..every(10) }).await;
    clock.set(minute(52));
    assert_eq!(wake(&store).await.ticks, 0);
    assert_eq!(store.schedule(&app(), "nightly").await.expect("there").skipped_ticks, 2);
    end_one(&store).await;
    clock.set(minute(60));
    assert_eq!(wake(&store).await.ticks, 1);
    assert_eq!(minutes(&store).await, [10, 20, 30, 60]);
    assert!(told(&store).await.is_empty(), "what overlaps is not missed");
}

async fn many_missed_ticks_with_large_payloads_are_made_up_in_turns_of_bounded_size(home: Home) {
    let (store, clock) = open(&home).await;
    let payload = format!("\"{}\"", "x".repeat((256 << 10) - 2));
    let large = ScheduleSettings { missed: MissedTicks::Each, payload, ..every(1) };
    for name in ["hourly", "nightly"] {
        store.set_schedule(&app(), name, &large).await.expect("set");
    }
    clock.set(minute(50));
    let mut turns = Vec::new();
    loop {
        let woken = wake(&store).await;
        turns.push(woken.ticks);
        if woken.next > Some(minute(50)) {
            break;
        }
    }
    assert_eq!(turns, [32, 32, 32, 4], "8 MiB each");
    let origins: BTreeSet<String> = tasks(&store).await.into_iter().map(|task| task.origin.name).collect();
    assert_eq!(origins.len(), 100, "each tick has its task once");
    assert!(told(&store).await.is_empty(), "each of them was made up");
}

async fn a_schedule_that_rests_owes_nothing(home: Home) {
    let (store, clock) = open(&home).await;
    set(&store, &every(10)).await;
    let pause = async |is_paused| store.pause_schedule(&app(), "nightly", is_paused).await.expect("said");
    assert!(pause(true).await.is_paused);
    clock.set(minute(45));
    assert_eq!(wake(&store).await, Woken::default());
    // A change of a schedule that rests does not wake it.
    set(&store, &every(20)).await;
    assert_eq!(wake(&store).await, Woken::default());
    assert!(!pause(false).await.is_paused);
    assert_eq!(wake(&store).await.next, Some(minute(60)));
    set(&store, &every(5)).await;
    clock.set(minute(50));
    wake(&store).await;
    assert_eq!(minutes(&store).await, [50]);
    // The same times again: what is due is still owed.
    clock.set(minute(55));
    set(&store, &ScheduleSettings { priority: 9, ..every(5) }).await;
    wake(&store).await;
    assert_eq!(minutes(&store).await, [50, 55]);
    store.remove_schedule(&app(), "nightly").await.expect("removed");
    store.remove_schedule(&app(), "nightly").await.expect_err("it is gone");
    clock.set(minute(100));
    assert_eq!(wake(&store).await.ticks, 0);
}

async fn a_task_that_cannot_be_created_is_tried_again_and_a_disabled_app_rests(home: Home) {
    let (store, clock) = open(&home).await;
    set(&store, &every(10)).await;
    clock.set(minute(10));
    wake(&store).await;
    store.tamper("update queue set ready = 1000000").await;
    clock.set(minute(20));
    let woken = wake(&store).await;
    assert_eq!((woken.ticks, woken.next), (0, Some(minute(21))));
    let schedule = store.schedule(&app(), "nightly").await.expect("there");
    assert!(schedule.error.expect("why").contains("open tasks"));
    store.tamper("update queue set ready = 1").await;
    clock.set(minute(21));
    assert_eq!(wake(&store).await.ticks, 1);
    assert_eq!(store.schedule(&app(), "nightly").await.expect("there").error, None);
    store.tamper("update app set disabled = 'gone'").await;
    clock.set(minute(30));
    assert_eq!(wake(&store).await, Woken::default(), "it neither fires nor spins");
    store.tamper("update app set disabled = null").await;
    assert_eq!(wake(&store).await.ticks, 1);
    assert_eq!(minutes(&store).await, [10, 20, 30]);
    // Only its own endpoint is gone: its workers go on, and so do their schedules.
    store.tamper(&format!("update app set disabled = '{GONE}'")).await;
    clock.set(minute(40));
    let woken = wake(&store).await;
    assert_eq!((woken.ticks, woken.next), (1, Some(minute(50))));
}

async fn a_restored_database_owes_no_tick_of_before(home: Home) {
    let (store, clock) = open(&home).await;
    set(&store, &every(10)).await;
    clock.set(minute(95));
    let restored = store.writer.verb(|transaction, context| {
        Box::pin(async move { crate::tasks::of_restored_schedules(transaction, context.clock.now()).await })
    });
    restored.await.expect("restored");
    let woken = wake(&store).await;
    assert_eq!((woken.ticks, woken.next), (0, Some(minute(100))));
}

async fn an_app_has_its_own_schedules_up_to_a_bound_and_leaves_none(home: Home) {
    let (store, _clock) = open(&home).await;
    set(&store, &every(10)).await;
    store.schedule(&new_app(2).id, "nightly").await.expect_err("another app sees none of it");
    let raw = home.raw().await;
    let many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 999)
                insert into schedule select app_id, 'n' || i, cron, zone, missed, overlap, command, payload,
                  priority, max_attempts, is_paused, last_tick, wake_at, last_task, missed_ticks,
                  skipped_ticks, error, created_at, updated_at, callback, watch_id from schedule, n";
    store.tamper(many).await;
    store.set_schedule(&app(), "more", &every(10)).await.expect_err("one too many");
    store.set_schedule(&app(), "n7", &every(5)).await.expect("one that is there");
    let own = ScheduleFilter { app: Some(app()), query: None };
    let listed = store.schedules(&own, Some((&app(), "n9")), 3).await.expect("listed");
    assert_eq!(names(listed), ["n90", "n900", "n901"]);
    store.erase_app(&app()).await.expect("erased");
    assert_eq!(number(&raw, "select count(*) from schedule").await, 0);
}

fn names(schedules: Vec<Schedule>) -> Vec<String> {
    schedules.into_iter().map(|schedule| schedule.name).collect()
}

async fn a_list_has_what_its_filter_means_of_one_app_or_of_all(home: Home) {
    let (store, _clock) = open(&home).await;
    store.create_app(&new_app(2)).await.expect("an app");
    let other = new_app(2).id;
    set(&store, &every(10)).await;
    let weekly = ScheduleSettings { zone: "Europe/Rome".into(), command: "mail.digest".into(), ..every(30) };
    store.set_schedule(&other, "weekly", &weekly).await.expect("set");
    store.set_schedule(&other, "nightly", &every(5)).await.expect("set");
    store.pause_schedule(&other, "nightly", true).await.expect("paused");
    store.tamper("update schedule set error = 'the queue is full' where name = 'weekly'").await;
    let means = async |app: Option<AppId>, text: &str| {
        let query = Filter::parse(text, &sets::SCHEDULES, START).expect("a filter");
        names(store.schedules(&ScheduleFilter { app, query: Some(query) }, None, 10).await.expect("listed"))
    };
    let all = store.schedules(&ScheduleFilter::default(), None, 10).await.expect("listed");
    assert_eq!(names(all.clone()), ["nightly", "nightly", "weekly"], "by apps, then by names");
    let after = store.schedules(&ScheduleFilter::default(), Some((&other, "nightly")), 10).await;
    assert_eq!(names(after.expect("listed")), ["weekly"]);
    for (text, expected) in [
        ("state:paused", vec!["nightly"]),
        ("state:failing", vec!["weekly"]),
        ("state:active", vec!["nightly"]),
        ("command:mail.digest", vec!["weekly"]),
        ("zone:~rome", vec!["weekly"]),
        ("error:~full", vec!["weekly"]),
        ("cron:~*/10", vec!["nightly"]),
        ("name:nightly", vec!["nightly", "nightly"]),
        ("digest", vec!["weekly"]),
        ("NOT name:nightly", vec!["weekly"]),
    ] {
        assert_eq!(means(None, text).await, expected, "{text}");
    }
    assert_eq!(means(Some(app()), "state:paused").await, Vec::<String>::new(), "another app's is not shown");
    assert_eq!(means(None, &format!("app:{other} state:paused")).await, ["nightly"]);
}

on_both! {
    a_list_has_what_its_filter_means_of_one_app_or_of_all
    a_tick_has_its_task_once_over_restarts_and_replicas
    a_clock_that_moves_creates_no_task_twice
    a_tick_waits_for_the_end_of_the_task_before_or_is_skipped
    many_missed_ticks_with_large_payloads_are_made_up_in_turns_of_bounded_size
    a_schedule_that_rests_owes_nothing
    a_task_that_cannot_be_created_is_tried_again_and_a_disabled_app_rests
    a_restored_database_owes_no_tick_of_before
    an_app_has_its_own_schedules_up_to_a_bound_and_leaves_none
}
