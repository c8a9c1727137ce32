//! Statuses as rows: who claims them, how apps share a host, what an answer does to a row, and what goes.

use std::collections::BTreeMap;

use sea_orm::ConnectionTrait;
use tidings_actors::{
    ports::{Reach, Shard, StatusClaims, StatusKey, StatusRoom, StatusStore, StatusTask, StatusVerdict},
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
const LINE: &str = "a: 0 of 1";
const HOST: &str = "git.example";

fn key(app: u128, commit: u8) -> StatusKey {
    StatusKey {
        watch: WatchId::new(Ulid::from_parts(1, app)),
        commit: tidings_entity::id::ObjectId::new([commit; 20]),
    }
}

/// The host shows a state with the line that every row of these tests has.
fn told(word: StatusWord) -> StatusVerdict {
    StatusVerdict::Told(word, LINE.to_owned())
}

fn repository(app: u128) -> RepositoryId {
    RepositoryId::new(Ulid::from_parts(1, app))
}

/// Rows that are due: of each app this many commits.
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
                   'https://{HOST}/a/b', 'tidings/a/b', 'pending', '{LINE}', 0, 0, 5, false, 5)"
            ))
            .await
            .expect("a row");
        }
    }
}

async fn claim(store: &SqlStore, reach: &Reach, most: u64, busy: u64, now: Timestamp) -> Vec<StatusTask> {
    look(store, reach, most, busy, now).await.tasks
}

async fn look(store: &SqlStore, reach: &Reach, most: u64, busy: u64, now: Timestamp) -> StatusClaims {
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
    // The process that claimed them is gone: the claims end, or a process alone gives them back.
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
    note(&key(2, 1), told(StatusWord::Pending)).await;
    let shown = "select count(*) from commit_status where told = 'pending' and next_at is null and count = 1";
    assert_eq!(number(&raw, shown).await, 1);
    // The host is back: those that wait are told at once.
    assert_eq!(claim(&store, &Reach::All, 1, 0, later).await.len(), 1);
    note(&key(1, 1), told(StatusWord::Pending)).await;
    let tried = "select count(*) from commit_status where tries > 0 and next_at > 1000000";
    assert_eq!(number(&raw, tried).await, 0);
    // A row that is gone meanwhile is nobody's fault.
    note(&key(7, 7), told(StatusWord::Success)).await;
}

async fn a_look_says_when_the_next_status_is_due(home: Home) {
    let store = home.open(1).await.expect("opened");
    rows(&home, &[(1, 1), (2, 1)]).await;
    let raw = home.raw().await;
    let due = |app: u128, at: i64| {
        let watch = key(app, 1).watch;
        format!("update commit_status set next_at = {at} where watch_id = '{watch}'")
    };
    let (soon, later) = (Timestamp(NOW.0 + 1_000), Timestamp(NOW.0 + 30_000));
    raw.execute_unprepared(&due(1, soon.0)).await.expect("written");
    raw.execute_unprepared(&due(2, later.0)).await.expect("written");
    let looked = look(&store, &Reach::All, 4, 0, NOW).await;
    assert_eq!((looked.tasks.len(), looked.next), (0, Some(soon)));
    let others = Reach::These([Shard::of(&repository(2))].into_iter().collect());
    assert_eq!(look(&store, &others, 4, 0, NOW).await.next, Some(later), "each replica looks for its own");
    let busy = look(&store, &Reach::All, 4, 4, soon).await;
    assert_eq!((busy.tasks.len(), busy.next), (0, Some(later)), "a busy host is no moment");
    assert_eq!(look(&store, &Reach::All, 4, 4, later).await.next, None);
}

async fn what_is_done_goes_after_a_day_and_what_nobody_decides_is_cancelled(home: Home) {
    let store = home.open(1).await.expect("opened");
    rows(&home, &[(1, 3)]).await;
    let raw = home.raw().await;
    for (commit, is_now) in
        [(1, "wanted = 'success', told = 'success', next_at = null, count = 1"), (2, "count = 1")]
    {
        let text = format!("update commit_status set {is_now} where commit_id = '{}'", key(1, commit).commit);
        raw.execute_unprepared(&text).await.expect("written");
    }
    let all = "select count(*) from commit_status";
    assert!(!store.sweep_statuses(NOW).await.expect("swept"));
    assert_eq!(number(&raw, all).await, 2, "young rows stay, but for that of which the host never heard");
    let cancelled = "select count(*) from commit_status where wanted = 'cancelled' and next_at is not null";
    assert_eq!(number(&raw, cancelled).await, 1, "its cursor is gone, and the host is told so");
    store.sweep_statuses(Timestamp(NOW.0 + 86_400_000)).await.expect("swept");
    assert_eq!(number(&raw, all).await, 1, "what is still to be told stays");
    store.sweep_statuses(Timestamp(NOW.0 + 31 * 86_400_000)).await.expect("swept");
    assert_eq!(number(&raw, all).await, 0, "what no host took is given up");
}

/// What is to be told of the one row, and when.
async fn next_at(raw: &sea_orm::DatabaseConnection) -> i64 {
    number(raw, "select coalesce(max(next_at), 0) from commit_status").await
}

async fn the_word_after_a_doubtful_answer_is_told_again_when_no_old_request_is_under_way(home: Home) {
    let store = home.open(1).await.expect("opened");
    rows(&home, &[(1, 1)]).await;
    let raw = home.raw().await;
    let note = async |verdict, at| store.note_status(&key(1, 1), &verdict, at).await.expect("noted");
    assert_eq!(claim(&store, &Reach::All, 1, 0, NOW).await.len(), 1);
    let soon = Timestamp(NOW.0 + 1_000);
    note(StatusVerdict::Again { at: soon, shows: None, is_doubtful: true }, NOW).await;
    assert_eq!(claim(&store, &Reach::All, 1, 0, soon).await.len(), 1);
    note(told(StatusWord::Pending), soon).await;
    // The request without an answer may overtake this word until then.
    let over = Timestamp(NOW.0 + 60_000);
    assert_eq!(next_at(&raw).await, over.0);
    assert!(claim(&store, &Reach::All, 1, 0, Timestamp(over.0 - 1)).await.is_empty());
    assert_eq!(claim(&store, &Reach::All, 1, 0, over).await.len(), 1);
    note(told(StatusWord::Pending), over).await;
    assert_eq!(next_at(&raw).await, 0, "the host shows the word");

    // A process died during its request: the request may reach the host after the next one.
    let write = "update commit_status set told = null, next_at = 5";
    raw.execute_unprepared(write).await.expect("written");
    assert_eq!(claim(&store, &Reach::All, 1, 0, over).await.len(), 1);
    store.release_statuses(over).await.expect("given back");
    assert_eq!(claim(&store, &Reach::All, 1, 0, over).await.len(), 1);
    note(told(StatusWord::Pending), over).await;
    assert_eq!(next_at(&raw).await, over.0 + 60_000);
    // The same where another replica takes the claim over.
    let write = "update commit_status set told = null, next_at = 5, doubt_until = null, is_claimed = true";
    raw.execute_unprepared(write).await.expect("written");
    assert_eq!(claim(&store, &Reach::All, 1, 0, over).await.len(), 1);
    note(told(StatusWord::Pending), over).await;
    assert_eq!(next_at(&raw).await, over.0 + 60_000);
}

async fn a_line_that_changed_is_told_although_the_state_has_the_same_colour(home: Home) {
    let store = home.open(1).await.expect("opened");
    rows(&home, &[(1, 1)]).await;
    let raw = home.raw().await;
    let note = async |verdict| store.note_status(&key(1, 1), &verdict, NOW).await.expect("noted");
    // While the host is asked the line changes: of a pending state it is no news, of another state it is.
    for (word, is_news) in [(StatusWord::Pending, false), (StatusWord::Parked, true)] {
        let set = format!("wanted = '{word}', description = '3 parked', next_at = 5");
        let text = format!("update commit_status set {set}");
        raw.execute_unprepared(&text).await.expect("written");
        assert_eq!(claim(&store, &Reach::All, 1, 0, NOW).await.len(), 1);
        let text = "update commit_status set description = '1 parked'";
        raw.execute_unprepared(text).await.expect("written");
        note(StatusVerdict::Told(word, "3 parked".to_owned())).await;
        assert_eq!(next_at(&raw).await, if is_news { NOW.0 } else { 0 }, "{word}");
    }
    assert_eq!(claim(&store, &Reach::All, 1, 0, NOW).await[0].description, "1 parked");
    // The host did not take the line, so it shows the one before.
    let later = Timestamp(NOW.0 + 2_000);
    let shows = Some(StatusWord::Parked);
    note(StatusVerdict::Again { at: later, shows, is_doubtful: false }).await;
    assert_eq!(next_at(&raw).await, later.0);
    assert_eq!(claim(&store, &Reach::All, 1, 0, later).await.len(), 1);
    note(StatusVerdict::Told(StatusWord::Parked, "1 parked".to_owned())).await;
    assert_eq!(next_at(&raw).await, 0);
}

on_both! {
    a_look_says_when_the_next_status_is_due
    the_word_after_a_doubtful_answer_is_told_again_when_no_old_request_is_under_way
    a_line_that_changed_is_told_although_the_state_has_the_same_colour
    a_claim_is_one_owners_until_it_ends_and_apps_take_turns
    a_replica_tells_of_its_own_repositories_alone
    an_answer_is_written_and_what_fares_the_same_waits_as_long
    what_is_done_goes_after_a_day_and_what_nobody_decides_is_cancelled
}
