//! What an app may have: queues, open tasks and the bytes of their payloads.

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
