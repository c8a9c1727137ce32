//! The numbers of branches whose changes become tasks, and the changes of tasks, as people look at them.

use std::{collections::BTreeMap, time::Duration};

use tidings_actors::{
    model::task::TaskMove,
    ports::{
        AppStore, BranchTasks, HandOverWait, OPEN_BYTES_MAX, OPEN_TASKS_MAX, QueueSettings, TaskStore,
        UpkeepStore, WatchTasks,
    },
};
use tidings_entity::kind::{Operation, TaskState, WatchState};

use super::{COMMAND, Desk, Home, MAIN, START, app, new_app, on_both, position, tree};

impl Desk {
    async fn tasks(&self) -> BranchTasks {
        let mut found = self.store.tasks_of_branches(std::slice::from_ref(&self.cursor)).await.expect("read");
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    /// Unfinished, claimed, aside, left, deletes, and what the rest waits for.
    async fn numbers(&self) -> ([u64; 5], Option<HandOverWait>) {
        let tasks = self.tasks().await;
        let numbers = [tasks.unfinished, tasks.claimed, tasks.aside, tasks.left, tasks.deletes];
        (numbers, tasks.waits_for)
    }
}

async fn a_branch_says_what_its_round_waits_for(home: Home) {
    use HandOverWait::{Deletes, Queue, Window};
    let desk = Desk::new(home, 400).await;
    assert_eq!(desk.numbers().await, ([0; 5], None), "no round is open");
    let round = desk.begin(2, 1_000).await;
    assert_eq!(desk.numbers().await, ([0, 0, 0, 1_000, 2], None));
    assert_eq!(desk.hand_over(&round).await, 2);
    assert_eq!(desk.numbers().await, ([2, 0, 0, 998, 2], Some(Deletes)));
    let deletes = desk.claim(2).await;
    desk.complete(&deletes[1]).await;
    assert_eq!(desk.numbers().await, ([1, 1, 0, 998, 1], Some(Deletes)), "one ended above the position");
    desk.complete(&deletes[0]).await;
    assert_eq!(desk.numbers().await, ([0, 0, 0, 998, 0], None));
    assert_eq!(desk.hand_over(&round).await, 100);
    assert_eq!(desk.numbers().await, ([100, 0, 0, 898, 0], Some(Queue)));
    let claimed = desk.claim(90).await;
    assert_eq!(desk.numbers().await, ([100, 90, 0, 898, 0], None), "workers make room");
    desk.hand_over(&round).await;
    assert_eq!(desk.numbers().await, ([400, 90, 0, 598, 0], Some(Window)));
    let backlog = desk.store.backlog(START).await.expect("surveyed");
    assert_eq!(backlog.hand_overs_waiting, BTreeMap::from([(Window, 1)]));
    assert_eq!(backlog.watch_tasks, BTreeMap::from([(TaskState::Ready, 310), (TaskState::Claimed, 90)]));
    let late = desk.store.backlog(START.after(Duration::from_secs(3_600))).await.expect("surveyed");
    assert!(late.lag_max_ms >= 3_600_000, "the branch is behind: {}", late.lag_max_ms);
    assert_eq!(
        late.apps_behind, 0,
        "how fast workers are is up to the app, as it is with consumers that pull"
    );
    desk.complete(&claimed[0]).await;
    desk.patch(WatchState::Paused).await;
    assert_eq!(desk.numbers().await, ([399, 89, 310, 598, 0], None), "a pause is no wait");
}

async fn a_branch_waits_for_no_task_that_waits_for_its_moment_and_for_nothing_while_its_app_is_disabled(
    home: Home,
) {
    let desk = Desk::new(home, 1_000).await;
    let round = desk.begin(0, 5_000).await;
    desk.hand_over(&round).await;
    assert_eq!(desk.tasks().await.waits_for, Some(HandOverWait::Queue));
    let delay = Some(Duration::from_secs(600));
    for task in desk.claim(100).await {
        desk.say(&task.token, TaskMove::Nack { delay, reason: None }).await.expect("given back");
    }
    assert_eq!(desk.tasks().await.waits_for, None, "the next changes become tasks");
    assert_eq!(desk.hand_over(&round).await, 100);
    assert_eq!(desk.tasks().await.waits_for, Some(HandOverWait::Queue));
    let text = "update app set disabled = 'by hand'";
    crate::database::rows::execute(&desk.home.raw().await, "app", text, vec![]).await.expect("disabled");
    assert_eq!(desk.tasks().await.waits_for, None, "nothing is handed over, however much room there is");
}

async fn watches_make_no_more_tasks_while_their_app_has_half_of_what_it_may_have(home: Home) {
    let desk = Desk::new(home, 1_000).await;
    desk.store.set_queue(&app(), "filler", &QueueSettings::default(), START).await.expect("declared");
    let raw = desk.home.raw().await;
    let fill = async |column: &str, number: u64| {
        let text = format!("update queue set {column} = {number} where command = 'filler'");
        crate::database::rows::execute(&raw, "queue", &text, vec![]).await.expect("filled");
    };
    let round = desk.begin(0, 60).await;
    fill("bytes", OPEN_BYTES_MAX / 2).await;
    assert_eq!(desk.hand_over(&round).await, 1, "a branch without a task may always have one");
    assert_eq!(desk.numbers().await, ([1, 0, 0, 59, 0], Some(HandOverWait::App)));
    fill("bytes", OPEN_BYTES_MAX / 4).await;
    assert_eq!(desk.numbers().await, ([1, 0, 0, 59, 0], None));
    // With the task of the branch, ten tasks are left for watches.
    fill("waiting", OPEN_TASKS_MAX / 2 - 11).await;
    assert_eq!(desk.hand_over(&round).await, 10);
    assert_eq!(desk.numbers().await, ([11, 0, 0, 49, 0], Some(HandOverWait::App)));
    fill("waiting", 0).await;
    assert_eq!(desk.hand_over(&round).await, 49);
}

async fn only_tasks_of_watches_have_a_change_and_only_for_their_app(home: Home) {
    let desk = Desk::new(home, 10).await;
    desk.store.create_app(&new_app(2)).await.expect("another app");
    let round = desk.begin(1, 3).await;
    desk.hand_over(&round).await;
    let task = desk.claim(1).await.remove(0).task.id;
    let found = desk.store.changes_of_tasks(&app(), std::slice::from_ref(&task)).await.expect("read");
    let [change] = &found[..] else { panic!("one change: {found:?}") };
    assert_eq!((&change.task, &change.watch, &change.cursor), (&task, &desk.watch.id, &desk.cursor));
    assert_eq!((change.round, change.position, change.operation), (round.number, 0, Operation::Delete));
    assert_eq!((&*change.path, change.branch.as_str()), (&b"file 0"[..], MAIN));
    assert_eq!(change.commit, Some(tree(1).commit));
    let of = desk.store.task_of_change(&desk.cursor, round.number, 0).await.expect("read");
    assert_eq!(of, Some(task.clone()));
    assert_eq!(desk.store.task_of_change(&desk.cursor, round.number, 2).await.expect("read"), None);
    let seen = desk.store.changes_of_tasks(&new_app(2).id, &[task]).await.expect("read");
    assert_eq!(seen, [], "of another app");
    let queues = desk.store.queues_of_watches(std::slice::from_ref(&desk.watch.id)).await.expect("read");
    assert_eq!(queues.into_values().collect::<Vec<_>>(), [COMMAND]);
}

async fn a_streak_of_dead_tasks_is_told(home: Home) {
    let desk = Desk::new(home, 10).await;
    let once = QueueSettings { max_attempts: Some(1), ..QueueSettings::default() };
    desk.store.set_queue(&app(), COMMAND, &once, START).await.expect("declared");
    let round = desk.begin(0, 5).await;
    desk.hand_over(&round).await;
    let claimed = desk.claim(3).await;
    assert_eq!(claimed.iter().map(position).collect::<Vec<_>>(), [0, 1, 2]);
    for task in &claimed[..2] {
        desk.say(&task.token, TaskMove::Nack { delay: None, reason: None }).await.expect("dead");
    }
    assert_eq!(desk.tasks().await.dead_in_a_row, 2);
    desk.say(&claimed[2].token, TaskMove::Complete).await.expect("completed");
    assert_eq!(desk.tasks().await.dead_in_a_row, 0, "a success ends it");
}

on_both! {
    a_branch_says_what_its_round_waits_for
    a_branch_waits_for_no_task_that_waits_for_its_moment_and_for_nothing_while_its_app_is_disabled
    watches_make_no_more_tasks_while_their_app_has_half_of_what_it_may_have
    only_tasks_of_watches_have_a_change_and_only_for_their_app
    a_streak_of_dead_tasks_is_told
}
