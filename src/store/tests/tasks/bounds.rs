//! What an app may have: queues, open tasks and the bytes of their payloads; and what the rate of a queue
//! leaves for later.

use sea_orm::{ConnectionTrait, TransactionTrait};
use tidings_actors::ports::Redriven;
use tidings_entity::id::QueueId;

use super::*;

pub(super) async fn bounds_of_an_app_refuse_all_of_a_request(home: Home) {
    let (store, _clock) = open(&home).await;
    for part in 0..10 {
        let commands: Vec<NewTask> = (0..100)
            .map(|number| new(part * 100 + number + 1, &format!("c{}", part * 100 + number)))
            .collect();
        create(&store, commands).await.expect("created");
    }
    let refused = create(&store, vec![new(5_000, "c1"), new(5_001, "one-too-many")]).await;
    assert_eq!(refused, Err(CreateRefusal::Queues));
    assert!(store.task(&app(), &new(5_000, "c1").id).await.is_err(), "nothing is half done");
    store.tamper("update queue set ready = 999001 where command = 'c1'").await;
    assert_eq!(create(&store, vec![new(6_000, "c1"), new(6_001, "c1")]).await, Err(CreateRefusal::OpenTasks));
    store.tamper("update queue set ready = 1, bytes = 1073741824 where command = 'c1'").await;
    assert_eq!(create(&store, vec![new(6_000, "c2")]).await, Err(CreateRefusal::OpenBytes));
}

pub(super) async fn an_app_at_its_bound_ends_a_task_that_one_other_follows_up(home: Home) {
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, "a"), new(2, "a")]).await.expect("created");
    let token = claim(&store, asks(&["a"], 1)).await.tasks.remove(0).token;
    store.tamper("update queue set ready = 999999 where command = 'a'").await;
    assert_eq!(create(&store, vec![new(3, "a")]).await, Err(CreateRefusal::OpenTasks));
    let done = |then| TaskWord { then, ..word(&token, TaskMove::Complete) };
    let refused = say(&store, done(vec![new(3, "a"), new(4, "a")])).await;
    assert_eq!(refused, Err(WordRefusal::Then(CreateRefusal::OpenTasks)), "two for one are too many");
    let ended = say(&store, done(vec![new(3, "a")])).await.expect("completed");
    assert_eq!((ended.moved, ended.then.len()), (Moved::Now, 1));
    assert_eq!(create(&store, vec![new(4, "a")]).await, Err(CreateRefusal::OpenTasks), "it is full again");
}

pub(super) async fn a_redrive_stops_at_the_bounds_of_its_app_and_goes_on_when_there_is_room(home: Home) {
    let (store, _clock) = open(&home).await;
    let ids: Vec<TaskId> = (1..=4).map(|number| new(number, "a").id).collect();
    create(&store, (1..=4).map(|number| new(number, "a")).collect()).await.expect("created");
    for id in &ids {
        say(&store, told(id, TaskMove::Cancel)).await.expect("cancelled");
    }
    store.tamper("update queue set ready = 999998 where command = 'a'").await;
    let redrive = async || store.redrive_tasks(&app(), ids.clone()).await.expect("written");
    let full = |count| Redriven { count, refusal: Some(CreateRefusal::OpenTasks) };
    assert_eq!(redrive().await, full(2), "as many as there is room for");
    assert_eq!(redrive().await, full(0));
    let one = say(&store, told(&ids[2], TaskMove::Redrive)).await;
    assert_eq!(one, Err(WordRefusal::Redrive(CreateRefusal::OpenTasks)));
    let task = store.task(&app(), &ids[2]).await.expect("there");
    assert_eq!(task.state, TaskState::Cancelled, "what is refused changes nothing");
    let queue = store.queue(&app(), "a").await.expect("a queue");
    assert!(queue.counts.contains(&(TaskState::Ready, 1_000_000)), "{:?}", queue.counts);
    store.tamper("update queue set ready = 999999 where command = 'a'").await;
    assert_eq!(redrive().await, full(1), "there is room for one more");
    store.tamper("update queue set ready = 3, bytes = 1073741824 where command = 'a'").await;
    let heavy = Redriven { count: 0, refusal: Some(CreateRefusal::OpenBytes) };
    assert_eq!(redrive().await, heavy);
    store.tamper("update queue set bytes = 0 where command = 'a'").await;
    assert_eq!(redrive().await, Redriven { count: 1, refusal: None }, "the last one");
}

pub(super) async fn a_claim_that_leaves_tasks_to_a_later_moment_of_the_rate_is_told(home: Home) {
    let (store, clock) = open(&home).await;
    let rated = QueueSettings { rate: Some(1), ..QueueSettings::default() };
    store.set_queue(&app(), "a", &rated, START).await.expect("set");
    create(&store, (1..=3).map(|number| new(number, "a")).collect()).await.expect("created");
    drop(store.task_news().await);
    let place = (app(), QueueId::of(&app(), "a"));
    for left in [2, 1, 0] {
        assert_eq!(claim(&store, asks(&["a"], 9)).await.tasks.len(), 1);
        let told = store.task_news().await;
        assert_eq!(told.rated.contains(&place), left > 0, "{left} tasks are left");
        assert!(told.ready.is_empty(), "nothing can be claimed now");
        clock.advance(2 * SECOND);
    }
}

pub(super) async fn a_purge_of_dead_tasks_leaves_those_whose_key_holds(home: Home) {
    let (store, clock) = open(&home).await;
    let key = TaskRequestKey { key_hash: "k".into(), request_hash: "r".into() };
    let once = |number| NewTask { max_attempts: Some(1), ..new(number, "a") };
    let keyed = NewTask { key: Some(key), ..once(1) };
    create(&store, vec![keyed.clone(), once(2), once(3), new(4, "a")]).await.expect("created");
    for task in claim(&store, asks(&["a"], 3)).await.tasks {
        let nack = TaskMove::Nack { delay: None, reason: None };
        assert_eq!(say(&store, word(&task.token, nack)).await.expect("given up").state, TaskState::Dead);
    }
    let purge = async |state| store.purge_ended(&app(), "a", state, 10).await;
    assert_eq!(purge(TaskState::Failed).await.expect("purged"), 0);
    assert_eq!(purge(TaskState::Dead).await.expect("purged"), 2);
    let again = create(&store, vec![keyed]).await.expect("there");
    assert!(!again[0].is_new, "the key still names its task");
    let queue = store.queue(&app(), "a").await.expect("a queue");
    assert!(queue.counts.contains(&(TaskState::Dead, 1)), "{:?}", queue.counts);
    assert!(queue.counts.contains(&(TaskState::Ready, 1)), "{:?}", queue.counts);
    clock.advance(24 * 3_600 * SECOND);
    assert_eq!(purge(TaskState::Dead).await.expect("purged"), 1, "its key may be used again");
    assert!(store.purge_ended(&app(), "nobody", TaskState::Dead, 10).await.is_err());
}

#[tokio::test]
async fn tasks_that_another_replica_looks_at_are_looked_for_again_soon() {
    // One process has one writer: only replicas of a server hold rows while another one claims.
    let Some(home) = Home::server().await else { return };
    let (store, _clock) = open(&home).await;
    create(&store, vec![new(1, "a"), new(2, "b")]).await.expect("created");
    let raw = home.raw().await;
    let other = raw.begin().await.expect("begun");
    let look = format!("select id from task where id = '{}' for update", new(1, "a").id);
    other.execute_unprepared(&look).await.expect("held");
    let nothing = claim(&store, asks(&["a"], 1)).await;
    let soon = Some(START.after(Duration::from_millis(100)));
    assert_eq!((nothing.tasks.len(), nothing.again_at), (0, soon));
    assert_eq!(claim(&store, asks(&["a", "b"], 1)).await.tasks.len(), 1, "others are claimed meanwhile");
    other.rollback().await.expect("let go");
    assert_eq!(claim(&store, asks(&["a"], 1)).await.tasks.len(), 1);
    let nothing = claim(&store, asks(&["a"], 1)).await;
    assert_eq!((nothing.tasks.len(), nothing.again_at), (0, None), "the queue is empty");
}
