//! Copies from one database into another: everything arrives as it is, and what did not arrive is noticed.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait, Value};
use tidings_actors::{
    ports::{AppStore, LaneStore, StoreError},
    time::Timestamp,
};
use tokio::sync::Notify;

use super::{
    home::{Home, cluster, on_both},
    new_app, number, schema, watch,
};
use crate::{
    OpenError,
    database::transfer::{
        Compared, TransferError,
        tables::{COPIED, OF_PROCESSES},
        transfer,
    },
};

const WEEK: i64 = 7 * 24 * 3600 * 1000;
const NOW: Timestamp = Timestamp(10 * WEEK);
/// Rows of odd values in each table.
const ODD: usize = 4;
/// Rows in the tables that have many, more than two pages.
const MANY: u64 = 1_201;

async fn copy(from: &str, to: &str) -> Result<Vec<Compared>, TransferError> {
    transfer(from, to, NOW, &|_, _| {}).await
}

async fn texts(connection: &DatabaseConnection, text: &str) -> Vec<String> {
    let statement = Statement::from_string(connection.get_database_backend(), text);
    let found = connection.query_all_raw(statement).await.expect("read");
    found.iter().map(|row| row.try_get_by_index(0).expect("a text")).collect()
}

/// A column as SQLite tells it, with the column that it refers to.
struct Told {
    name: String,
    declared: String,
    may_be_null: bool,
    parent: Option<(String, String)>,
}

async fn columns(connection: &DatabaseConnection, table: &str) -> Vec<Told> {
    let text = format!(
        "select c.name, lower(c.type), c.\"notnull\" = 0 and c.pk = 0, f.\"table\", f.\"to\" from pragma_table_info('{table}') c
         left join pragma_foreign_key_list('{table}') f on f.\"from\" = c.name"
    );
    let found =
        connection.query_all_raw(Statement::from_string(DbBackend::Sqlite, text)).await.expect("read");
    let told = |row: &sea_orm::QueryResult| Told {
        name: row.try_get_by_index(0).expect("a name"),
        declared: row.try_get_by_index(1).expect("a type"),
        may_be_null: row.try_get_by_index::<i64>(2).expect("a number") == 1,
        parent: row.try_get_by_index(3).ok().zip(row.try_get_by_index(4).ok()),
    };
    found.iter().map(told).collect()
}

/// An odd value for a column; each row of a table has others.
fn odd(table: &str, column: &Told, row: usize) -> Value {
    let largest = if column.declared == "integer" { i64::from(i32::MAX) } else { i64::MAX };
    let smallest = if column.declared == "integer" { i64::from(i32::MIN) } else { i64::MIN };
    // What the schema asks for.
    match (table, &*column.name) {
        ("access_token" | "narrowed_token", "role") => {
            return Value::String((row == 2).then(|| "viewer".to_owned()));
        }
        ("round", "position") => return 0_i64.into(),
        ("round", "total") => return if row == 1 { largest } else { 0 }.into(),
        ("attempt", "round") if row == 0 => return (3 * WEEK + 5).into(),
        _ => {}
    }
    let is_null = row == 2 && column.may_be_null;
    let (table, name) = column.parent.as_ref().map_or((table, &*column.name), |(table, name)| (table, name));
    match &*column.declared {
        "text" => Value::String((!is_null).then(|| match row {
            0 => format!("{table}.{name}"),
            1 => format!("ü\u{1f600} '\"\\ \r\n\t\u{1}\u{7f}\u{feff} {table}.{name}"),
            2 => format!("B{table}.{name}"),
            _ => String::new(),
        })),
        "blob" => Value::Bytes((!is_null).then(|| match row {
            0 => vec![0, 159, 146, 150, 255, 0],
            1 => (0..=255).cycle().take(70_000).collect(),
            2 => b"text".to_vec(),
            _ => Vec::new(),
        })),
        "boolean" => Value::Bool((!is_null).then_some(row.is_multiple_of(2))),
        _ => Value::BigInt((!is_null).then_some([1, largest, 0, smallest][row])),
    }
}

/// A SQLite file in which every table is filled with odd values.
async fn filled() -> Home {
    let home = Home::file();
    schema::up(home.url()).await.expect("up");
    let connection = home.raw().await;
    for table in COPIED {
        let columns = columns(&connection, table).await;
        let names: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let places: Vec<String> = (1..=columns.len()).map(|place| format!("${place}")).collect();
        let text = format!("insert into {table} ({}) values ({})", names.join(", "), places.join(", "));
        for row in 0..ODD {
            let values = columns.iter().map(|column| odd(table, column, row));
            let statement = Statement::from_sql_and_values(DbBackend::Sqlite, &text, values);
            connection.execute_raw(statement).await.unwrap_or_else(|error| panic!("{table}: {error}"));
        }
    }
    let numbers = format!("with recursive v(n) as (select 1 union all select n + 1 from v where n < {MANY})");
    for text in [
        format!(
            "{numbers} insert into blob (id, sha256, size, is_text, used_at) select 'b' || n, 's', n, n % 2, n from v"
        ),
        format!(
            "{numbers} insert into settled (cursor_id, round, from_position, to_position, settled_at)
             select 'cursor.id', n % 7, n + 10, n, 1 from v"
        ),
        "insert into lease (shard, epoch, taken_at) values ('all', 7, 5)".to_owned(),
    ] {
        connection.execute_unprepared(&text).await.expect("filled");
    }
    connection.close().await.expect("closed");
    home
}

/// Every value of a SQLite file, as SQLite writes it down.
async fn dump(home: &Home) -> BTreeMap<&'static str, Vec<String>> {
    let connection = home.raw().await;
    let mut all = BTreeMap::new();
    for table in COPIED {
        let columns = columns(&connection, table).await;
        let values: Vec<String> =
            columns.iter().map(|column| format!("quote(\"{}\")", column.name)).collect();
        let text = format!("select {} as line from {table} order by line", values.join(" || '|' || "));
        all.insert(table, texts(&connection, &text).await);
    }
    connection.close().await.expect("closed");
    all
}

#[tokio::test]
async fn every_table_is_copied_or_left_behind_on_purpose_and_stands_behind_those_it_refers_to() {
    let home = Home::file();
    schema::up(home.url()).await.expect("up");
    let connection = home.raw().await;
    let mut listed: Vec<String> = COPIED.iter().chain(&OF_PROCESSES).map(|name| (*name).to_owned()).collect();
    listed.sort();
    let there = "select name from sqlite_schema where type = 'table' and name <> 'seaql_migrations'
                 and name not like 'sqlite_%' order by name";
    assert_eq!(texts(&connection, there).await, listed);
    for (index, table) in COPIED.iter().enumerate() {
        for (parent, _) in columns(&connection, table).await.into_iter().filter_map(|column| column.parent) {
            assert!(COPIED[..index].contains(&&*parent), "{table} refers to {parent}");
        }
    }
    let counting = "select count(*) from sqlite_schema where sql like '%autoincrement%'";
    assert_eq!(
        number(&connection, counting).await,
        0,
        "where numbers are counted by a table, copies go on counting"
    );
    let Some(home) = Home::server().await else { return };
    let connection = home.raw().await;
    let there =
        "select cast(relname as text) from pg_class where relkind in ('r', 'p') and not relispartition
                 and relnamespace = current_schema()::regnamespace and relname <> 'seaql_migrations'
                 order by relname";
    assert_eq!(texts(&connection, there).await, listed);
    let counting =
        "select count(*) from pg_class where relkind = 'S' and relnamespace = current_schema()::regnamespace";
    assert_eq!(number(&connection, counting).await, 0, "where sequences count, copies go on counting");
}

#[tokio::test]
async fn every_value_that_a_column_can_hold_arrives_in_the_other_database_and_comes_back() {
    let first = filled().await;
    let before = dump(&first).await;
    assert!(before.values().all(|rows| rows.len() >= ODD));
    let file = Home::file();
    let compared = copy(first.url(), file.url()).await.expect("copied");
    assert_eq!(compared.iter().map(|table| table.table).collect::<Vec<_>>(), COPIED);
    let rows = |compared: &[Compared]| compared.iter().map(|table| table.source.rows).sum::<u64>();
    assert_eq!(rows(&compared), (COPIED.len() * ODD) as u64 + 2 * MANY);
    assert!(dump(&file).await == before, "from a file into a file");

    let Some(database) = cluster::database(None) else { return };
    let Some(migrated) = Home::server().await else { return };
    let back = Home::file();
    for (from, to) in
        [(file.url(), database.url.as_str()), (&database.url, migrated.url()), (migrated.url(), back.url())]
    {
        let again = copy(from, to).await.expect("copied");
        assert_eq!(again, compared, "the same digests on both databases");
    }
    assert!(dump(&back).await == before, "over two databases of a server and back");
    let connection = migrated.raw().await;
    assert_eq!(number(&connection, "select count(*) from attempt_week_3").await, 1, "in its week");
    assert_eq!(number(&connection, "select count(*) from attempt_rest").await, 2, "of no week");
}

#[tokio::test]
async fn what_lies_in_partitions_is_read_a_few_times_however_much_it_is() {
    const ROWS: i64 = 10_000;
    let Some(server) = Home::server().await else { return };
    schema::up(server.url()).await.expect("up");
    let connection = server.raw().await;
    // A partition that is empty costs nothing to read as a whole, which makes a sort of all look cheap.
    let text = format!(
        "create table attempt_week_5 partition of attempt for values from ({}) to ({});
         insert into attempt (owner_kind, owner_id, round, position, number, delivery_id, item_failure, excerpt,
             took_ms, ended_at)
         select 'cursor', 'cur_' || n % 7, n % 2 + {}, n, 1, 'dlv_' || n, false, '', 1, n
         from generate_series(1, {ROWS}) n;
         analyze attempt",
        5 * WEEK,
        6 * WEEK,
        5 * WEEK
    );
    connection.execute_unprepared(&text).await.expect("filled");
    copy(server.url(), Home::file().url()).await.expect("copied");
    let text =
        "select cast(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) as bigint) from pg_stat_user_tables
                where schemaname = current_schema() and relname like 'attempt_%'";
    let read = number(&connection, text).await;
    assert!(read >= 2 * ROWS, "once to be copied, once to be compared: {read}");
    assert!(read <= 6 * ROWS, "{read}");
}

async fn what_was_sealed_opens_in_the_copy_and_work_goes_on(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("created");
    let watch = watch(&store, &app.id, 1, Some("a credential")).await;
    store.close().await;
    let file = Home::file();
    copy(home.url(), file.url()).await.expect("copied");
    // The keyring from before the copy.
    let moved = home.open_at(file.url(), 2).await.expect("opened");
    assert_eq!(moved.app(&app.id).await.expect("read").expect("there").keys[0].expose(), "signing1");
    let lane = moved.lane(&watch.cursors[0].id).await.expect("its credential opens");
    assert!(lane.head.is_some(), "the head that was seen is known");
    moved.create_app(&new_app(2)).await.expect("it is written to");
}

async fn who_still_lives_in_the_source_writes_nothing_after_the_copy(home: Home) {
    let older = home.open(1).await.expect("opened");
    older.create_app(&new_app(1)).await.expect("created");
    let file = Home::file();
    copy(home.url(), file.url()).await.expect("copied");
    let late = older.create_app(&new_app(2)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    home.open(3).await.expect("who starts there again may").create_app(&new_app(2)).await.expect("created");
}

#[tokio::test]
async fn no_epoch_of_before_stands_again_whichever_way_the_database_went() {
    let epochs =
        async |home: &Home, what: &str| number(&home.raw().await, &format!("select {what} from lease")).await;
    let first = filled().await;
    let (Some(server), Some(emptied)) = (Home::server().await, Home::server().await) else { return };
    copy(first.url(), server.url()).await.expect("copied");
    assert_eq!(epochs(&server, "count(*)").await, 257);
    assert_eq!(epochs(&server, "min(epoch)").await, 8);
    assert_eq!(epochs(&first, "epoch").await, 8, "the source is fenced off too");
    let held = "update lease set epoch = 90, owner = 'rpl_x', expires_at = 9e15 where shard = '17'";
    server.raw().await.execute_unprepared(held).await.expect("a replica held it");
    let file = Home::file();
    copy(server.url(), file.url()).await.expect("copied");
    assert_eq!((epochs(&file, "count(*)").await, epochs(&file, "epoch").await), (1, 91));
    // A database that had more before it was emptied.
    emptied
        .raw()
        .await
        .execute_unprepared("update lease set epoch = 1000 where shard = '3'")
        .await
        .expect("set");
    copy(file.url(), emptied.url()).await.expect("copied");
    assert_eq!((epochs(&emptied, "min(epoch)").await, epochs(&emptied, "max(epoch)").await), (1001, 1001));
    assert_eq!(epochs(&emptied, "count(owner)").await, 0);
}

async fn a_target_that_holds_anything_is_left_alone(target: Home) {
    let source = filled().await;
    let store = target.open(1).await.expect("opened");
    store.close().await;
    let refused = copy(source.url(), target.url()).await;
    assert!(matches!(refused, Err(TransferError::NotEmpty("canary"))), "{refused:?}");
    let again = target.open(2).await.expect("it opens as before");
    assert!(again.apps(None, 10).await.expect("read").is_empty());
    again.close().await;
    let same = copy(target.url(), target.url()).await;
    assert!(matches!(same, Err(TransferError::Same)), "{same:?}");
    let newer = "insert into seaql_migrations (version, applied_at) values ('m29990101_000000_future', 1)";
    target.raw().await.execute_unprepared(newer).await.expect("written");
    for (from, to) in [(source.url(), target.url()), (target.url(), Home::file().url())] {
        let refused = copy(from, to).await;
        let (Err(TransferError::Target(why)) | Err(TransferError::Source(why))) = refused else {
            panic!("{refused:?}")
        };
        assert!(matches!(why, OpenError::NewerSchema(_)), "{why}");
    }
}

async fn a_source_of_an_older_version_is_refused_and_nothing_is_made(source: Home) {
    schema::up(source.url()).await.expect("up");
    schema::down(source.url(), 1).await.expect("down");
    let target = Home::file();
    let refused = copy(source.url(), target.url()).await;
    assert!(matches!(refused, Err(TransferError::OlderSource(1))), "{refused:?}");
    assert!(!target.path().join("tidings.db").exists());
    let missing = copy(target.url(), source.url()).await;
    assert!(matches!(missing, Err(TransferError::Source(OpenError::Address(_)))), "{missing:?}");
}

#[tokio::test]
async fn a_source_that_somebody_uses_is_refused() {
    let file = filled().await;
    let connection = file.raw().await;
    let lock = connection.begin().await.expect("begun");
    lock.execute_unprepared("update lease set taken_at = taken_at").await.expect("locked");
    let refused = copy(file.url(), Home::file().url()).await;
    assert!(matches!(refused, Err(TransferError::InUse(_))), "{refused:?}");
    lock.rollback().await.expect("unlocked");

    let Some(server) = Home::server().await else { return };
    let connection = server.raw().await;
    let replica = "insert into replica (id, name, version, works, started_at, seen_at, life_ms) values
                   ('rpl_x', 'host 17', '1', true, 0, extract(epoch from clock_timestamp()) * 1000, 60000)";
    connection.execute_unprepared(replica).await.expect("one that lives");
    let target = Home::file();
    let refused = copy(server.url(), target.url()).await.expect_err("refused").to_string();
    assert!(refused.contains("in use by host 17"), "{refused}");
    assert!(!target.path().join("tidings.db").exists());
    connection.execute_unprepared("update replica set life_ms = -1").await.expect("one that is silent");
    let lock = connection.begin().await.expect("begun");
    lock.execute_unprepared("update lease set taken_at = taken_at").await.expect("locked");
    let refused = copy(server.url(), target.url()).await;
    assert!(matches!(refused, Err(TransferError::InUse(_))), "{refused:?}");
    lock.rollback().await.expect("unlocked");
    copy(server.url(), target.url()).await.expect("nobody is left");
    let left = "select count(*) from replica";
    assert_eq!(number(&target.raw().await, left).await, 0, "processes stay behind");
}

async fn a_copy_that_is_cut_off_is_refused_by_a_start_and_made_anew(target: Home) {
    let source = filled().await;
    for (step, after) in [("copying", 500), ("comparing", 1), ("comparing", 2 * MANY)] {
        let (cut, told) = (Notify::new(), AtomicU64::new(0));
        let tell = |now: &'static str, rows: u64| {
            if now == step && rows >= after {
                told.fetch_add(1, Ordering::SeqCst);
                cut.notify_one();
            }
        };
        tokio::select! {
            biased;
            () = cut.notified() => {}
            ended = transfer(source.url(), target.url(), NOW, &tell) => panic!("{ended:?}"),
        }
        assert!(told.load(Ordering::SeqCst) > 0);
        // A start may have to wait until the server noticed.
        let refused = target.open(1).await.err().expect("refused");
        assert!(matches!(refused, OpenError::UnfinishedCopy), "{step}: {refused}");
        let asked = schema::status(target.url()).await;
        assert!(matches!(asked, Err(OpenError::UnfinishedCopy)), "{asked:?}");
        assert!(matches!(schema::old_rounds(target.url()).await, Err(OpenError::UnfinishedCopy)));
        let onwards = copy(target.url(), Home::file().url()).await;
        assert!(matches!(onwards, Err(TransferError::Source(OpenError::UnfinishedCopy))), "{onwards:?}");
    }
    let compared = copy(source.url(), target.url()).await.expect("the same call ends it");
    assert!(compared.iter().all(Compared::is_equal));
    assert!(schema::status(target.url()).await.expect("status").iter().all(|step| step.applied));
    let full = copy(source.url(), target.url()).await;
    assert!(matches!(full, Err(TransferError::NotEmpty(_))), "a whole one is not begun again: {full:?}");
}

async fn what_arrives_otherwise_is_found_and_never_used(target: Home) {
    let source = filled().await;
    schema::up(target.url()).await.expect("up");
    let connection = target.raw().await;
    let (spoil, mend): (&[&str], &str) = match connection.get_database_backend() {
        DbBackend::Postgres => (
            &[
                "create function spoil() returns trigger language plpgsql as
                 $$ begin new.name := new.name || ' '; return new; end $$",
                "create trigger spoil before insert on app for each row execute function spoil()",
                "create rule lose as on insert to receipt_body do instead nothing",
            ],
            "drop trigger spoil on app; drop rule lose on receipt_body",
        ),
        _ => (
            &[
                "create trigger spoil after insert on app begin
                 update app set name = name || ' ' where id = new.id; end",
                "create trigger lose after insert on receipt_body begin
                 delete from receipt_body where receipt_id = new.receipt_id; end",
            ],
            "drop trigger spoil; drop trigger lose",
        ),
    };
    for text in spoil {
        connection.execute_unprepared(text).await.expect("spoilt");
    }
    let found = copy(source.url(), target.url()).await;
    let Err(TransferError::Differs(tables)) = &found else { panic!("{found:?}") };
    let differ: Vec<_> = tables.iter().filter(|table| !table.is_equal()).map(|table| table.table).collect();
    assert_eq!(differ, ["app", "receipt_body"]);
    let lost = tables.iter().find(|table| table.table == "receipt_body").expect("there");
    assert_eq!((lost.source.rows, lost.target.rows), (4, 0));
    let refused = target.open(1).await.err().expect("refused");
    assert!(matches!(refused, OpenError::UnfinishedCopy), "{refused}");
    connection.execute_unprepared(mend).await.expect("mended");
    copy(source.url(), target.url()).await.expect("what was there is written over");
}

#[tokio::test]
async fn what_a_column_cannot_hold_is_named_and_not_changed() {
    for (text, named) in [
        ("update watch set is_private = 2 where id = 'watch.id'", "watch cannot be copied"),
        ("update blob set size = 'many' where id = 'b7'", "blob cannot be copied"),
        ("update app set name = x'ff' where id = 'app.id'", "app cannot be copied"),
    ] {
        let source = filled().await;
        source.raw().await.execute_unprepared(text).await.expect("damaged");
        let refused = copy(source.url(), Home::file().url()).await.expect_err(text).to_string();
        assert!(refused.contains(named), "{refused}");
    }
    let Some(database) = cluster::database(None) else { return };
    let source = filled().await;
    let text = "update app set name = 'a' || char(0) || 'b' where id = 'app.id'";
    source.raw().await.execute_unprepared(text).await.expect("damaged");
    let refused = copy(source.url(), &database.url).await.expect_err("refused").to_string();
    assert!(refused.contains("name of the row 'app.id' holds a NUL"), "{refused}");
    copy(source.url(), Home::file().url()).await.expect("a file takes it");
}

on_both! {
    what_was_sealed_opens_in_the_copy_and_work_goes_on
    who_still_lives_in_the_source_writes_nothing_after_the_copy
    a_target_that_holds_anything_is_left_alone
    a_source_of_an_older_version_is_refused_and_nothing_is_made
    a_copy_that_is_cut_off_is_refused_by_a_start_and_made_anew
    what_arrives_otherwise_is_found_and_never_used
}
