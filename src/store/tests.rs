//! The contract suite over SQLite, and what only a real database can show: on SQLite and PostgreSQL, or
//! on the one that it is about.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use tidings_actors::{
    model::secret::Secret,
    model::sink::SinkAddress,
    model::view::View,
    ports::{
        AppStore, Begun, DeliverySettings, EndpointAccess, KeyedRequest, LaneStore, LetterStore, NewApp,
        NewWatch, Reach, Ref, RefListing, RepositoryFacts, RequestStore, Selector, SinkKey, SourceStore,
        Start, StoreError, StoredAnswer, Streak, UpkeepStore, Watch, WatchStore,
    },
    testing::{ManualClock, MemoryMeter, SeededRandom},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, ObjectId, ReplicaId, Sha256Hash, WatchId},
    kind::{BranchGone, HistoryMode, SelectorKind},
};
use tidings_secrets::Keyring;
use ulid::Ulid;

use super::{OpenError, SqlStore};
use crate::database::schema;

mod access;
mod administration;
mod agreement;
mod artifacts;
mod backlog;
mod callbacks;
mod filters;
mod home;
mod hooks;
mod key_shares;
mod keys;
mod leases;
mod ledger;
mod listing;
mod narrowed;
mod postgres;
mod requests;
mod schedules;
mod sinks;
mod slow;
mod start;
mod statuses;
mod subscriptions;
mod tasks;
mod transfer;
mod trouble;
mod upkeep;
mod watch_tasks;
mod workers;

use home::{Home, on_both};
use leases::the_rows_of_a_shard_are_found_by_the_ids_of_their_repositories;

const MAIN: &str = "refs/heads/main";

async fn store() -> (SqlStore, Home) {
    let home = Home::file();
    (home.open(1).await.expect("opened"), home)
}

tidings_actors::store_contract_tests!(store);

async fn number(connection: &DatabaseConnection, text: &str) -> i64 {
    super::database::rows::number(connection, "test", text, vec![]).await.expect("a number")
}

fn new_app(number: u128) -> NewApp {
    NewApp {
        id: AppId::new(Ulid::from_parts(1, number)),
        name: "an app".into(),
        email: "a@example.org".into(),
        is_from_anyone: false,
        receives_at: SinkAddress::Pull,
        website: None,
        description: None,
        token_public_id: format!("public{number}"),
        token_hash: Sha256Hash::of(b"token"),
        signing_key: Secret::new(format!("signing{number}")),
        access: EndpointAccess::default(),
        delivery: DeliverySettings::default(),
        created_at: Timestamp(1000),
        answer: None,
    }
}

fn listing(commit: u8) -> RefListing {
    let main = Ref { name: MAIN.into(), commit: ObjectId::new([commit; 20]) };
    RefListing { refs: vec![main], head: Some(MAIN.into()), has_refs: true, ..RefListing::default() }
}

async fn watch(store: &SqlStore, app: &AppId, number: u128, credential: Option<&str>) -> Watch {
    store.register_watch(&new_watch(app, number, credential)).await.expect("registered")
}

fn new_watch(app: &AppId, number: u128, credential: Option<&str>) -> NewWatch {
    let id = WatchId::new(Ulid::from_parts(2, number));
    NewWatch {
        facts: RepositoryFacts {
            repository_id: id.clone(),
            github_url: "https://git.example/a/b".into(),
            owner: "a".into(),
            name: "b".into(),
        },
        id,
        app: app.clone(),
        url: format!("https://git.example/a/b{number}"),
        is_private: credential.is_some(),
        credential: credential.map(|text| Secret::new(text.into())),
        selector: Selector { kind: SelectorKind::DefaultBranch, value: String::new() },
        alias: String::new(),
        may_replace: true,
        sink: None,
        status: None,
        view: View::default(),
        mode: HistoryMode::Net,
        on_branch_gone: BranchGone::Keep,
        start: Start::All,
        listing: listing(1),
        deliver_after: Timestamp(0),
        created_at: Timestamp(1000),
    }
}

#[tokio::test]
async fn each_transaction_of_the_writer_is_told_to_its_meter() {
    let (store, _home) = store().await;
    let meter = Arc::new(MemoryMeter::default());
    let store = store.with_meter(meter.clone());
    store.create_app(&new_app(1)).await.expect("created");
    assert_eq!(meter.measured().commits, [(true, 1)]);
}

#[tokio::test]
async fn an_older_process_is_fenced_off_a_file() {
    let home = Home::file();
    let older = home.open(1).await.expect("opened");
    older.create_app(&new_app(1)).await.expect("created");
    let newer = home.open(2).await.expect("opened");
    assert!(matches!(older.create_app(&new_app(2)).await, Err(StoreError::Fenced)));
    let cursor = tidings_entity::id::CursorId::new(Ulid::from_parts(1, 1));
    let finished = older.finish_round(&cursor, 1, Timestamp(1), false).await;
    assert!(matches!(finished, Err(StoreError::Fenced)));
    let settlement = tidings_actors::ports::Settlement {
        cursor: cursor.clone(),
        round: 1,
        position: 1,
        parked: vec![],
        streak: Streak::default(),
        above: vec![],
        absorbs: false,
        acknowledged: true,
        standing: tidings_actors::ports::Standing::Unchanged,
        redrive: Vec::new(),
        at: Timestamp(1),
    };
    assert!(matches!(older.settle(settlement).await, Err(StoreError::Fenced)));
    assert!(matches!(older.advance(&cursor, 0, None).await, Err(StoreError::Fenced)));
    newer.create_app(&new_app(2)).await.expect("created");
    assert_eq!(newer.apps(None, 10).await.expect("apps").len(), 2, "nothing of the older one came through");
}

#[tokio::test]
async fn every_acknowledged_write_is_on_disk_without_a_clean_close() {
    let (store, home) = store().await;
    let apps: Vec<NewApp> = (0..100).map(new_app).collect();
    for answer in join_all(apps.iter().map(|app| store.create_app(app))).await {
        answer.expect("created");
    }
    let copy = Home::file();
    // What a killed process leaves: the files as they are, nothing flushed, nothing closed.
    for name in ["tidings.db", "tidings.db-wal", "keyring"] {
        std::fs::copy(home.path().join(name), copy.path().join(name)).expect("copied");
    }
    let again = copy.open(2).await.expect("opened");
    assert_eq!(again.apps(None, 1000).await.expect("apps").len(), 100);
    store.close().await;
    assert!(matches!(store.create_app(&new_app(200)).await, Err(StoreError::Unavailable(_))));
    assert!(!home.path().join("tidings.db-wal").exists(), "a clean close leaves one file");
}

async fn a_verb_that_fails_changes_nothing_of_the_others_in_its_turn(home: Home) {
    let store = home.open(1).await.expect("opened");
    store.create_app(&new_app(0)).await.expect("created");
    let mut apps: Vec<NewApp> = (1..64).map(new_app).collect();
    for app in apps.iter_mut().step_by(3) {
        app.token_public_id = "public0".into();
    }
    let answers = join_all(apps.iter().map(|app| store.create_app(app))).await;
    for (index, answer) in answers.iter().enumerate() {
        match answer {
            Err(StoreError::Conflict(_)) => assert_eq!(index % 3, 0),
            answer => assert!(answer.is_ok() && index % 3 != 0, "{index}: {answer:?}"),
        }
    }
    assert_eq!(store.apps(None, 1000).await.expect("apps").len(), 1 + 42);
}

async fn a_schema_of_a_newer_version_is_refused(home: Home) {
    let store = home.open(1).await.expect("opened");
    store.close().await;
    let connection = home.raw().await;
    let text = "insert into seaql_migrations (version, applied_at) values ('m29990101_000000_future', 1)";
    connection.execute_unprepared(text).await.expect("written");
    connection.close().await.expect("closed");
    let refused = home.open(2).await.err().expect("refused");
    assert!(
        matches!(&refused, OpenError::NewerSchema(step) if step == "m29990101_000000_future"),
        "{refused}"
    );
    assert!(matches!(schema::up(home.url()).await, Err(OpenError::NewerSchema(_))));
}

async fn another_keyring_is_refused_and_a_rotated_one_is_not(home: Home) {
    let store = home.open(1).await.expect("opened");
    store.create_app(&new_app(1)).await.expect("created");
    store.close().await;
    let path = home.path().join("keyring");
    let right = std::fs::read(&path).expect("the keyring");
    let keyring = Keyring::open(&path).expect("opened");
    keyring.rotate(&SeededRandom::new(9)).expect("rotated");
    let again = home.open(2).await.expect("the rotated keyring knows the old key");
    let app = again.app(&new_app(1).id).await.expect("read").expect("there");
    assert_eq!(app.keys[0].expose(), "signing1");
    again.close().await;
    std::fs::remove_file(&path).expect("removed");
    let refused = home.open(77).await.err().expect("refused");
    assert!(matches!(refused, OpenError::WrongKey(_)), "{refused}");
    std::fs::write(&path, right).expect("written");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
    home.open(3).await.expect("the right one still opens");
}

async fn a_secret_moved_to_another_row_does_not_open(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("created");
    let first = watch(&store, &app.id, 1, Some("first secret")).await;
    let second = watch(&store, &app.id, 2, Some("second secret")).await;
    let third = watch(&store, &app.id, 3, None).await;
    let connection = home.raw().await;
    for column in ["secret", "fingerprint"] {
        let found = format!("select count(*) from credential where instr({column}, 'secret') > 0");
        assert_eq!(number(&connection, &found).await, 0, "nothing in clear in {column}");
    }
    for swap in [
        "create table kept as select id, secret from credential",
        "update credential set secret = (select kept.secret from kept where kept.id <> credential.id)",
    ] {
        connection.execute_unprepared(swap).await.expect("swapped");
    }
    let lane = store.lane(&first.cursors[0].id).await;
    assert!(matches!(lane, Err(StoreError::Undecodable { table: "credential", .. })), "{lane:?}");
    assert!(store.sources(&second.repository).await.expect("read").is_empty());
    let readable = store.repositories(&Reach::All).await.expect("read");
    assert_eq!(readable.len(), 1, "bad rows hide no others");
    assert_eq!(readable[0].0, third.repository);
}

async fn a_row_that_cannot_be_read_hides_no_other(home: Home) {
    let store = home.open(1).await.expect("opened");
    let app = new_app(1);
    store.create_app(&app).await.expect("created");
    let bad = watch(&store, &app.id, 1, None).await;
    let good = watch(&store, &app.id, 2, None).await;
    let connection = home.raw().await;
    let damage = format!("update watch set mode = 'sideways' where id = '{}'", bad.id);
    connection.execute_unprepared(&damage).await.expect("damaged");
    let watches = store.watches(&app.id, None, 10).await.expect("read");
    assert_eq!(watches.iter().map(|watch| &watch.id).collect::<Vec<_>>(), [&good.id]);
    let one = store.watch(&app.id, &bad.id).await;
    assert!(matches!(&one, Err(StoreError::Undecodable { table: "watch", .. })), "{one:?}");
    let lane = store.lane(&bad.cursors[0].id).await;
    assert!(matches!(lane, Err(StoreError::Undecodable { .. })), "{lane:?}");
    let damage = format!("update cursor set id = 'nonsense' where watch_id = '{}'", bad.id);
    connection.execute_unprepared(&damage).await.expect("damaged");
    let pending = store.pending(None, &Reach::All).await.expect("read");
    assert_eq!(pending, [(SinkKey::own(&app.id), good.cursors[0].id.clone())]);
}

#[tokio::test]
async fn an_unchanged_poll_writes_no_row() {
    let (store, home) = store().await;
    let app = new_app(1);
    store.create_app(&app).await.expect("created");
    let watch = watch(&store, &app.id, 1, None).await;
    let connection = home.raw().await;
    let version = async || number(&connection, "pragma data_version").await;
    let before = version().await;
    for _ in 0..10 {
        assert!(!store.move_heads(&watch.source, &listing(1), Timestamp(9)).await.expect("polled").changed);
    }
    assert_eq!(version().await, before, "nothing was written");
    let lock = connection.begin().await.expect("begun");
    lock.execute_unprepared("update lease set taken_at = taken_at").await.expect("locked");
    let same = listing(1);
    let polled = store.move_heads(&watch.source, &same, Timestamp(9));
    let polled = tokio::time::timeout(Duration::from_secs(4), polled).await;
    polled.expect("not even a lock was asked for").expect("polled");
    lock.rollback().await.expect("unlocked");
    assert!(store.move_heads(&watch.source, &listing(2), Timestamp(9)).await.expect("polled").changed);
    assert_ne!(version().await, before, "this one did");
}

#[tokio::test]
async fn a_full_disk_fails_verbs_and_heals_without_a_restart() {
    let (store, _folder) = store().await;
    store.create_app(&new_app(1)).await.expect("created");
    limit_pages(&store).await;
    let mut big = new_app(2);
    big.description = Some("x".repeat(1 << 20));
    let full = store.create_app(&big).await;
    assert!(matches!(&full, Err(StoreError::Unavailable(reason)) if reason.contains("full")), "{full:?}");
    assert_eq!(store.apps(None, 10).await.expect("readers go on").len(), 1);
    store.create_app(&big).await.expect("a new connection has no limit");
    limit_pages(&store).await;
    let mut apps: Vec<NewApp> = (3..60).map(new_app).collect();
    apps[30].description = Some("x".repeat(1 << 20));
    let answers = join_all(apps.iter().map(|app| store.create_app(app))).await;
    let stored = store.apps(None, 1000).await.expect("apps");
    for (app, answer) in apps.iter().zip(&answers) {
        assert_eq!(stored.iter().any(|stored| stored.id == app.id), answer.is_ok(), "{answer:?}");
    }
    assert!(answers[30].is_err());
    store.create_app(&apps[30]).await.expect("healed");
}

/// Fills the disk as far as SQLite knows: the limit belongs to the connection that writes now.
async fn limit_pages(store: &SqlStore) {
    let limit = store.writer.verb(|transaction, _context| {
        Box::pin(async move {
            super::database::rows::execute(transaction, "test", "pragma max_page_count = 1", vec![]).await
        })
    });
    limit.await.expect("limited");
}

async fn a_verb_that_panics_fails_alone(home: Home) {
    let store = home.open(1).await.expect("opened");
    let panics = store.writer.verb(|transaction, context| {
        Box::pin(async move {
            super::apps::create(transaction, context, new_app(1)).await?;
            if context.clock.now() < Timestamp(1 << 50) {
                panic!("a broken invariant");
            }
            Ok(())
        })
    });
    let other = new_app(2);
    let (panicked, created) = tokio::join!(panics, store.create_app(&other));
    assert!(matches!(panicked, Err(StoreError::Unavailable(_))));
    created.expect("created");
    let apps = store.apps(None, 10).await.expect("apps");
    assert_eq!(apps.iter().map(|app| &app.id).collect::<Vec<_>>(), [&other.id]);
}

#[tokio::test]
async fn a_locked_database_is_waited_for() {
    let (store, home) = store().await;
    let connection = home.raw().await;
    let lock = connection.begin().await.expect("begun");
    lock.execute_unprepared("update lease set taken_at = 1").await.expect("locked");
    let first = new_app(1);
    let waiting = tokio::time::timeout(Duration::from_millis(200), store.create_app(&first));
    assert!(waiting.await.is_err(), "the writer waits");
    store.ping().await.expect("readers do not");
    assert!(store.apps(None, 10).await.expect("readers do not").is_empty());
    lock.commit().await.expect("unlocked");
    store.create_app(&new_app(2)).await.expect("goes on");
    assert_eq!(store.apps(None, 10).await.expect("apps").len(), 2, "the one that waited was not lost");
}

#[tokio::test]
async fn the_schema_goes_down_and_up_again() {
    let home = Home::file();
    let url = home.url();
    assert!(matches!(schema::status(url).await, Err(OpenError::Address(_))), "there is none");
    let taken = schema::up(url).await.expect("up");
    assert_eq!(schema::up(url).await.expect("up again"), Vec::<String>::new());
    let applied = |steps: Vec<schema::Step>| steps.iter().filter(|step| step.applied).count();
    assert_eq!(applied(schema::status(url).await.expect("status")), taken.len());
    schema::down(url, u32::try_from(taken.len()).expect("few")).await.expect("down");
    let connection = home.raw().await;
    let tables = "select count(*) from sqlite_schema where type = 'table'
                  and name not in ('seaql_migrations', 'sqlite_sequence')";
    assert_eq!(number(&connection, tables).await, 0);
    assert_eq!(applied(schema::status(url).await.expect("status")), 0);
    home.open(1).await.expect("a start brings it up").close().await;
}

/// What was recorded before answers were kept is still there, without one.
async fn attempts_of_before_answers_were_kept_have_none(home: Home) {
    let url = home.url();
    schema::up(url).await.expect("up");
    let older = schema::status(url).await.expect("status");
    let step = older.iter().position(|step| step.name.ends_with("keep_answers")).expect("the step");
    schema::down(url, u32::try_from(older.len() - step).expect("few")).await.expect("down");
    let connection = home.raw().await;
    let text = "insert into attempt (owner_kind, owner_id, round, position, number, delivery_id, status,
                item_failure, excerpt, took_ms, ended_at)
                values ('cursor', 'cur_00000000000000000000000001', 1, 0, 1, 'dlv_a', 500, true, 'why', 3, 4)";
    connection.execute_unprepared(text).await.expect("a row");
    connection.close().await.expect("closed");
    let store = home.open(1).await.expect("a start brings it up");
    let cursor = "cur_00000000000000000000000001".parse().expect("an id");
    let found = store.attempts(&cursor, 1, 0, 10).await.expect("read");
    assert_eq!((found.len(), found[0].status, found[0].excerpt.as_str()), (1, Some(500), "why"));
    assert!(found[0].answer.is_none());
    store.close().await;
}

#[tokio::test]
async fn the_database_is_private_durable_and_recent() {
    use std::os::unix::fs::PermissionsExt;
    let (store, home) = store().await;
    for name in ["tidings.db", "tidings.db-wal", "tidings.db-shm", "keyring"] {
        let mode = std::fs::metadata(home.path().join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let read = async |text: &str| super::database::rows::number(&store.readers, "test", text, vec![]).await;
    assert_eq!(read("pragma query_only").await.expect("read"), 1);
    assert_eq!(read("pragma synchronous").await.expect("read"), 2, "full");
    assert_eq!(read("pragma foreign_keys").await.expect("read"), 1);
    let text = "select sqlite_version() as version";
    let row = store.readers.query_one_raw(sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, text));
    let version: String = row.await.expect("read").expect("a row").try_get("", "version").expect("text");
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().expect("a number")).collect();
    assert!(parts >= vec![3, 51, 3], "{version} may damage a database under write-ahead logging");
}

#[tokio::test]
async fn an_address_that_forgets_or_is_unknown_is_refused() {
    let home = Home::file();
    let keyring = Arc::new(Keyring::create(&home.path().join("k"), &SeededRandom::new(1)).expect("made"));
    for url in ["sqlite::memory:", "sqlite:?mode=memory", "mysql://x", "", "/tmp/x.db"] {
        let clock = Arc::new(ManualClock::new(Timestamp(1)));
        let opened = SqlStore::open(url, keyring.clone(), clock, Arc::new(SeededRandom::new(1))).await;
        assert!(matches!(opened, Err(OpenError::Address(_))), "{url}");
    }
}

async fn an_answer_is_sealed_in_its_place_and_its_key_is_no_row(home: Home) {
    let store = home.open(1).await.expect("opened");
    let request = |key: &str| KeyedRequest {
        owner: AppId::new(Ulid::nil()),
        key: key.into(),
        hash: Sha256Hash::of(b"request"),
    };
    let runner = ReplicaId::new(Ulid::nil());
    let (first, second) = (request("planted key one"), request("planted key two"));
    for (request, body) in [(&first, "planted token one"), (&second, "planted token two")] {
        let begun = store.begin_request(request, Timestamp(1), &runner).await.expect("begun");
        assert!(matches!(begun, Begun::New));
        let answer = StoredAnswer {
            status: 201,
            content_type: Some("planted/type".into()),
            body: Secret::new(body.into()),
        };
        store.end_request(request, Some(&answer)).await.expect("ended");
    }
    let connection = home.raw().await;
    for column in ["owner", "key_hash", "request_hash", "answer"] {
        let found = format!("select count(*) from idempotency where instr({column}, 'planted') > 0");
        assert_eq!(number(&connection, &found).await, 0, "nothing in clear in {column}");
    }
    for swap in [
        "create table kept as select key_hash, answer from idempotency",
        "update idempotency set answer =
         (select kept.answer from kept where kept.key_hash <> idempotency.key_hash)",
    ] {
        connection.execute_unprepared(swap).await.expect("swapped");
    }
    let moved = store.begin_request(&first, Timestamp(2), &runner).await;
    assert!(matches!(moved, Err(StoreError::Undecodable { table: "idempotency", .. })), "{moved:?}");
}

on_both! {
    the_rows_of_a_shard_are_found_by_the_ids_of_their_repositories
    a_verb_that_fails_changes_nothing_of_the_others_in_its_turn
    a_schema_of_a_newer_version_is_refused
    another_keyring_is_refused_and_a_rotated_one_is_not
    a_secret_moved_to_another_row_does_not_open
    a_row_that_cannot_be_read_hides_no_other
    a_verb_that_panics_fails_alone
    attempts_of_before_answers_were_kept_have_none
    an_answer_is_sealed_in_its_place_and_its_key_is_no_row
}
