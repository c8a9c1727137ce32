//! A server in trouble as one process sees it: who writes takes turns, connections freeze or come from an earlier process,
//! others hold what is needed.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, future::join_all};
use rustix::process::{Pid, Signal, kill_process};
use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use tidings_actors::{
    ports::{
        Administration, AppStore, AuditEntry, AuditKept, ClaimRequest, ClaimStore, LaneStore, Settlement,
        Standing, StoreError, Streak, TaskStore, UpkeepStore,
    },
    time::Timestamp,
};
use tidings_entity::{
    id::{CursorId, TaskId},
    kind::TaskState,
};
use tokio::time::{sleep, timeout};
use ulid::Ulid;

use super::{
    home::{Home, cluster},
    new_app, number,
};
use crate::{
    SqlStore,
    database::{
        address::Address,
        connect::{self, Share},
        rows,
    },
};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is given a chance to happen that must not.
const CHANCE: Duration = Duration::from_millis(300);
const KEPT: AuditKept = AuditKept { since: Timestamp(0), rows: 1_000 };

fn entry(target: &str) -> AuditEntry {
    AuditEntry {
        at: Timestamp(1),
        actor: "admin".into(),
        app: String::new(),
        action: "something".into(),
        target: target.into(),
        result: "ok".into(),
        request: String::new(),
        address: None,
    }
}

/// A settlement of a lane that nobody knows: it changes nothing.
fn settlement() -> Settlement {
    Settlement {
        cursor: CursorId::new(Ulid::from_parts(1, 1)),
        round: 1,
        position: 1,
        parked: vec![],
        streak: Streak::default(),
        above: vec![],
        absorbs: false,
        acknowledged: true,
        standing: Standing::Unchanged,
        redrive: vec![],
        at: Timestamp(1),
    }
}

async fn run(connection: &DatabaseConnection, text: &str) {
    connection.execute_unprepared(text).await.expect("run");
}

/// Ends a process of the server, and waits until it is gone: a signal alone may find it at work again.
async fn end(connection: &DatabaseConnection, id: i64) {
    run(connection, &format!("select pg_terminate_backend({id})")).await;
    let text = "select count(*) from pg_stat_activity where pid = $1";
    let is_there =
        async || rows::number(connection, "test", text, vec![id.into()]).await.expect("a number") > 0;
    let gone = async {
        while is_there().await {
            sleep(CHANCE / 30).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("ended");
}

/// The process of the server that writes for a store.
async fn writer(store: &SqlStore) -> i64 {
    let asked = store.writer.question(|transaction, _context| {
        let text = "select cast(pg_backend_pid() as bigint)";
        Box::pin(async move { rows::number(transaction, "test", text, vec![]).await })
    });
    asked.await.expect("a number")
}

#[tokio::test]
async fn who_writes_alone_waits_for_who_writes_and_sees_what_was_written() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    store.close().await;
    let address = Address::parse(home.url()).expect("an address");
    let one = connect::writer(&address).await.expect("connected");
    let other = connect::writer(&address).await.expect("connected");
    let epoch = "select epoch from lease where shard = 'all'";
    for (first, second, waits) in [
        (Share::Alone, Share::Alone, true),
        (Share::Alone, Share::Working, true),
        (Share::Working, Share::Alone, true),
        (Share::Rebuilding, Share::Alone, true),
        (Share::Working, Share::Working, false),
    ] {
        let writes = one.begin(first).await.expect("begun");
        let before = rows::number(&writes, "lease", epoch, vec![]).await.expect("read");
        writes.execute_unprepared("update lease set epoch = epoch + 1").await.expect("written");
        let mut begins = std::pin::pin!(other.begin(second));
        // Who waits for nobody may take long on a busy machine.
        let begun = timeout(if waits { CHANCE } else { PATIENCE }, &mut begins).await;
        assert_eq!(begun.is_err(), waits, "{second:?} beside {first:?}");
        writes.commit().await.expect("committed");
        let reads = match begun {
            Ok(begun) => begun,
            Err(_) => timeout(PATIENCE, begins).await.expect("its turn comes"),
        };
        let reads = reads.expect("begun");
        let after = rows::number(&reads, "lease", epoch, vec![]).await.expect("read");
        assert_eq!(after, before + 1, "{second:?} after {first:?}");
        reads.rollback().await.expect("ended");
    }
}

#[tokio::test]
async fn reading_connections_that_freeze_are_left_behind() {
    let Some(home) = Home::own_server().await else { return };
    let store = home.open(1).await.expect("opened");
    let writer = writer(&store).await;
    // As many as there may be.
    let looks = join_all((0..4).map(|_| store.snapshot())).await;
    assert!(looks.iter().all(Result::is_ok));
    drop(looks);
    let raw = home.raw().await;
    let text = format!(
        "select cast(pid as bigint) from pg_stat_activity where datname = current_database()
         and application_name = 'tidings' and pid <> {writer}"
    );
    let found = rows::mixed(&raw, "test", &text, vec![]).await.expect("read");
    let frozen: Vec<i64> = found.iter().map(|row| row.try_get_by_index(0).expect("a number")).collect();
    assert_eq!(frozen.len(), 4);
    let signal = |signal| {
        for id in &frozen {
            let id = Pid::from_raw(i32::try_from(*id).expect("an id")).expect("an id");
            // One that ended by itself is no loss.
            let _ended: Result<(), _> = kill_process(id, signal);
        }
    };
    // All of them in use: one that rested is asked first whether it lives, and given up sooner.
    let reads = async || join_all((0..4).map(|_| store.ping())).await;
    assert!(reads().await.iter().all(Result::is_ok));
    // One that is stopped before it rests may hold a lock of the server itself, and stops everybody.
    let pids: Vec<String> = frozen.iter().map(ToString::to_string).collect();
    let resting = format!(
        "select count(*) from pg_stat_activity where wait_event = 'ClientRead' and pid in ({})",
        pids.join(", ")
    );
    while rows::number(&raw, "test", &resting, vec![]).await.expect("read") < 4 {
        tokio::task::yield_now().await;
    }
    signal(Signal::STOP);
    let (first, began) = (reads().await, Instant::now());
    let mut answered = 0;
    while answered < 8 && began.elapsed() < PATIENCE {
        let look = store.apps(None, 1).await.is_ok();
        answered += u32::from(look && store.ping().await.is_ok());
    }
    let (took, writes) = (began.elapsed(), store.create_app(&new_app(1)).await);
    signal(Signal::CONT);
    assert!(first.iter().all(Result::is_err), "nobody was asked in vain: {first:?}");
    assert!(took < Duration::from_secs(10), "answers came {took:?} after the others were given up");
    writes.expect("who writes is well");
}

#[tokio::test]
async fn what_was_prepared_before_the_schema_changed_is_prepared_again() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    store.create_app(&new_app(1)).await.expect("created");
    let (app, raw) = (new_app(1).id, home.raw().await);
    for column in 0..3 {
        // Often enough that each connection has prepared it.
        let reads = join_all((0..8).map(|_| store.app(&app))).await;
        assert!(reads.iter().all(Result::is_ok), "{reads:?}");
        assert_eq!(store.apps(None, 9).await.expect("read").len(), 1);
        store.record(&entry("before"), KEPT).await.expect("written");
        store.record(&entry("before"), KEPT).await.expect("written");
        // As another replica of a newer version does.
        for table in ["app", "audit"] {
            run(&raw, &format!("alter table {table} add column later_{column} text")).await;
        }
        // One may fail; what comes then does not.
        for _ in 0..2 {
            drop(store.app(&app).await);
            drop(store.apps(None, 9).await);
            drop(store.record(&entry("after"), KEPT).await);
        }
        let reads = join_all((0..8).map(|_| store.app(&app))).await;
        assert!(reads.iter().all(Result::is_ok), "{reads:?}");
        assert_eq!(store.apps(None, 9).await.expect("read").len(), 1);
        store.record(&entry("after"), KEPT).await.expect("written");
    }
}

#[tokio::test]
async fn a_turn_after_one_that_was_cut_off_waits_for_its_end() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let raw = home.raw().await;
    let id = writer(&store).await;
    // What a turn of settlements that was cut off may still be doing.
    let address = Address::parse(home.url()).expect("an address");
    let zombie = connect::writer(&address).await.expect("connected");
    let begun = zombie.begin(Share::Working).await.expect("begun");
    // It must not be ended for its silence while this looks.
    begun.execute_unprepared("set local idle_in_transaction_session_timeout = 0").await.expect("set");
    assert!(!store.settle(settlement()).await.expect("it shares with others that settle"));
    // A connection that ends between two turns is made again before the next one: the turn has begun here.
    let holder = home.raw().await;
    let held = holder.begin().await.expect("begun");
    held.execute_unprepared("lock table lease in access exclusive mode").await.expect("locked");
    let ends = async {
        let waiting = format!("select count(*) from pg_locks where pid = {id} and not granted");
        while number(&raw, &waiting).await == 0 {
            sleep(CHANCE / 30).await;
        }
        end(&raw, id).await;
        held.rollback().await.expect("ended");
    };
    let (cut, ()) = tokio::join!(
        store.settle(settlement()),
        timeout(PATIENCE, ends).map(|ended| ended.expect("cut off"))
    );
    assert!(matches!(cut, Err(StoreError::Unavailable(_))), "{cut:?}");
    let mut waits = std::pin::pin!(store.settle(settlement()));
    assert!(timeout(CHANCE, &mut waits).await.is_err(), "it may still come to the disk");
    begun.rollback().await.expect("ended");
    assert!(!timeout(PATIENCE, waits).await.expect("its turn comes").expect("settled"));
}

#[tokio::test]
async fn what_a_turn_in_doubt_claimed_is_given_back_and_told_once_its_outcome_is_known() {
    let Some(home) = Home::own_server().await else { return };
    let store = home.open(1).await.expect("opened");
    let (app, task) = (new_app(1).id, TaskId::new(Ulid::from_parts(1, 1)));
    store.create_app(&new_app(1)).await.expect("an app");
    store.create_tasks(&app, vec![super::tasks::new(1, "embed")]).await.expect("written").expect("created");
    drop(store.task_news().await);
    let (raw, probe, id) = (home.raw().await, home.raw().await, writer(&store).await);
    // A commit that waits for another server to take it is on disk here already.
    let wait_for_others = async |change: &str| {
        run(&raw, &format!("alter system {change}")).await;
        run(&raw, "select pg_reload_conf()").await;
    };
    wait_for_others("set synchronous_standby_names = 'nobody'").await;
    for table in 0..1_000 {
        let text = format!("create table probe_{table} ()");
        if timeout(PATIENCE / 30, probe.execute_unprepared(&text)).await.is_err() {
            break;
        }
    }
    let ends = async {
        let text =
            format!("select count(*) from pg_stat_activity where pid = {id} and wait_event = 'SyncRep'");
        while number(&raw, &text).await == 0 {
            sleep(CHANCE / 30).await;
        }
        end(&raw, id).await;
        wait_for_others("reset synchronous_standby_names").await;
    };
    let request = ClaimRequest {
        app: app.clone(),
        commands: vec!["embed".into()],
        count: 1,
        claim: Duration::from_secs(60),
        worker: "tok_worker".into(),
    };
    let (claimed, ()) = tokio::join!(
        store.claim_tasks(vec![request]),
        timeout(PATIENCE, ends).map(|ended| ended.expect("cut off"))
    );
    assert!(matches!(claimed, Err(StoreError::Unavailable(_))), "{claimed:?}");
    let mut was_claimed = false;
    let told = async {
        loop {
            let news = store.task_news().await;
            was_claimed |= news.room.contains(&app);
            if !news.ready.is_empty() {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("told that it may be claimed again");
    assert!(was_claimed, "what the turn did is told as well");
    let task = store.task(&app, &task).await.expect("there");
    assert_eq!((task.state, task.attempts), (TaskState::Ready, 0));
}

#[tokio::test]
async fn who_leaves_while_a_transaction_begins_leaves_none_open() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let address = Address::parse(home.url()).expect("an address");
    let beside = connect::beside(&address).await.expect("connected");
    let raw = home.raw().await;
    let open = "select count(*) from pg_stat_activity where datname = current_database()
                and state like 'idle in transaction%'";
    // After the first step the server is asked, and has not answered.
    for steps in [1, 2, 8, 32, 128] {
        drop(store.snapshot().await.expect("a look"));
        drop(beside.begin(Share::Aside).await.expect("begun"));
        // Both connections are back in their pools by then.
        sleep(CHANCE).await;
        let mut look = Box::pin(store.snapshot().fuse());
        let mut begins = Box::pin(beside.begin(Share::Aside).fuse());
        for _ in 0..steps {
            drop((look.as_mut().now_or_never(), begins.as_mut().now_or_never()));
            tokio::task::yield_now().await;
        }
        drop((look, begins));
        sleep(CHANCE).await;
        let ends = async {
            while number(&raw, open).await > 0 {
                sleep(CHANCE / 30).await;
            }
        };
        let ended = timeout(PATIENCE / 6, ends).await;
        assert!(ended.is_ok(), "a transaction that nobody has stays open: left after {steps} steps");
    }
}

#[tokio::test]
async fn a_start_waits_for_a_server_that_takes_no_writes_yet() {
    let Some(home) = Home::server().await else { return };
    let raw = home.raw().await;
    let only_read = |value: &str| {
        format!(
            "begin read write; do $$ begin execute format('alter database %I set
             default_transaction_read_only = {value}', current_database()); end $$; commit"
        )
    };
    run(&raw, &only_read("on")).await;
    let refused = home.open_at(home.url(), 1).await.err().expect("refused");
    assert!(refused.to_string().contains("cannot be reached"), "{refused}");
    let opens = home.open_within(PATIENCE, home.url(), 1);
    let heals = async {
        sleep(CHANCE).await;
        cluster::run_sql(home.url(), &only_read("off")).expect("set");
    };
    let (opened, ()) = tokio::join!(opens, heals);
    opened.expect("opened").close().await;
}

#[tokio::test]
async fn a_table_that_is_read_for_long_holds_up_no_turn() {
    const WEEK: i64 = 7 * 24 * 3600 * 1000;
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let raw = home.raw().await;
    let parts = "select count(*) from pg_inherits where inhparent = 'attempt'::regclass";
    let before = number(&raw, parts).await;
    let dump = raw.begin().await.expect("begun");
    rows::number(&dump, "attempt", "select count(*) from attempt", vec![]).await.expect("read");
    let (later, day) = (Timestamp(40 * WEEK), Duration::from_secs(86_400));
    let began = Instant::now();
    assert_eq!(store.prune(later, day, day, 100).await.expect("it is no reason to fail"), 0);
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    assert_eq!(number(&raw, parts).await, before);
    store.create_app(&new_app(1)).await.expect("verbs go on");
    dump.rollback().await.expect("ended");
    store.prune(later, day, day, 100).await.expect("pruned");
    assert_eq!(number(&raw, parts).await, 6, "this week, four to come, and the rest");
}

#[tokio::test]
async fn what_others_keep_in_the_same_database_is_not_counted() {
    let Some(home) = Home::server().await else { return };
    let store = home.open(1).await.expect("opened");
    let raw = home.raw().await;
    let before = store.database_use().await.expect("counted").bytes;
    assert!(before > 0);
    let text =
        "create table theirs as select repeat(md5(n::text), 50) as text from generate_series(1, 20000) n";
    run(&raw, text).await;
    assert!(number(&raw, "select pg_total_relation_size('theirs')").await > 2 << 20);
    let after = store.database_use().await.expect("counted").bytes;
    assert!(after.abs_diff(before) < 1 << 20, "{before} and {after}");
    run(&raw, "insert into audit select n, n, '', '', '', repeat(md5(n::text), 50), '', '', '', '' from generate_series(1, 20000) n").await;
    let grown = store.database_use().await.expect("counted").bytes;
    assert!(grown > after + (2 << 20), "{after} and {grown}");
}
