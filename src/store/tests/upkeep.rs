//! What goes in steps: others wait for no transaction with many rows.

use sea_orm::{ConnectionTrait, Database, DbBackend, TransactionTrait};
use tidings_actors::{
    ports::{Administration, AppStore, AuditEntry, AuditKept, StoreError, UpkeepStore},
    time::Timestamp,
};

use super::{
    home::{Home, on_both},
    new_app, number, watch,
};
use crate::{
    audit::Pending,
    database::{copy, rows},
    upkeep,
};

const KEPT: AuditKept = AuditKept { since: Timestamp(0), rows: 1_000 };
/// Rows of one table: more than go in two steps.
const MANY: u64 = 2 * upkeep::STEP + 7;

fn entry() -> AuditEntry {
    AuditEntry {
        at: Timestamp(1),
        actor: "admin".into(),
        app: String::new(),
        action: "something".into(),
        target: "an app".into(),
        result: "ok".into(),
        request: String::new(),
        address: None,
    }
}

async fn an_app_with_a_long_past_goes_in_steps_and_its_deed_with_the_last(home: Home) {
    let store = home.open(1).await.expect("opened");
    let (app, other) = (new_app(1), new_app(2));
    for app in [&app, &other] {
        store.create_app(app).await.expect("created");
    }
    watch(&store, &app.id, 1, None).await;
    watch(&store, &other.id, 2, None).await;
    let raw = home.raw().await;
    for text in [
        "settled (cursor_id, round, from_position, to_position, settled_at)
         select c.id, 1, i, i + 1, 1",
        "attempt (owner_kind, owner_id, round, position, number, delivery_id, item_failure, excerpt, took_ms,
           ended_at)
         select 'cursor', c.id, 1, i, 1, 'dlv_a', true, 'why', 3, 1",
    ] {
        let text = format!(
            "insert into {text} from cursor c,
             (with recursive n(i) as (select 1 union all select i + 1 from n where i < {MANY})
              select i from n) many"
        );
        raw.execute_unprepared(&text).await.expect("rows");
    }
    let id = app.id.clone();
    let step = store.writer.question(move |transaction, _context| {
        Box::pin(async move { upkeep::clear(transaction, &id, 0, 100).await })
    });
    assert_eq!(step.await.expect("cleared"), 100, "a step is bounded");

    let pending = Pending::of(entry(), KEPT);
    let refused = pending.during(store.erase_app(&new_app(3).id)).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    assert_eq!(pending.take(), Some(entry()), "nothing was done");
    let pending = Pending::of(entry(), KEPT);
    pending.during(store.erase_app(&app.id)).await.expect("erased");
    assert!(pending.take().is_none() && store.audit_chain(0, 10).await.expect("read").len() == 1);
    for table in ["settled", "attempt"] {
        let left = number(&raw, &format!("select count(*) from {table}")).await;
        assert_eq!(left.unsigned_abs(), MANY, "what is left of {table} is the other's");
    }
}

async fn old_attempts_are_found_by_an_index(home: Home) {
    drop(home.open(1).await.expect("opened"));
    let raw = home.raw().await;
    let (setting, explain, column) = match raw.get_database_backend() {
        DbBackend::Postgres => ("set local enable_seqscan = off", "explain", 0),
        _ => ("select 1", "explain query plan", 3),
    };
    let look = raw.begin().await.expect("begun");
    look.execute_unprepared(setting).await.expect("set");
    let text = format!("{explain} select delivery_id from attempt where ended_at < 1");
    let found = rows::mixed(&look, "test", &text, vec![]).await.expect("a plan");
    let plan: Vec<String> = found.iter().map(|row| row.try_get_by_index(column).expect("a text")).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("ended_at_idx") || plan.contains("INDEX attempt_ended"), "{plan}");
}

/// Rows of 1,000 bytes each, and no others.
const BALLAST: &str = "insert into ballast with recursive n(i) as (select 1 union all select i + 1 from n
    where i < 20000) select randomblob(1000) from n";

#[tokio::test]
async fn room_that_rows_left_goes_back_to_the_disk_and_some_is_kept() {
    const KEPT: u64 = 1 << 20;
    let home = Home::file();
    let store = home.open(1).await.expect("opened");
    let raw = home.raw().await;
    for text in ["create table ballast (bytes blob)", BALLAST, "delete from ballast"] {
        raw.execute_unprepared(text).await.expect("done");
    }
    let full = store.database_use().await.expect("counted");
    assert!(full.free_bytes > 15 << 20, "{} of {} bytes are free", full.free_bytes, full.bytes);
    let step = store.release_space(KEPT, 1).await.expect("given back");
    assert!(step > 0 && step <= 4 << 20, "a step is bounded: {step}");
    let rest = store.release_space(KEPT, u64::MAX).await.expect("given back");
    assert_eq!(store.release_space(KEPT, u64::MAX).await.expect("asked"), 0);
    let now = store.database_use().await.expect("counted");
    assert_eq!(now.bytes, full.bytes - step - rest);
    assert!(now.free_bytes <= KEPT && now.free_bytes > KEPT / 2, "{} bytes are kept", now.free_bytes);
    let check = rows::mixed(&raw, "test", "pragma integrity_check", vec![]).await.expect("checked");
    assert_eq!(check[0].try_get_by_index::<String>(0).expect("a text"), "ok");
    raw.execute_unprepared("pragma wal_checkpoint(truncate)").await.expect("written");
    let file = std::fs::metadata(home.path().join("tidings.db")).expect("a file").len();
    assert!(file <= now.bytes, "{file} bytes are on the disk");
}

#[tokio::test]
async fn a_file_of_an_older_version_gives_room_back_after_its_backup_was_restored() {
    let home = Home::file();
    let older = Database::connect(format!("{}?mode=rwc", home.url())).await.expect("connected");
    older.execute_unprepared("create table before_us (a)").await.expect("made");
    older.execute_unprepared("drop table before_us").await.expect("dropped");
    older.close().await.expect("closed");
    let store = home.open(1).await.expect("opened");
    let raw = home.raw().await;
    for text in ["create table ballast (bytes blob)", BALLAST, "delete from ballast"] {
        raw.execute_unprepared(text).await.expect("done");
    }
    assert_eq!(store.release_space(0, u64::MAX).await.expect("asked"), 0, "its first page does not allow it");
    let copied = home.path().join("copy.db");
    copy::take(home.url(), &copied).await.expect("copied");
    let copied = Database::connect(format!("sqlite://{}", copied.display())).await.expect("connected");
    assert_eq!(number(&copied, "select auto_vacuum from pragma_auto_vacuum()").await, 2);
}

on_both! {
    an_app_with_a_long_past_goes_in_steps_and_its_deed_with_the_last
    old_attempts_are_found_by_an_index
}
