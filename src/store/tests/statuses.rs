//! Statuses as rows: who claims them, how apps share a host, what an answer does to a row, and what goes.

use std::collections::BTreeMap;

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{Reach, Shard, StatusKey, StatusRoom, StatusStore, StatusTask, StatusVerdict},
    time::Timestamp,
};
use tidings_entity::{
    id::{RepositoryId, WatchId},
    kind::StatusWord,
};
use ulid::Ulid;

use super::{
    home::{Home, on_both},
    number,
};
use crate::SqlStore;

const NOW: Timestamp = Timestamp(1_000_000);
const UNTIL: Timestamp = Timestamp(1_090_000);
const HOST: &str = "git.example";

fn key(app: u128, commit: u8) -> StatusKey {
    StatusKey {
        watch: WatchId::new(Ulid::from_parts(1, app)),
        commit: tidings_entity::id::ObjectId::new([commit; 20]),
    }
}

fn repository(app: u128) -> RepositoryId {
    RepositoryId::new(Ulid::from_parts(1, app))
}

/// Rows that are due: of each app so many commits.
async fn rows(home: &Home, of: &[(u128, u8)]) {
    let raw = home.raw().await;
    for (app, count) in of {
        for commit in 1..=*count {
            let StatusKey { watch, commit } = key(*app, commit);
            let app_id = format!("app_{}", Ulid::from_parts(1, *app));
            let (repository, cursor) = (repository(*app), format!("cur_{}", Ulid::from_parts(1, *app)));
            raw.execute_unprepared(&format!(
                "insert into commit_status (watch_id, commit_id, app_id, repository_id, cursor_id, kind, host,
                   url, context, wanted, description, tries, count, next_at, is_claimed, updated_at)
                 values ('{watch}', '{commit}', '{app_id}', '{repository}', '{cursor}', 'gitea', '{HOST}',
                   'https://{HOST}/a/b', 'tidings/a/b', 'pending', 'a: 0 of 1', 0, 0, 5, false, 5)"
            ))
            .await
            .expect("a row");
        }
    }
}

async fn claim(store: &SqlStore, reach: &Reach, most: u64, busy: u64, now: Timestamp) -> Vec<StatusTask> {
    let busy = BTreeMap::from([(HOST.to_owned(), busy)]);
    let room = StatusRoom { most, per_host: 4, busy };
    store
        .claim_statuses(reach, &room, now, now.after(std::time::Duration::from_secs(90)))
        .await
        .expect("read")
}

async fn a_claim_is_one_owners_until_it_ends_and_apps_take_turns(home: Home) {
    let store = home.open(1).await.expect("opened");
    rows(&home, &[(1, 9), (2, 2)]).await;
    let first = claim(&store, &Reach::All, 16, 0, NOW).await;
    let of = |app: u128| first.iter().filter(|task| task.key.watch == key(app, 1).watch).count();
    assert_eq!((of(1), of(2)), (2, 2), "one app with many leaves room to one with few");
    assert!(claim(&store, &Reach::All, 16, 4, NOW).await.is_empty(), "the host is busy");
    let next = claim(&store, &Reach::All, 1, 0, NOW).await;
    assert_eq!(next.len(), 1, "no more than there is room for");
    assert!(!first.iter().any(|task| task.key == next[0].key), "nobody claims what is claimed");
    // Whoever claimed them is gone: the claims end, or a process alone gives them back.
    assert_eq!(claim(&store, &Reach::All, 16, 0, UNTIL).await.len(), 4);
    store.release_statuses(UNTIL).await.expect("given back");
    assert_eq!(claim(&store, &Reach::All, 16, 0, UNTIL).await.len(), 4);
}

async fn a_replica_tells_of_its_own_repositories_alone(home: Home) {
    let store = home.open(1).await.expect("opened");
    rows(&home, &[(1, 1), (2, 1)]).await;
    let mine = Reach::These([Shard::of(&repository(2))].into_iter().collect());
    let claimed = claim(&store, &mine, 16, 0, NOW).await;
    let found: Vec<_> = claimed.iter().map(|task| task.repository.clone()).collect();
    assert_eq!(found, [repository(2)]);
}

async fn an_answer_is_written_and_what_fares_the_same_waits_as_long(home: Home) {
    let store = home.open(1).await.expect("opened");
    rows(&home, &[(1, 6), (2, 1)]).await;
    let claimed = claim(&store, &Reach::All, 2, 0, NOW).await;
    let raw = home.raw().await;
    let note = async |key: &StatusKey, verdict| store.note_status(key, &verdict, NOW).await.expect("noted");
    let later = Timestamp(NOW.0 + 30_000);
    note(&key(1, 1), StatusVerdict::Again { at: later, shows: None, is_doubtful: true }).await;
    let waiting = |app: u128| {
        format!(
            "select count(*) from commit_status where next_at >= {} and watch_id = '{}'",
            later.0,
            key(app, 1).watch
        )
    };
    assert_eq!(number(&raw, &waiting(1)).await, 6, "all of this app at this host");
    assert!(claimed.iter().any(|task| task.key == key(2, 1)), "{claimed:?}");
    note(&key(2, 1), StatusVerdict::Told(StatusWord::Pending)).await;
    let told = "select count(*) from commit_status where told = 'pending' and next_at is null and count = 1";
    assert_eq!(number(&raw, told).await, 1);
    // The host is back: those that wait are told at once.
    assert_eq!(claim(&store, &Reach::All, 1, 0, later).await.len(), 1);
    note(&key(1, 1), StatusVerdict::Told(StatusWord::Pending)).await;
    let tried = "select count(*) from commit_status where tries > 0 and next_at > 1000000";
    assert_eq!(number(&raw, tried).await, 0);
    // A row that is gone meanwhile is nobody's fault.
    note(&key(7, 7), StatusVerdict::Told(StatusWord::Success)).await;
}

async fn what_is_done_goes_after_a_day_and_what_nobody_decides_is_cancelled(home: Home) {
    let store = home.open(1).await.expect("opened");
    rows(&home, &[(1, 2)]).await;
    let raw = home.raw().await;
    let done = format!(
        "update commit_status set wanted = 'success', told = 'success', next_at = null where commit_id = '{}'",
        key(1, 1).commit
    );
    raw.execute_unprepared(&done).await.expect("written");
    let all = "select count(*) from commit_status";
    assert!(!store.sweep_statuses(NOW).await.expect("swept"));
    assert_eq!(number(&raw, all).await, 2, "young rows stay");
    let cancelled = "select count(*) from commit_status where wanted = 'cancelled' and next_at is not null";
    assert_eq!(number(&raw, cancelled).await, 1, "its cursor is gone, and the host is told so");
    store.sweep_statuses(Timestamp(NOW.0 + 86_400_000)).await.expect("swept");
    assert_eq!(number(&raw, all).await, 1, "what is still to be told stays");
    store.sweep_statuses(Timestamp(NOW.0 + 31 * 86_400_000)).await.expect("swept");
    assert_eq!(number(&raw, all).await, 0, "what no host took is given up");
}

on_both! {
    a_claim_is_one_owners_until_it_ends_and_apps_take_turns
    a_replica_tells_of_its_own_repositories_alone
    an_answer_is_written_and_what_fares_the_same_waits_as_long
    what_is_done_goes_after_a_day_and_what_nobody_decides_is_cancelled
}
