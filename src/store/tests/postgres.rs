//! The contract suite over PostgreSQL, and what only a server can show.

use std::time::Duration;

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{AppStore, StoreError, UpkeepStore},
    time::Timestamp,
};

use super::{
    home::{Home, cluster},
    schema,
};
use crate::{SqlStore, database::rows};

async fn store() -> Option<(SqlStore, Home)> {
    let home = Home::server().await?;
    Some((home.open(1).await.expect("opened"), home))
}

tidings_actors::store_contract_tests!(store);

async fn number(store: &SqlStore, text: &str) -> i64 {
    rows::number(&store.readers, "test", text, vec![]).await.expect("a number")
}

#[tokio::test]
async fn no_step_is_taken_back_below_servers_that_live_anywhere() {
    let Some(home) = Home::server().await else { return };
    let connection = home.raw().await;
    let replica = "insert into replica (id, name, version, works, started_at, seen_at, life_ms) values
                   ('rpl_x', 'host 17', '1', true, 0, extract(epoch from clock_timestamp()) * 1000, 60000)";
    connection.execute_unprepared(replica).await.expect("one that lives");
    let steps = schema::status(home.url()).await.expect("a status");
    let refused = schema::down(home.url(), 1).await.expect_err("refused").to_string();
    assert!(refused.contains("in use by host 17"), "{refused}");
    assert_eq!(schema::status(home.url()).await.expect("a status"), steps, "nothing was taken back");
    connection.execute_unprepared("update replica set life_ms = -1").await.expect("one that is silent");
    assert_eq!(schema::down(home.url(), 1).await.expect("taken back").len(), 1);
}

#[tokio::test]
async fn readers_cannot_write() {
    let Some((store, _home)) = store().await else { return };
    let text = "update lease set epoch = epoch";
    let refused = rows::execute(&store.readers, "lease", text, vec![]).await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("read-only")),
        "{refused:?}"
    );
    let look = store.snapshot().await.expect("a look");
    let refused = rows::execute(&look, "lease", text, vec![]).await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("read-only")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn texts_are_compared_by_their_bytes_in_every_language_of_the_database() {
    let Some((store, _home)) = store().await else { return };
    let text = "select count(*) from information_schema.columns where table_schema = current_schema()
                and data_type = 'text' and collation_name is distinct from 'C'
                and table_name <> 'seaql_migrations'";
    assert_eq!(number(&store, text).await, 0);
}

#[tokio::test]
async fn several_that_start_together_take_the_steps_once() {
    let Some(database) = cluster::database(None) else { return };
    let starts = (0..4).map(|_| schema::up(&database.url));
    let taken = futures_util::future::join_all(starts).await;
    let taken: Vec<usize> = taken.into_iter().map(|steps| steps.expect("up").len()).collect();
    assert_eq!(taken.iter().filter(|count| **count > 0).count(), 1, "{taken:?}");
}

#[tokio::test]
async fn the_schema_goes_down_and_up_again() {
    let Some(database) = cluster::database(None) else { return };
    assert!(schema::status(&database.url).await.expect("status").iter().all(|step| !step.applied));
    let taken = schema::up(&database.url).await.expect("up");
    assert_eq!(schema::up(&database.url).await.expect("up again"), Vec::<String>::new());
    schema::down(&database.url, u32::try_from(taken.len()).expect("few")).await.expect("down");
    assert!(schema::status(&database.url).await.expect("status").iter().all(|step| !step.applied));
    assert_eq!(schema::up(&database.url).await.expect("up"), taken);
}

#[tokio::test]
async fn a_server_that_forgets_is_refused() {
    let Some(home) = Home::server().await else { return };
    let url = format!("{}&options=-c%20synchronous_commit%3Doff", home.url());
    let refused = home.open_at(&url, 1).await.err().expect("refused");
    assert!(refused.to_string().contains("synchronous_commit is off"), "{refused}");
}

#[tokio::test]
async fn parts_of_attempts_come_and_go_with_their_weeks() {
    const WEEK: i64 = 7 * 24 * 3600 * 1000;
    let Some((store, _home)) = store().await else { return };
    let parts = "select count(*) from pg_inherits where inhparent = 'attempt'::regclass";
    assert_eq!(number(&store, parts).await, 6, "this week, four to come, and the rest");
    let attempt = format!(
        "insert into attempt (owner_kind, owner_id, round, position, number, delivery_id, item_failure, excerpt,
         took_ms, ended_at) values ('cursor', 'cur_1', {WEEK}, 0, 1, 'dlv_a', true, 'why', 3, {WEEK})"
    );
    store.tamper(&attempt).await;
    assert_eq!(number(&store, "select count(*) from attempt_week_1").await, 1);

    let (later, week) = (Timestamp(10 * WEEK), Duration::from_secs(7 * 24 * 3600));
    store.prune(later, week * 20, week * 20, 100).await.expect("pruned");
    assert_eq!(number(&store, parts).await, 7, "the old one that holds something stays");
    assert_eq!(store.prune(later, week, week, 100).await.expect("pruned"), 1);
    assert_eq!(number(&store, parts).await, 6);
    // Rows of a week that nobody foresaw lie in the rest, and their week stays there.
    store.tamper(&attempt.replace(&WEEK.to_string(), &(20 * WEEK).to_string())).await;
    assert_eq!(number(&store, "select count(*) from attempt_rest").await, 1);
    store.prune(Timestamp(20 * WEEK), week, week, 100).await.expect("pruned");
    assert_eq!(number(&store, "select count(*) from attempt").await, 1);
}

#[tokio::test]
async fn a_text_with_a_nul_is_written_without_it() {
    let Some((store, _home)) = store().await else { return };
    let app = tidings_actors::ports::NewApp { name: "a\0b".into(), ..super::new_app(1) };
    store.create_app(&app).await.expect("created");
    assert_eq!(store.app(&app.id).await.expect("read").expect("there").name, "a\u{fffd}b");
    assert!(store.app(&app.id).await.expect("read").is_some());
    let audit = tidings_actors::ports::AuditFilter { actor: Some("\0".into()), ..Default::default() };
    let found = tidings_actors::ports::Administration::audit(&store, &audit, None, 10).await;
    assert!(found.expect("read").is_empty());
}
