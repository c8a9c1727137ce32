//! How many answers are kept of one owner.

use std::sync::Arc;

use tidings_actors::{
    model::secret::Secret,
    ports::{Begun, KeyedRequest, RequestStore, StoredAnswer},
    testing::{ManualClock, SeededRandom},
    time::Timestamp,
};
use tidings_entity::id::{AppId, ReplicaId, Sha256Hash};
use tidings_secrets::Keyring;

use super::super::{Context, StartRules};
use super::{
    SqlStore,
    home::{Home, on_both},
    number,
};
use crate::apps::requests::Kept;

const MOST: u64 = 20;

async fn begin(store: &SqlStore, owner: &str, key: u64) -> Begun {
    let owner: AppId = owner.parse().expect("an id");
    let request = KeyedRequest { owner, key: key.to_string(), hash: Sha256Hash::of(b"the same") };
    let at = Timestamp(1000 + i64::try_from(key).expect("small"));
    store.begin_request(&request, at, &ReplicaId::new(ulid::Ulid::nil())).await.expect("begun")
}

async fn end(store: &SqlStore, owner: &str, key: u64) {
    let owner: AppId = owner.parse().expect("an id");
    let request = KeyedRequest { owner, key: key.to_string(), hash: Sha256Hash::of(b"the same") };
    let answer = StoredAnswer { status: 200, content_type: None, body: Secret::new("done".into()) };
    store.end_request(&request, Some(&answer)).await.expect("ended");
}

async fn beyond_their_limit_the_oldest_answers_of_an_owner_go_and_no_request_that_runs(home: Home) {
    let random = Arc::new(SeededRandom::new(1));
    let keyring = Keyring::create(&home.path().join("keyring"), &*random).expect("a keyring");
    let clock = Arc::new(ManualClock::new(Timestamp(3000)));
    let kept = Arc::new(Kept::at_most(MOST));
    let context = Context {
        keyring: Arc::new(keyring),
        clock,
        random,
        kept,
        news: Arc::default(),
        statuses: Arc::default(),
        tasks: Arc::default(),
    };
    let store = SqlStore::keeping(StartRules::default(), home.url(), context).await.expect("opened");
    let [busy, calm] = [1, 2].map(|number| AppId::new(ulid::Ulid::from_parts(1, number)).to_string());
    assert!(matches!(begin(&store, &busy, 0).await, Begun::New), "it runs until the end");
    assert!(matches!(begin(&store, &calm, 1).await, Begun::New));
    end(&store, &calm, 1).await;
    let connection = home.raw().await;
    for key in 1..=10 * MOST {
        assert!(matches!(begin(&store, &busy, key).await, Begun::New));
        end(&store, &busy, key).await;
        let text = format!("select count(*) from idempotency where owner = '{busy}'");
        let count = number(&connection, &text).await.unsigned_abs();
        assert!(count <= MOST && count >= (key + 1).min(MOST * 8 / 10), "{count} after {key}");
    }
    assert!(matches!(begin(&store, &busy, 10 * MOST).await, Begun::Answered(_)), "the newest are there");
    assert!(matches!(begin(&store, &busy, 10 * MOST - 10).await, Begun::Answered(_)));
    assert!(matches!(begin(&store, &busy, 0).await, Begun::Running), "what runs is there");
    assert!(matches!(begin(&store, &calm, 1).await, Begun::Answered(_)), "others keep theirs");
    assert!(matches!(begin(&store, &busy, 1).await, Begun::New), "the oldest are gone");
}

on_both! {
    beyond_their_limit_the_oldest_answers_of_an_owner_go_and_no_request_that_runs
}
