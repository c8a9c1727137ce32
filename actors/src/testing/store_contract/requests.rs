//! What every store must keep of requests with an `Idempotency-Key`.

use std::time::Duration;

use tidings_entity::id::{AppId, ReplicaId, Sha256Hash};
use ulid::Ulid;

use super::world::World;
use crate::{
    model::secret::Secret,
    ports::{ANSWERS_KEPT, Begun, KeyedRequest, NewApp, RequestStore, Store, StoreError, StoredAnswer},
    time::Timestamp,
};

fn request(owner: &AppId, key: &str, what: &str) -> KeyedRequest {
    KeyedRequest { owner: owner.clone(), key: key.into(), hash: Sha256Hash::of(what.as_bytes()) }
}

fn answer(status: u16, body: &str) -> StoredAnswer {
    StoredAnswer { status, content_type: Some("text/plain".into()), body: Secret::new(body.into()) }
}

/// What is known of it at a moment, in the process with this number. No process said that it lives.
async fn begin(store: &dyn RequestStore, request: &KeyedRequest, at: i64, process: u128) -> String {
    let runner = ReplicaId::new(Ulid::from_parts(1, process));
    match store.begin_request(request, Timestamp(at), &runner).await.expect("begun") {
        Begun::New => "new".into(),
        Begun::Running => "running".into(),
        Begun::Other => "other".into(),
        Begun::Answered(answer) => {
            let kind = answer.content_type.unwrap_or_default();
            format!("{} {kind} {}", answer.status, answer.body.expose())
        }
    }
}

/// A key belongs to one request of one owner; the first answer stays, and a freed key is a new one.
pub async fn a_keyed_request_runs_once_and_its_answer_is_kept(store: &(impl Store + RequestStore)) {
    let world = World::new(store);
    let (app, other) = (world.app().await, AppId::new(world.ulid()));
    let first = request(&app, "key", "a");
    assert_eq!(begin(store, &first, 1000, 0).await, "new");
    assert_eq!(begin(store, &first, 1001, 0).await, "running");
    assert_eq!(begin(store, &request(&app, "key", "b"), 1001, 0).await, "other");
    assert_eq!(begin(store, &request(&app, "Key", "a"), 1001, 0).await, "new", "another key");
    assert_eq!(begin(store, &request(&other, "key", "b"), 1001, 0).await, "new", "another owner");
    store.end_request(&request(&app, "key", "b"), None).await.expect("that is not what runs");
    assert_eq!(begin(store, &first, 1002, 0).await, "running");
    store.end_request(&first, Some(&answer(201, "two\n\nlines é"))).await.expect("ended");
    for _ in 0..2 {
        assert_eq!(begin(store, &first, 1003, 0).await, "201 text/plain two\n\nlines é");
        assert_eq!(begin(store, &request(&app, "key", "b"), 1003, 0).await, "other");
        store.end_request(&first, Some(&answer(500, "later"))).await.expect("too late");
        store.end_request(&first, None).await.expect("too late");
    }
    let freed = request(&other, "key", "b");
    store.end_request(&freed, None).await.expect("freed");
    assert_eq!(begin(store, &request(&other, "key", "c"), 1004, 0).await, "new");
    let bare = StoredAnswer { content_type: None, ..answer(204, "") };
    store.end_request(&request(&other, "key", "c"), Some(&bare)).await.expect("ended");
    assert_eq!(begin(store, &request(&other, "key", "c"), 1005, 0).await, "204  ");
    store.end_request(&request(&other, "gone", "c"), Some(&bare)).await.expect("nothing runs");
    assert_eq!(begin(store, &request(&other, "gone", "c"), 1006, 0).await, "new");
}

/// A keyed request of a process that is gone counts as ended, whenever the next process began.
pub async fn a_keyed_request_that_was_cut_off_begins_again(store: &(impl Store + RequestStore)) {
    let world = World::new(store);
    let app = world.app().await;
    let cut = request(&app, "key", "a");
    assert_eq!(begin(store, &cut, 1000, 1).await, "new");
    assert_eq!(begin(store, &cut, 1500, 1).await, "running", "of this process");
    assert_eq!(begin(store, &request(&app, "key", "b"), 2000, 2).await, "other", "still its key");
    assert_eq!(begin(store, &cut, 500, 2).await, "new", "after a restart, whatever the clock says");
    assert_eq!(begin(store, &cut, 2001, 2).await, "running", "and only once");
    store.end_request(&cut, Some(&answer(200, "done"))).await.expect("ended");
    assert_eq!(begin(store, &cut, 3000, 3).await, "200 text/plain done", "a restart forgets no answer");
}

/// There is no moment in which an app exists and its token is lost.
pub async fn an_app_and_the_answer_to_its_registration_are_one(store: &(impl Store + RequestStore)) {
    let world = World::new(store);
    let nobody = AppId::new(Ulid::nil());
    let asked = request(&nobody, "key", "a");
    let told = Some((asked.clone(), answer(201, "token")));
    let app = NewApp { answer: told.clone(), ..world.new_app() };
    assert_eq!(begin(store, &asked, 1000, 0).await, "new");
    store.create_app(&app).await.expect("created");
    store.end_request(&asked, None).await.expect("the process that asked thinks that it failed");
    assert_eq!(begin(store, &asked, 2000, 1).await, "201 text/plain token");
    let again = request(&nobody, "again", "a");
    assert_eq!(begin(store, &again, 2000, 0).await, "new");
    let twin = NewApp { answer: Some((again.clone(), answer(201, "twin"))), ..app.clone() };
    assert!(matches!(store.create_app(&twin).await, Err(StoreError::Conflict(_))));
    assert_eq!(begin(store, &again, 2001, 0).await, "running", "what was not created was not answered");
    store.erase_app(&app.id).await.expect("erased");
    assert_eq!(begin(store, &asked, 3000, 0).await, "new", "its token went with it");
    assert_eq!(begin(store, &again, 3000, 0).await, "running", "that of another");
}

/// Seven days, in bounded steps; what an app asked goes with it.
pub async fn answers_go_with_their_age_and_with_their_app(store: &(impl Store + RequestStore)) {
    const LONG: Duration = Duration::from_secs(365 * 86_400);
    let world = World::new(store);
    let (app, other) = (world.app().await, world.app().await);
    for owner in [&app, &other] {
        for key in ["one", "two", "three"] {
            let asked = request(owner, key, "a");
            assert_eq!(begin(store, &asked, 1000, 0).await, "new");
            store.end_request(&asked, Some(&answer(200, key))).await.expect("ended");
        }
    }
    store.erase_app(&app).await.expect("erased");
    assert_eq!(begin(store, &request(&app, "one", "a"), 1000, 0).await, "new");
    assert_eq!(begin(store, &request(&other, "one", "a"), 1000, 0).await, "200 text/plain one");
    let week = Timestamp(1000).after(ANSWERS_KEPT);
    assert!(ANSWERS_KEPT >= Duration::from_secs(7 * 86_400));
    assert_eq!(store.prune(week, Duration::ZERO, LONG, 10).await.expect("pruned"), 0, "kept a week");
    let later = Timestamp(week.0 + 1);
    assert_eq!(begin(store, &request(&other, "four", "a"), later.0, 0).await, "new");
    assert_eq!(store.prune(later, LONG, LONG, 3).await.expect("pruned"), 3);
    assert_eq!(store.prune(later, LONG, LONG, 3).await.expect("pruned"), 1);
    assert_eq!(begin(store, &request(&other, "one", "a"), later.0, 0).await, "new");
    assert_eq!(begin(store, &request(&other, "four", "a"), later.0, 0).await, "running");
}
