//! What people do to tasks of a watch: redrive their dead letters, skip changes, disable the app.

use tidings_actors::ports::{AppPatch, GONE, Head};
use tidings_entity::id::{DeadLetterId, WatchId};

use super::*;

impl Desk {
    /// Finishes the open round.
    pub(super) async fn finish(&self, round: &Round) {
        let ended = self.store.finish_round(&self.cursor, round.number, START, false).await;
        assert!(ended.expect("written"), "every change is settled");
    }

    /// Begins the redrive of every open letter.
    pub(super) async fn redrive(&self) -> Round {
        let lane = self.store.lane(&self.cursor).await.expect("a lane");
        let letters: Vec<_> = lane.letters.into_iter().map(|(letter, _)| letter).collect();
        let ids: Vec<DeadLetterId> = letters.iter().map(|letter| letter.id.clone()).collect();
        self.store.request_redrive(&app(), &ids).await.expect("asked");
        let mut new = self.plan(0, letters.len() as u64).await;
        new.round.spec = RoundSpec {
            kind: RoundKind::Redrive,
            target: new.round.spec.held.clone(),
            letters,
            ..new.round.spec.clone()
        };
        self.store.begin_round(&new).await.expect("begun");
        new.round
    }

    pub(super) async fn disable(&self, reason: Option<&str>) {
        let patch = AppPatch { disabled: Some(reason.map(str::to_owned)), ..AppPatch::default() };
        self.store.patch_app(&app(), &patch, START).await.expect("patched");
    }

    async fn skip(&self) -> Head {
        self.store.request_skip(&app(), &self.watch.id, None, None).await.expect("asked")
    }

    async fn back(&self, task: &ClaimedTask) {
        let nack = TaskMove::Nack { delay: Some(Duration::ZERO), reason: None };
        self.say(&task.token, nack).await.expect("given back");
    }

    async fn letters(&self) -> Vec<(u64, ParkReason, LetterStatus, Option<TaskId>)> {
        let page = self.store.dead_letters(&app(), &LetterFilter::default(), None, 10).await.expect("read");
        let shown = page.letters.into_iter();
        let mut shown: Vec<_> =
            shown.map(|letter| (letter.position, letter.reason, letter.status, letter.task)).collect();
        shown.sort_by_key(|(position, ..)| *position);
        shown
    }
}

async fn a_redriven_letter_is_the_same_task_with_no_attempt_counted(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 2).await;
    desk.hand_over(&round).await;
    let first = desk.claim(1).await.remove(0);
    desk.back(&first).await;
    let claimed = desk.claim(9).await;
    assert_eq!((position(&claimed[0]), claimed[0].task.attempts), (0, 2));
    desk.say(&claimed[0].token, TaskMove::Fail("no such language".into())).await.expect("failed");
    desk.complete(&claimed[1]).await;
    let late = desk.say(&claimed[0].token, TaskMove::Complete).await;
    assert_eq!(late, lost(), "a change that is a letter was not completed");
    desk.finish(&round).await;
    // Twice: the letter of a redrive that fails is the same task too.
    for life in 0..2 {
        let redrive = desk.redrive().await;
        assert_eq!(desk.hand_over(&redrive).await, 1);
        let again = desk.claim(9).await.remove(0);
        assert_eq!((&again.task.id, again.task.attempts), (&first.task.id, 1), "life {life}");
        for stale in [&first, &claimed[0]] {
            let done = desk.say(&stale.token, TaskMove::Complete).await;
            assert_eq!(done, lost(), "a token of the life before");
            // The worker that gave the change up may not have heard the answer.
            let failed = desk.say(&stale.token, TaskMove::Fail("no".into())).await.expect("confirmed");
            assert_eq!((failed.moved, failed.state), (Moved::Before, TaskState::Failed));
        }
        if life == 0 {
            desk.say(&again.token, TaskMove::Fail("still no".into())).await.expect("failed");
        } else {
            desk.complete(&again).await;
        }
        desk.finish(&redrive).await;
        desk.counts_agree().await;
    }
    let letters = desk.letters().await;
    assert!(letters.iter().all(|(.., task)| task.as_ref() == Some(&first.task.id)), "{letters:?}");
    assert!(letters.iter().all(|(_, _, status, _)| *status != LetterStatus::Open), "{letters:?}");
}

async fn a_skip_cancels_the_task_at_the_head(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 3).await;
    // Not a task yet: the change becomes a letter in place of a task.
    let head = desk.skip().await;
    assert_eq!((head.position, &head.task), (0, &None));
    desk.hand_over(&round).await;
    assert_eq!(desk.queue(TaskState::Ready).await, 2);
    assert_eq!(desk.settled().await, (1, vec![]));
    // A task: its cancel is asked for, and nothing else is noted.
    let head = desk.skip().await;
    let task = head.task.expect("a task");
    assert_eq!(head.position, 1);
    assert!(!desk.store.lane(&desk.cursor).await.expect("a lane").skip_head);
    assert_eq!(desk.cancel(&task).await, Moved::Now);
    // A task that a worker has ends when the worker gives it back, or after a minute.
    let claimed = desk.claim(9).await.remove(0);
    let beat = desk.say(&claimed.token, TaskMove::Heartbeat(Duration::from_secs(600))).await;
    assert_eq!(beat.expect("heard").moved, Moved::Now);
    assert_eq!(desk.skip().await.task.as_ref(), Some(&claimed.task.id));
    assert_eq!(desk.cancel(&claimed.task.id).await, Moved::Flagged);
    let beat = desk.say(&claimed.token, TaskMove::Heartbeat(Duration::from_secs(600))).await;
    assert_eq!(beat.expect("heard").moved, Moved::Flagged, "no extension any more");
    desk.clock.advance(Duration::from_secs(59));
    desk.store.wake_tasks().await.expect("written");
    assert_eq!(desk.settled().await, (2, vec![]), "its worker has a minute");
    desk.clock.advance(Duration::from_secs(2));
    desk.store.wake_tasks().await.expect("written");
    let skipped = desk.letters().await;
    let skipped: Vec<_> = skipped.iter().map(|(position, reason, ..)| (*position, *reason)).collect();
    let reason = ParkReason::Skipped;
    assert_eq!(skipped, [(0, reason), (1, reason), (2, reason)]);
    assert_eq!(desk.say(&claimed.token, TaskMove::Complete).await, lost());
    desk.finish(&round).await;
    desk.counts_agree().await;
}

async fn tasks_of_a_disabled_app_are_set_aside_when_a_claim_meets_them(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 6).await;
    desk.hand_over(&round).await;
    let first = desk.claim(1).await.remove(0);
    desk.back(&first).await;
    let out = desk.claim(2).await;
    assert_eq!(out[0].task.attempts, 2);
    desk.disable(Some("disabled by hand")).await;
    assert_eq!(desk.queue(TaskState::Aside).await, 0, "no claim met them");
    assert!(desk.claim(3).await.is_empty(), "nothing is handed out");
    assert_eq!(desk.queue(TaskState::Aside).await, 3, "as many as were asked for");
    assert!(desk.claim(9).await.is_empty());
    assert_eq!((desk.queue(TaskState::Aside).await, desk.queue(TaskState::Ready).await), (4, 0));
    desk.counts_agree().await;
    // Claims that are out may end; what is given back is met by the next claim.
    desk.complete(&out[1]).await;
    desk.back(&out[0]).await;
    assert!(desk.claim(9).await.is_empty());
    assert_eq!(desk.settled().await, (0, vec![(1, 2)]));
    assert_eq!(desk.hand_over(&round).await, 0);
    desk.disable(None).await;
    assert_eq!((desk.queue(TaskState::Aside).await, desk.queue(TaskState::Ready).await), (0, 5));
    let rest = desk.claim(9).await;
    let attempts: Vec<_> = rest.iter().map(|task| (position(task), task.task.attempts)).collect();
    assert_eq!(attempts, [(0, 3), (2, 1), (3, 1), (4, 1), (5, 1)], "each attempt was a claim");
    for task in &rest {
        desk.complete(task).await;
    }
    desk.finish(&round).await;
    desk.counts_agree().await;
}

async fn a_task_keeps_the_moment_that_it_waits_for_over_a_pause(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 2).await;
    desk.hand_over(&round).await;
    for (task, seconds) in desk.claim(2).await.iter().zip([600, 60]) {
        let nack = TaskMove::Nack { delay: Some(Duration::from_secs(seconds)), reason: None };
        desk.say(&task.token, nack).await.expect("given back");
    }
    desk.patch(WatchState::Paused).await;
    assert_eq!(desk.queue(TaskState::Aside).await, 2);
    desk.clock.advance(Duration::from_secs(120));
    desk.store.wake_tasks().await.expect("looked");
    assert_eq!(desk.queue(TaskState::Aside).await, 2, "no moment ends a pause");
    desk.store.task_news().await;

    desk.patch(WatchState::Active).await;
    assert_eq!((desk.queue(TaskState::Waiting).await, desk.queue(TaskState::Ready).await), (1, 1));
    desk.counts_agree().await;
    let due = START.after(Duration::from_secs(600));
    assert_eq!(desk.store.task_news().await.wake_at, Some(due), "the clock is told of that moment");
    assert_eq!(desk.store.wake_tasks().await.expect("looked").next, Some(due));
    let claimed = desk.claim(9).await;
    assert_eq!(claimed.len(), 1);
    desk.complete(&claimed[0]).await;
    desk.clock.set(due);
    desk.store.wake_tasks().await.expect("looked");
    assert_eq!(desk.claim(9).await.len(), 1);
}

async fn a_purge_of_the_queue_leaves_the_tasks_of_watches(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 3).await;
    desk.hand_over(&round).await;
    let purged = desk.store.purge_queue(&app(), COMMAND, 10).await.expect("purged");
    assert_eq!(purged, 0, "a round whose tasks are gone could not end");
    for task in desk.claim(9).await {
        desk.complete(&task).await;
    }
    desk.finish(&round).await;
    desk.counts_agree().await;
}

async fn a_paused_watch_of_an_app_that_is_enabled_stays_aside(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 3).await;
    desk.hand_over(&round).await;
    desk.disable(Some("disabled by hand")).await;
    assert!(desk.claim(9).await.is_empty());
    desk.patch(WatchState::Paused).await;
    desk.disable(None).await;
    assert_eq!(desk.queue(TaskState::Aside).await, 3);
    assert!(desk.claim(9).await.is_empty(), "the watch is paused");
    desk.patch(WatchState::Active).await;
    assert_eq!(desk.claim(9).await.len(), 3);
}

async fn the_tasks_of_an_app_whose_own_endpoint_is_gone_go_on(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 3).await;
    desk.disable(Some(GONE)).await;
    assert_eq!(desk.hand_over(&round).await, 3);
    assert_eq!(desk.claim(9).await.len(), 3);
}

async fn a_claim_is_had_by_its_worker_on_its_watch_until_it_ends(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 2).await;
    desk.hand_over(&round).await;
    let watch = desk.watch.id.clone();
    let has_claim = async |owner: &AppId, watch: &WatchId, worker: &str| {
        desk.store.has_claim(owner, watch, worker).await.expect("read")
    };
    let worker = "tok_worker";
    assert!(!has_claim(&app(), &watch, worker).await, "nothing is claimed");
    let claimed = desk.claim(2).await;
    assert!(has_claim(&app(), &watch, worker).await);
    assert!(!has_claim(&app(), &watch, "tok_other").await);
    assert!(!has_claim(&new_app(2).id, &watch, worker).await);
    let other = WatchId::new(Ulid::from_parts(9, 9));
    assert!(!has_claim(&app(), &other, worker).await);
    desk.complete(&claimed[0]).await;
    assert!(has_claim(&app(), &watch, worker).await, "one is left");
    desk.clock.advance(Duration::from_secs(60));
    assert!(!has_claim(&app(), &watch, worker).await, "its time is over, before the clock has ended it");
}

on_both! {
    a_redriven_letter_is_the_same_task_with_no_attempt_counted
    a_skip_cancels_the_task_at_the_head
    tasks_of_a_disabled_app_are_set_aside_when_a_claim_meets_them
    a_purge_of_the_queue_leaves_the_tasks_of_watches
    a_paused_watch_of_an_app_that_is_enabled_stays_aside
    a_task_keeps_the_moment_that_it_waits_for_over_a_pause
    the_tasks_of_an_app_whose_own_endpoint_is_gone_go_on
    a_claim_is_had_by_its_worker_on_its_watch_until_it_ends
}
