//! Pauses, blocks, resyncs, the end of a watch and a restore, while tasks are ready or claimed.

use tidings_actors::ports::{NewTask, Origin};
use tidings_entity::{id::QueueId, kind::OriginKind};

use super::*;

async fn a_pause_sets_tasks_aside_and_keeps_their_attempts(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 3).await;
    desk.hand_over(&round).await;
    let first = desk.claim(1).await.remove(0);
    desk.say(&first.token, TaskMove::Nack { delay: Some(Duration::ZERO), reason: None }).await.expect("back");
    let first = desk.claim(1).await.remove(0);
    desk.patch(WatchState::Paused).await;
    assert_eq!(desk.queue(TaskState::Aside).await, 2);
    assert!(desk.claim(9).await.is_empty(), "nothing of a paused watch is claimed");
    assert_eq!(desk.hand_over(&round).await, 0);
    desk.complete(&first).await;
    desk.counts_agree().await;
    let later = START.after(Duration::from_secs(30));
    desk.clock.set(later);
    desk.patch(WatchState::Active).await;
    let text = format!("select count(*) from task where state = 'ready' and updated_at = {}", later.0);
    assert_eq!(desk.count(&text).await, 2, "they were ready from then on");
    let rest = desk.claim(9).await;
    assert_eq!(rest.len(), 2);
    assert_eq!(desk.settled().await.0, 1, "the word of a worker counts during a pause");
}

async fn a_task_that_comes_back_during_a_pause_or_a_block_is_set_aside(home: Home) {
    let desk = Desk::new(home, 30).await;
    let settings = tidings_actors::ports::QueueSettings { max_attempts: Some(2), ..Default::default() };
    desk.store.set_queue(&app(), COMMAND, &settings, START).await.expect("set");
    let round = desk.begin(0, 20).await;
    desk.hand_over(&round).await;
    let back = || TaskMove::Nack { delay: Some(Duration::ZERO), reason: None };
    let claimed = desk.claim(3).await;
    desk.patch(WatchState::Paused).await;
    desk.say(&claimed[0].token, back()).await.expect("given back");
    desk.say(&claimed[1].token, TaskMove::Abandon(Duration::from_secs(9))).await.expect("given back");
    desk.clock.advance(Duration::from_secs(301));
    desk.store.wake_tasks().await.expect("written");
    assert_eq!((desk.queue(TaskState::Aside).await, desk.queue(TaskState::Ready).await), (20, 0));
    assert!(desk.claim(9).await.is_empty(), "nothing of a paused watch is claimed");
    desk.counts_agree().await;
    desk.patch(WatchState::Active).await;
    let again = desk.claim(20).await;
    let attempts: u64 = again.iter().map(|task| task.task.attempts).sum();
    assert_eq!((again.len(), attempts), (20, 22), "two attempts were counted, and the abandoned one was not");
    for task in &again[..12] {
        desk.say(&task.token, back()).await.expect("given back");
    }
    for task in &desk.claim(10).await {
        desk.say(&task.token, back()).await.expect("dead");
    }
    let lane = desk.store.lane(&desk.cursor).await.expect("a lane");
    assert_eq!(lane.state, CursorState::Blocked);
    desk.say(&again[19].token, back()).await.expect("given back");
    assert!(desk.claim(9).await.is_empty(), "workers have older ones, and nothing else is tried");
    desk.counts_agree().await;
}

async fn a_row_that_another_replica_held_during_a_block_follows_the_block(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 3).await;
    desk.hand_over(&round).await;
    let back = |seconds| TaskMove::Nack { delay: Some(Duration::from_secs(seconds)), reason: None };
    let claimed = desk.claim(2).await;
    desk.say(&claimed[0].token, back(0)).await.expect("given back");
    desk.say(&claimed[1].token, back(60)).await.expect("given back");
    let states = async || {
        let states = [TaskState::Ready, TaskState::Waiting, TaskState::Aside];
        (desk.queue(states[0]).await, desk.queue(states[1]).await, desk.queue(states[2]).await)
    };
    assert_eq!(states().await, (2, 1, 0));
    // The tenth task dies at another replica, which passes over the row that the clock holds here.
    desk.store.tamper("update cursor set state = 'blocked', reason = 'ten tasks are dead'").await;
    desk.store.tamper("update task set state = 'aside' where position = 2").await;
    desk.store.tamper("update queue set ready = ready - 1, aside = aside + 1").await;
    desk.clock.advance(Duration::from_secs(60));
    assert_eq!(desk.store.wake_tasks().await.expect("woken").due, 1);
    assert_eq!(states().await, (1, 0, 2), "one task at a time is tried");
    desk.counts_agree().await;
    // A success at that replica ends the block, which passes over a row that a word holds here.
    desk.store.tamper("update cursor set state = 'active', reason = null").await;
    desk.store.tamper("update task set state = 'ready' where position = 2").await;
    desk.store.tamper("update queue set ready = ready + 1, aside = aside - 1").await;
    assert_eq!(desk.say(&claimed[1].token, TaskMove::Complete).await, lost());
    assert_eq!(states().await, (3, 0, 0), "no task is left aside");
    desk.counts_agree().await;
}

async fn a_resync_takes_what_nobody_has_and_waits_for_claims(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 4).await;
    desk.hand_over(&round).await;
    let claimed = desk.claim(2).await;
    desk.store.request_resync(&app(), &desk.watch.id, false).await.expect("asked");
    assert_eq!(desk.count("select count(*) from task").await, 2, "claims stay");
    desk.counts_agree().await;
    let lane = desk.store.lane(&desk.cursor).await.expect("a lane");
    assert!(lane.has_tasks && lane.open.is_none());
    let new = desk.plan(0, 4).await;
    assert!(matches!(desk.store.begin_round(&new).await, Err(StoreError::Conflict(_))));
    assert_eq!(desk.say(&claimed[0].token, TaskMove::Complete).await, lost(), "a resync wins over an end");
    let beat = desk.say(&claimed[1].token, TaskMove::Heartbeat(Duration::from_secs(600))).await;
    assert_eq!(beat.expect("heard").moved, Moved::Flagged, "no extension any more");
    desk.clock.advance(Duration::from_secs(61));
    desk.store.wake_tasks().await.expect("written");
    assert_eq!(desk.count("select count(*) from task").await, 0);
    desk.store.begin_round(&new).await.expect("begun");
    assert_eq!(desk.settled().await, (0, vec![]), "nothing of the old round settles the new one");
    assert_eq!(desk.say(&claimed[0].token, TaskMove::Complete).await, lost());
    desk.counts_agree().await;
}

async fn unwatch_removes_tasks_at_once(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 4).await;
    desk.hand_over(&round).await;
    let claimed = desk.claim(2).await;
    desk.store.unwatch(&app(), &desk.watch.id).await.expect("unwatched");
    assert_eq!(desk.count("select count(*) from task").await, 0);
    assert_eq!(desk.say(&claimed[0].token, TaskMove::Complete).await, lost());
    assert!(!desk.store.hand_over(desk.changes(&round, 4, 1)).await.expect("written"));
    assert!(desk.claim(9).await.is_empty());
    desk.counts_agree().await;
}

async fn ten_dead_tasks_block_and_a_success_redrives_them_once(home: Home) {
    let desk = Desk::new(home, 100).await;
    let settings = tidings_actors::ports::QueueSettings { max_attempts: Some(1), ..Default::default() };
    desk.store.set_queue(&app(), COMMAND, &settings, START).await.expect("set");
    let round = desk.begin(0, 15).await;
    desk.hand_over(&round).await;
    for task in desk.claim(10).await {
        let reason = Some("no memory".to_owned());
        desk.say(&task.token, TaskMove::Nack { delay: None, reason }).await.expect("dead");
    }
    let lane = desk.store.lane(&desk.cursor).await.expect("a lane");
    assert_eq!((lane.state, lane.streak.count), (CursorState::Blocked, 10));
    assert_eq!(lane.open.expect("open").position, 10, "letters settle");
    let probe = desk.claim(9).await;
    assert_eq!(probe.iter().map(position).collect::<Vec<_>>(), [10], "only the oldest is tried");
    desk.counts_agree().await;
    desk.complete(&probe[0]).await;
    let lane = desk.store.lane(&desk.cursor).await.expect("a lane");
    assert_eq!((lane.state, lane.streak.count), (CursorState::Active, 0));
    let redriven = "select count(*) from dead_letter where status = 'redrive_requested' and self_redriven";
    assert_eq!(desk.count(redriven).await, 10);
    assert_eq!(desk.claim(9).await.len(), 4, "the others go on");
    desk.counts_agree().await;
}

async fn changes_that_workers_give_up_block_nothing(home: Home) {
    let desk = Desk::new(home, 20).await;
    let round = desk.begin(0, 14).await;
    desk.hand_over(&round).await;
    for task in desk.claim(12).await {
        desk.say(&task.token, TaskMove::Fail("no such language".into())).await.expect("given up");
    }
    let lane = desk.store.lane(&desk.cursor).await.expect("a lane");
    assert_eq!((lane.state, lane.streak.count), (CursorState::Active, 0));
    let text = "select count(*) from dead_letter where reason = 'rejected' and not counted";
    assert_eq!(desk.count(text).await, 12);
    assert_eq!(desk.claim(9).await.len(), 2, "the others go on");
}

async fn what_is_handed_over_during_a_block_is_set_aside(home: Home) {
    let desk = Desk::new(home, 12).await;
    let settings = tidings_actors::ports::QueueSettings { max_attempts: Some(1), ..Default::default() };
    desk.store.set_queue(&app(), COMMAND, &settings, START).await.expect("set");
    let round = desk.begin(0, 20).await;
    assert_eq!(desk.hand_over(&round).await, 12);
    for task in desk.claim(10).await {
        desk.say(&task.token, TaskMove::Nack { delay: None, reason: None }).await.expect("dead");
    }
    let free = async || (desk.queue(TaskState::Ready).await, desk.queue(TaskState::Aside).await);
    assert_eq!(free().await, (1, 1), "the branch is blocked");
    assert_eq!(desk.hand_over(&round).await, 8, "ends make room during a block as well");
    assert_eq!(free().await, (1, 9));
    let probe = desk.claim(9).await;
    assert_eq!(probe.iter().map(position).collect::<Vec<_>>(), [10], "only the oldest is tried");
    desk.counts_agree().await;
    desk.complete(&probe[0]).await;
    assert_eq!(desk.claim(20).await.len(), 9, "the others go on");
    desk.counts_agree().await;
}

async fn a_restore_pauses_the_watch_and_voids_tokens(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 4).await;
    desk.hand_over(&round).await;
    let claimed = desk.claim(2).await;
    let random = SeededRandom::new(9);
    restored::mark(&desk.home.raw().await, &random, Timestamp(1), START).await.expect("marked");
    // A process that starts on the restored database.
    let store = desk.home.open_timed(desk.clock.clone()).await.expect("opened");
    let desk = Desk { store, ..desk };
    let watch = desk.store.watch(&app(), &desk.watch.id).await.expect("a watch");
    assert_eq!(watch.state, WatchState::Paused);
    assert!(watch.reason.expect("a reason").contains("restored"), "people read why");
    assert_eq!(desk.say(&claimed[0].token, TaskMove::Complete).await, lost());
    assert_eq!(desk.count("select count(*) from task").await, 0);
    desk.counts_agree().await;
}

/// A task that a producer makes in the queue of the watch.
pub(super) fn made(number: u128) -> NewTask {
    NewTask {
        id: TaskId::new(Ulid::from_parts(1_000, number)),
        origin: Origin { kind: OriginKind::Outside, name: "tok_a".into() },
        ..crate::tests::tasks::new(0, COMMAND)
    }
}

async fn an_unwatch_lets_others_be_claimed_where_the_queue_bounds_claims(home: Home) {
    let desk = Desk::new(home, 10).await;
    let settings = tidings_actors::ports::QueueSettings { max_claimed: Some(2), ..Default::default() };
    desk.store.set_queue(&app(), COMMAND, &settings, START).await.expect("set");
    let round = desk.begin(0, 2).await;
    desk.hand_over(&round).await;
    assert_eq!(desk.claim(9).await.len(), 2);
    desk.store.create_tasks(&app(), vec![made(1)]).await.expect("written").expect("created");
    assert!(desk.claim(9).await.is_empty(), "two are claimed");
    drop(desk.store.task_news().await);
    desk.store.unwatch(&app(), &desk.watch.id).await.expect("unwatched");
    let told = desk.store.task_news().await.ready;
    assert_eq!(told, [(app(), QueueId::of(&app(), COMMAND))].into(), "workers that wait are told");
    assert_eq!(desk.claim(9).await.len(), 1);
}

async fn what_makes_room_is_told_whoever_made_the_tasks(home: Home) {
    let desk = Desk::new(home, 10).await;
    let rooms = async || desk.store.task_news().await.room;
    desk.store.create_tasks(&app(), (0..3).map(made).collect()).await.expect("written").expect("created");
    assert!(rooms().await.is_empty(), "more tasks are no room");
    let claimed = desk.claim(1).await;
    assert_eq!(rooms().await, [app()].into(), "a claim");
    desk.complete(&claimed[0]).await;
    assert_eq!(rooms().await, [app()].into(), "an end");
    assert_eq!(desk.store.purge_queue(&app(), COMMAND, 10).await.expect("purged"), 2);
    assert_eq!(rooms().await, [app()].into(), "a purge");
    let round = desk.begin(0, 4).await;
    assert_eq!(desk.hand_over(&round).await, 4);
    assert!(rooms().await.is_empty());
    desk.store.unwatch(&app(), &desk.watch.id).await.expect("unwatched");
    assert_eq!(rooms().await, [app()].into(), "an unwatch");
}

on_both! {
    a_pause_sets_tasks_aside_and_keeps_their_attempts
    a_task_that_comes_back_during_a_pause_or_a_block_is_set_aside
    a_row_that_another_replica_held_during_a_block_follows_the_block
    a_resync_takes_what_nobody_has_and_waits_for_claims
    unwatch_removes_tasks_at_once
    ten_dead_tasks_block_and_a_success_redrives_them_once
    changes_that_workers_give_up_block_nothing
    what_is_handed_over_during_a_block_is_set_aside
    a_restore_pauses_the_watch_and_voids_tokens
    what_makes_room_is_told_whoever_made_the_tasks
    an_unwatch_lets_others_be_claimed_where_the_queue_bounds_claims
}
