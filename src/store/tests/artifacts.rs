//! Artifacts as rows: who may change them, what an app may keep, and what goes with a task.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tidings_actors::{
    model::task::{ClaimProof, ClaimToken, TaskMove},
    ports::{
        ARTIFACTS_PER_TASK_MAX, AppStore, Artifact, ArtifactChange, ArtifactRefusal, ArtifactRoom,
        ArtifactStore, ClaimRequest, ClaimStore, Clock, StoreError, TaskStore, TaskWord, UpkeepStore,
    },
    testing::ManualClock,
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, ArtifactId, Sha256Hash, TaskId},
    kind::TaskState,
};
use ulid::Ulid;

use super::{
    home::{Home, on_both},
    new_app, number, schema,
    tasks::new,
};
use crate::SqlStore;

const PLENTY: u64 = 1 << 30;

fn app() -> AppId {
    new_app(1).id
}

fn task(number: u64) -> TaskId {
    TaskId::new(Ulid::from_parts(number, u128::from(number)))
}

fn id(number: u64) -> ArtifactId {
    ArtifactId::new(Ulid::from_parts(number, u128::from(number)))
}

fn artifact(number: u64, of: u64, name: &str, bytes: u64) -> Artifact {
    Artifact {
        id: id(number),
        task: task(of),
        app: app(),
        name: name.into(),
        content_type: "text/plain".into(),
        bytes,
        sha256: Sha256Hash::of(name.as_bytes()),
        created_at: Timestamp(0),
    }
}

fn change(of: u64, name: &str, proof: Option<ClaimProof>) -> ArtifactChange {
    ArtifactChange { app: app(), task: task(of), name: name.into(), proof }
}

/// A store with two tasks of one app.
async fn open(home: &Home) -> (SqlStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let store = home.open_timed(clock.clone()).await.expect("opened");
    store.create_app(&new_app(1)).await.expect("an app");
    let created = store.create_tasks(&app(), vec![new(1, "build"), new(2, "build")]).await.expect("written");
    assert!(created.is_ok());
    (store, clock)
}

/// Claims one task for a minute.
async fn claim(store: &SqlStore) -> ClaimToken {
    let request = ClaimRequest {
        app: app(),
        commands: vec!["build".into()],
        count: 1,
        claim: Duration::from_secs(60),
        worker: "tok_worker".into(),
    };
    store.claim_tasks(vec![request]).await.expect("written").remove(0).tasks.remove(0).token
}

fn proof(token: &ClaimToken) -> Option<ClaimProof> {
    Some(ClaimProof::Hash(token.hash()))
}

async fn say(store: &SqlStore, id: TaskId, step: TaskMove, proof: Option<ClaimProof>) {
    let word = TaskWord { id, app: app(), proof, step, body: None, then: Vec::new() };
    store.move_tasks(vec![word]).await.expect("written").remove(0).expect("moved");
}

async fn put(
    store: &SqlStore,
    artifact: &Artifact,
    proof: Option<ClaimProof>,
) -> Result<Option<ArtifactId>, ArtifactRefusal> {
    store.put_artifact(artifact, proof.as_ref(), PLENTY).await.expect("written")
}

async fn an_artifact_replaces_the_one_of_its_name(home: Home) {
    let (store, clock) = open(&home).await;
    assert_eq!(put(&store, &artifact(1, 1, "b", 5), None).await, Ok(None));
    assert_eq!(put(&store, &artifact(2, 1, "a", 6), None).await, Ok(None));
    assert_eq!(put(&store, &artifact(3, 2, "b", 7), None).await, Ok(None), "another task");
    clock.advance(Duration::from_secs(1));
    assert_eq!(put(&store, &artifact(4, 1, "b", 8), None).await, Ok(Some(id(1))));
    let listed = store.artifacts(&app(), &task(1)).await.expect("listed");
    let shown: Vec<_> = listed.iter().map(|artifact| (artifact.name.as_str(), artifact.bytes)).collect();
    assert_eq!(shown, [("a", 6), ("b", 8)]);
    let found = store.artifact(&app(), &task(1), "b").await.expect("there");
    assert_eq!(found, Artifact { created_at: clock.now(), ..artifact(4, 1, "b", 8) });
    let other = new_app(2).id;
    assert!(matches!(store.artifact(&other, &task(1), "b").await, Err(StoreError::NotFound)));
    assert!(store.artifacts(&other, &task(1)).await.expect("listed").is_empty());
    let foreign = Artifact { app: other.clone(), ..artifact(9, 1, "c", 1) };
    assert_eq!(put(&store, &foreign, None).await, Err(ArtifactRefusal::NotFound));
    let foreign = ArtifactChange { app: other, ..change(1, "b", None) };
    let refused = store.remove_artifact(&foreign).await.expect("asked");
    assert_eq!(refused, Err(ArtifactRefusal::NotFound));
    assert_eq!(store.remove_artifact(&change(1, "b", None)).await.expect("written"), Ok(id(4)));
    let again = store.remove_artifact(&change(1, "b", None)).await.expect("asked");
    assert_eq!(again, Err(ArtifactRefusal::NotFound));
    let known = store.known_artifacts(&[id(1), id(2), id(3), id(4)]).await.expect("read");
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [id(2), id(3)]);
}

async fn while_a_worker_has_the_task_only_that_worker_changes_its_artifacts(home: Home) {
    let (store, clock) = open(&home).await;
    let first = claim(&store).await;
    assert_eq!(first.task, task(1));
    let room = ArtifactRoom { bytes: 1, app_bytes_max: PLENTY };
    let may = async |proof| store.may_put_artifact(&change(1, "a", proof), room).await.expect("read");
    assert_eq!(may(None).await, Err(ArtifactRefusal::Claimed));
    assert_eq!(may(proof(&first)).await, Ok(()));
    assert_eq!(put(&store, &artifact(1, 1, "a", 1), None).await, Err(ArtifactRefusal::Claimed));
    assert_eq!(put(&store, &artifact(1, 1, "a", 1), proof(&first)).await, Ok(None));
    let of_waiting = put(&store, &artifact(2, 2, "a", 1), proof(&first)).await;
    assert_eq!(of_waiting, Err(ArtifactRefusal::ClaimLost), "nobody has that task");
    // The time of the claim is over, whether or not the clock was looked at.
    clock.advance(Duration::from_secs(60));
    assert_eq!(may(proof(&first)).await, Err(ArtifactRefusal::ClaimLost));
    // Replicas wait a little longer, because their clocks differ.
    clock.advance(Duration::from_secs(1));
    store.wake_tasks().await.expect("woken");
    let second = claim(&store).await;
    assert_eq!(put(&store, &artifact(3, 1, "a", 3), proof(&second)).await, Ok(Some(id(1))));
    let late = put(&store, &artifact(4, 1, "a", 4), proof(&first)).await;
    assert_eq!(late, Err(ArtifactRefusal::ClaimLost), "its successor's artifact stays");
    let removed = store.remove_artifact(&change(1, "a", proof(&first))).await.expect("asked");
    assert_eq!(removed, Err(ArtifactRefusal::ClaimLost));
    assert_eq!(store.artifact(&app(), &task(1), "a").await.expect("there").bytes, 3);
}

async fn nothing_is_added_to_a_task_that_has_ended_and_what_it_keeps_may_go(home: Home) {
    let (store, _clock) = open(&home).await;
    let token = claim(&store).await;
    assert_eq!(put(&store, &artifact(1, 1, "a", 1), proof(&token)).await, Ok(None));
    say(&store, task(1), TaskMove::Complete, proof(&token)).await;
    let ended = Err(ArtifactRefusal::Ended(TaskState::Succeeded));
    assert_eq!(put(&store, &artifact(2, 1, "b", 1), None).await, ended);
    let late = put(&store, &artifact(2, 1, "b", 1), proof(&token)).await;
    assert_eq!(late, Err(ArtifactRefusal::ClaimLost));
    assert_eq!(store.artifacts(&app(), &task(1)).await.expect("listed").len(), 1);
    assert_eq!(store.remove_artifact(&change(1, "a", None)).await.expect("written"), Ok(id(1)));
}

async fn an_app_and_a_task_keep_no_more_than_they_may(home: Home) {
    let (store, _clock) = open(&home).await;
    let put_within = async |artifact: &Artifact, most: u64| {
        let change = change(1, &artifact.name, None);
        let room = ArtifactRoom { bytes: artifact.bytes, app_bytes_max: most };
        let may = store.may_put_artifact(&change, room).await.expect("read");
        let put = store.put_artifact(artifact, None, most).await.expect("written");
        assert_eq!(may.err(), put.clone().err(), "both say the same");
        put
    };
    assert_eq!(put_within(&artifact(1, 1, "a", 60), 100).await, Ok(None));
    assert_eq!(put_within(&artifact(2, 1, "b", 41), 100).await, Err(ArtifactRefusal::Bytes(60)));
    assert_eq!(put_within(&artifact(2, 1, "b", 40), 100).await, Ok(None));
    assert_eq!(put_within(&artifact(3, 1, "a", 61), 100).await, Err(ArtifactRefusal::Bytes(100)));
    assert_eq!(put_within(&artifact(3, 1, "a", 60), 100).await, Ok(Some(id(1))), "what it replaces goes");
    for number in 10..8 + ARTIFACTS_PER_TASK_MAX {
        let name = format!("n{number}");
        assert_eq!(put_within(&artifact(number, 1, &name, 0), 100).await, Ok(None));
    }
    assert_eq!(put_within(&artifact(500, 1, "more", 0), 100).await, Err(ArtifactRefusal::Count));
    assert_eq!(put_within(&artifact(500, 1, "b", 1), 100).await, Ok(Some(id(2))), "one of them is replaced");
    let first = store.artifact_ids(&app(), None, 3).await.expect("read");
    assert_eq!(first, [id(3), id(10), id(11)]);
    let rest = store.artifact_ids(&app(), first.last(), 1_000).await.expect("read");
    assert_eq!(rest.len() as u64, ARTIFACTS_PER_TASK_MAX - 3);
}

async fn puts_of_one_name_at_once_leave_one_row_and_name_every_other_object(home: Home) {
    let (one, clock) = open(&home).await;
    // A file has one process.
    let is_file = home.url().starts_with("sqlite");
    let two = if is_file { one.clone() } else { home.open_timed(clock).await.expect("opened") };
    let puts = (1..=20).map(|number| {
        let store = if number % 2 == 0 { &one } else { &two };
        async move { put(store, &artifact(number, 1, "a", number), None).await.expect("put") }
    });
    let mut replaced: Vec<ArtifactId> = join_all(puts).await.into_iter().flatten().collect();
    let left = one.artifacts(&app(), &task(1)).await.expect("listed");
    assert_eq!(left.len(), 1);
    replaced.push(left[0].id.clone());
    replaced.sort();
    assert_eq!(replaced, (1..=20).map(id).collect::<Vec<_>>(), "each object is named once");
}

async fn artifacts_go_with_their_task_and_their_app(home: Home) {
    let (store, clock) = open(&home).await;
    let raw = home.raw().await;
    let rows = async || number(&raw, "select count(*) from artifact").await;
    let token = claim(&store).await;
    put(&store, &artifact(1, 1, "a", 1), proof(&token)).await.expect("put");
    put(&store, &artifact(2, 2, "a", 1), None).await.expect("put");
    say(&store, task(1), TaskMove::Complete, proof(&token)).await;
    clock.advance(Duration::from_secs(8 * 86_400));
    assert_eq!(store.forget_tasks(10).await.expect("forgotten"), 1);
    assert_eq!(rows().await, 1, "those of a task that is kept no more");
    put(&store, &artifact(3, 2, "b", 1), None).await.expect("put");
    assert_eq!(store.purge_queue(&app(), "build", 10).await.expect("purged"), 1);
    assert_eq!(rows().await, 0);
    assert!(store.known_artifacts(&[id(1), id(2), id(3)]).await.expect("read").is_empty());
}

async fn an_erased_app_leaves_no_artifact(home: Home) {
    let (store, _clock) = open(&home).await;
    put(&store, &artifact(1, 1, "a", 1), None).await.expect("put");
    store.erase_app(&app()).await.expect("erased");
    assert_eq!(number(&home.raw().await, "select count(*) from artifact").await, 0);
}

async fn the_version_before_is_refused_while_there_are_artifacts(home: Home) {
    let (store, _clock) = open(&home).await;
    put(&store, &artifact(1, 1, "a", 1), None).await.expect("put");
    store.close().await;
    let steps = schema::status(home.url()).await.expect("a status");
    let place = steps.iter().position(|step| step.name.ends_with("add_artifacts")).expect("the step");
    let back = u32::try_from(steps.len() - place).expect("few");
    let refused = schema::down(home.url(), back).await.expect_err("refused").to_string();
    assert!(refused.contains("there are 1 artifacts of tasks"), "{refused}");
    let raw = home.raw().await;
    assert_eq!(number(&raw, "select count(*) from artifact").await, 1, "it is still there");
}

on_both! {
    an_artifact_replaces_the_one_of_its_name
    while_a_worker_has_the_task_only_that_worker_changes_its_artifacts
    nothing_is_added_to_a_task_that_has_ended_and_what_it_keeps_may_go
    an_app_and_a_task_keep_no_more_than_they_may
    puts_of_one_name_at_once_leave_one_row_and_name_every_other_object
    artifacts_go_with_their_task_and_their_app
    an_erased_app_leaves_no_artifact
    the_version_before_is_refused_while_there_are_artifacts
}
