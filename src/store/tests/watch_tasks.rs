//! Tasks of a watch as rows: the room for them, the ends that settle, pauses, blocks, and what ends a round
//! early, with claims out.

mod by_hand;
mod faces;
mod interruptions;
mod origins;
mod per_round;
mod waiting;

use std::{sync::Arc, time::Duration};

use tidings_actors::{
    model::view::View,
    model::{
        round::{Change, DeliveryId, Entry, RULES, Round, RoundSpec, Summary, TreeEnd},
        sink::SinkAddress,
        task::{ClaimToken, MoveRefusal, Moved, TaskMove},
    },
    ports::{
        AppStore, ClaimRequest, ClaimStore, ClaimedTask, DeliverySettings, EndpointAccess, HandOver,
        HandedChange, LaneStore, LetterFilter, LetterStore, NewRound, NewSink, NewWatch, StoreError,
        TaskStore, TaskWord, Watch, WatchPatch, WatchStore, WordRefusal, Worded,
    },
    testing::{ManualClock, SeededRandom},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, CursorId, ObjectId, Sha256Hash, SinkId, TaskId},
    kind::{
        CursorState, LetterStatus, Operation, ParkReason, PayloadFormat, RoundKind, TaskState, WatchState,
    },
};
use ulid::Ulid;

use super::{
    MAIN,
    home::{Home, on_both},
    new_app, new_watch, number,
};
use crate::{SqlStore, upkeep::restored};

const START: Timestamp = Timestamp(1_000_000);
const COMMAND: &str = "embed";

/// A store with a watch whose changes become tasks.
struct Desk {
    home: Home,
    store: SqlStore,
    clock: Arc<ManualClock>,
    watch: Watch,
    cursor: CursorId,
}

fn app() -> AppId {
    new_app(1).id
}

fn sink(window: u32, command: &str) -> NewSink {
    NewSink {
        id: SinkId::new(Ulid::from_parts(5, 5)),
        address: SinkAddress::Tasks(command.into()),
        access: EndpointAccess::default(),
        delivery: DeliverySettings { window: Some(window), ..DeliverySettings::default() },
        signing_key: None,
    }
}

fn tree(commit: u8) -> TreeEnd {
    TreeEnd { commit: ObjectId::new([commit; 20]), view: View::default() }
}

fn change(position: u64, operation: Operation) -> Change {
    let entry = |number: u8| Entry { mode: 0o100_644, blob: ObjectId::new([number; 20]) };
    Change {
        operation,
        path: format!("file {position}").into(),
        old: (operation != Operation::Create).then(|| entry(7)),
        new: (operation != Operation::Delete).then(|| entry(8)),
        replay_of: None,
    }
}

impl Desk {
    async fn new(home: Home, window: u32) -> Self {
        Self::with(home, sink(window, COMMAND)).await
    }

    async fn with(home: Home, sink: NewSink) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let store = home.open_timed(clock.clone()).await.expect("opened");
        store.create_app(&new_app(1)).await.expect("an app");
        let new = NewWatch { sink: Some(sink), ..new_watch(&app(), 1, None) };
        let watch = store.register_watch(&new).await.expect("registered");
        let cursor = watch.cursors[0].id.clone();
        Self { home, store, clock, watch, cursor }
    }

    async fn plan(&self, deletes: u64, total: u64) -> NewRound {
        let lane = self.store.lane(&self.cursor).await.expect("a lane");
        let is_resync = lane.resync.is_some();
        NewRound {
            planned_after: lane.last_round,
            round: Round {
                cursor: self.cursor.clone(),
                number: lane.last_round + 1,
                spec: RoundSpec {
                    kind: if is_resync { RoundKind::Resync } else { RoundKind::Sync },
                    held: lane.held.map(|(commit, view)| TreeEnd { commit, view }),
                    target: Some(tree(1)),
                    bases: if is_resync { lane.resync_bases } else { Vec::new() },
                    letters: Vec::new(),
                },
                summary: Summary {
                    deletes,
                    creates: total - deletes,
                    updates: 0,
                    digest: Sha256Hash::of(b"list"),
                },
                rules: RULES,
                began_at: START,
                branch: MAIN.into(),
                url: "https://git.example/a/b".into(),
                format: PayloadFormat::Docora,
                history_rewritten: false,
                skipped_commits: false,
                complete: lane.resync == Some(true),
                position: 0,
            },
        }
    }

    /// Begins a round of this many changes, the first of them deletes.
    async fn begin(&self, deletes: u64, total: u64) -> Round {
        let new = self.plan(deletes, total).await;
        self.store.begin_round(&new).await.expect("begun");
        new.round
    }

    /// The changes from this position on, as the lane gives them to the store.
    fn changes(&self, round: &Round, from: u64, count: u64) -> HandOver {
        let one = |position: u64| {
            let is_delete = position < round.summary.deletes;
            let change = change(position, if is_delete { Operation::Delete } else { Operation::Create });
            HandedChange {
                task: TaskId::new(Ulid::from_parts(
                    u64::try_from(round.number).expect("small"),
                    u128::from(position),
                )),
                delivery: DeliveryId::of(&self.cursor, round.number, &change),
                change,
                payload: Ok(format!("{{\"position\":{position}}}")),
            }
        };
        let changes = (from..from + count).map(one).collect();
        HandOver { cursor: self.cursor.clone(), round: round.number, from, changes }
    }

    /// Hands over as much as there is room for. How many tasks came.
    async fn hand_over(&self, round: &Round) -> u64 {
        let mut handed = 0;
        loop {
            let room = self.store.hand_over_room(&self.cursor, round.number).await.expect("read");
            let Some(room) = room.filter(|room| !room.positions.is_empty()) else { return handed };
            let (from, count) = (room.positions.start, room.positions.end - room.positions.start);
            assert!(self.store.hand_over(self.changes(round, from, count)).await.expect("written"));
            handed += count;
        }
    }

    async fn claim(&self, count: usize) -> Vec<ClaimedTask> {
        let request = ClaimRequest {
            app: app(),
            commands: vec![COMMAND.into()],
            count,
            claim: Duration::from_secs(60),
            worker: "tok_worker".into(),
        };
        self.store.claim_tasks(vec![request]).await.expect("written").pop().expect("a claim").tasks
    }

    async fn say(&self, token: &ClaimToken, step: TaskMove) -> Result<Worded, WordRefusal> {
        let word = TaskWord {
            id: token.task.clone(),
            app: app(),
            proof: Some(token.proof()),
            step,
            body: None,
            then: Vec::new(),
        };
        self.store.move_tasks(vec![word]).await.expect("written").pop().expect("an answer")
    }

    async fn cancel(&self, id: &TaskId) -> Moved {
        let word = TaskWord {
            id: id.clone(),
            app: app(),
            proof: None,
            step: TaskMove::Cancel,
            body: None,
            then: Vec::new(),
        };
        let answers = self.store.move_tasks(vec![word]).await.expect("written");
        answers.into_iter().next().expect("an answer").expect("heard").moved
    }

    async fn complete(&self, task: &ClaimedTask) {
        let done = self.say(&task.token, TaskMove::Complete).await.expect("completed");
        assert_eq!((done.moved, done.state), (Moved::Now, TaskState::Succeeded));
    }

    /// The position, and the first and the end of each range above it.
    async fn settled(&self) -> (u64, Vec<(u64, u64)>) {
        let lane = self.store.lane(&self.cursor).await.expect("a lane");
        let above = lane.above.into_iter().map(|range| (range.start, range.end)).collect();
        (lane.open.expect("an open round").position, above)
    }

    async fn count(&self, text: &str) -> i64 {
        number(&self.home.raw().await, text).await
    }

    async fn queue(&self, state: TaskState) -> u64 {
        let queue = self.store.queue(&app(), COMMAND).await.expect("a queue");
        queue.counts.iter().find(|(of, _)| *of == state).map_or(0, |(_, count)| *count)
    }

    /// What the queue says agrees with the rows.
    async fn counts_agree(&self) {
        for state in TaskState::ALL {
            let text = format!("select count(*) from task where state = '{state}'");
            let rows = u64::try_from(self.count(&text).await).expect("a count");
            assert_eq!(self.queue(*state).await, rows, "{state}");
        }
        let bytes = self.store.queue(&app(), COMMAND).await.expect("a queue").bytes;
        let open = self.count("select cast(coalesce(sum(bytes), 0) as bigint) from task").await;
        assert_eq!(bytes, u64::try_from(open).expect("a size"));
    }

    async fn patch(&self, state: WatchState) {
        let patch = WatchPatch { state: Some((state, None)), ..WatchPatch::default() };
        self.store.patch_watch(&app(), &self.watch.id, &patch).await.expect("patched");
    }
}

fn position(task: &ClaimedTask) -> u64 {
    task.token.place.as_ref().expect("the place of a change").position
}

fn lost() -> Result<Worded, WordRefusal> {
    Err(WordRefusal::Move(MoveRefusal::ClaimLost))
}

async fn ends_in_any_order_settle_and_the_round_ends(home: Home) {
    let desk = Desk::new(home, 4).await;
    let round = desk.begin(0, 6).await;
    assert_eq!(desk.hand_over(&round).await, 4, "a window");
    assert_eq!(desk.hand_over(&round).await, 0);
    let claimed = desk.claim(9).await;
    assert_eq!(claimed.iter().map(position).collect::<Vec<_>>(), [0, 1, 2, 3], "in the order of the round");
    desk.complete(&claimed[2]).await;
    assert_eq!(desk.settled().await, (0, vec![(2, 3)]), "above the position");
    assert_eq!(desk.hand_over(&round).await, 1, "what ended makes room");
    desk.complete(&claimed[0]).await;
    assert_eq!(desk.settled().await, (1, vec![(2, 3)]));
    desk.complete(&claimed[1]).await;
    assert_eq!(desk.settled().await, (3, vec![]), "neighbours are joined");
    desk.complete(&claimed[3]).await;
    desk.hand_over(&round).await;
    for task in desk.claim(9).await {
        desk.complete(&task).await;
    }
    let room = desk.store.hand_over_room(&desk.cursor, round.number).await.expect("read").expect("open");
    assert!(room.is_settled && room.positions.is_empty());
    assert_eq!(desk.count("select count(*) from settled").await, 1, "one range, however many changes");
    assert_eq!(desk.count("select count(*) from task").await, 0);
    assert_eq!(desk.count("select count(*) from task_change").await, 0);
    desk.counts_agree().await;
    let ended = desk.store.finish_round(&desk.cursor, round.number, START, false).await;
    assert!(ended.expect("written"));
    // Long after, a completion that is repeated is confirmed, and no other word is.
    let again = desk.say(&claimed[2].token, TaskMove::Complete).await.expect("confirmed");
    assert_eq!((again.moved, again.state), (Moved::Before, TaskState::Succeeded));
    assert_eq!(desk.say(&claimed[2].token, TaskMove::Fail("no".into())).await, lost());
    let stranger = TaskWord {
        id: claimed[2].token.task.clone(),
        app: new_app(2).id,
        proof: Some(claimed[2].token.proof()),
        step: TaskMove::Complete,
        body: None,
        then: Vec::new(),
    };
    let answer = desk.store.move_tasks(vec![stranger]).await.expect("written").pop().expect("an answer");
    assert_eq!(answer, lost(), "another app learns nothing");
}

async fn creates_are_handed_over_when_every_delete_has_ended(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(2, 5).await;
    assert_eq!(desk.hand_over(&round).await, 2);
    let deletes = desk.claim(9).await;
    desk.complete(&deletes[1]).await;
    assert_eq!(desk.hand_over(&round).await, 0, "one delete is unfinished");
    let failed = desk.say(&deletes[0].token, TaskMove::Fail("no".into())).await;
    assert_eq!(failed.expect("failed").state, TaskState::Failed);
    assert_eq!(desk.hand_over(&round).await, 3, "a letter ends a delete as well");
}

async fn what_is_given_up_becomes_a_letter(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 4).await;
    let mut next = desk.changes(&round, 0, 4);
    next.changes[3].payload = Err("the content is gone".into());
    assert!(desk.store.hand_over(next).await.expect("written"));
    let claimed = desk.claim(2).await;
    desk.say(&claimed[0].token, TaskMove::Fail("no such language".into())).await.expect("failed");
    desk.say(&claimed[1].token, TaskMove::Nack { delay: None, reason: None }).await.expect("given back");
    for _ in 0..4 {
        desk.clock.advance(Duration::from_secs(3_600));
        desk.store.wake_tasks().await.expect("written");
        let again = desk.claim(9).await.into_iter().find(|task| position(task) == 1).expect("claimed again");
        let reason = Some("later".to_owned());
        desk.say(&again.token, TaskMove::Nack { delay: None, reason }).await.expect("given back");
        desk.clock.advance(Duration::from_secs(120));
        desk.store.wake_tasks().await.expect("written");
    }
    let filter = LetterFilter::default();
    let letters = desk.store.dead_letters(&app(), &filter, None, 10).await.expect("read").letters;
    let mut shown: Vec<(u64, ParkReason, &str)> =
        letters.iter().map(|letter| (letter.position, letter.reason, letter.excerpt.as_str())).collect();
    shown.sort_by_key(|(position, ..)| *position);
    assert_eq!(
        shown[..3],
        [
            (0, ParkReason::Rejected, "no such language"),
            (1, ParkReason::Failing, "later"),
            (3, ParkReason::ContentUnavailable, "the content is gone"),
        ]
    );
    assert!(letters.iter().all(|letter| letter.status == LetterStatus::Open));
    desk.counts_agree().await;
}

async fn the_end_of_a_change_is_confirmed_to_who_reports_it_again_and_no_other_end(home: Home) {
    let desk = Desk::new(home, 10).await;
    let settings = tidings_actors::ports::QueueSettings { max_attempts: Some(1), ..Default::default() };
    desk.store.set_queue(&app(), COMMAND, &settings, START).await.expect("set");
    let round = desk.begin(0, 4).await;
    desk.hand_over(&round).await;
    let claimed = desk.claim(3).await;
    let fail = || TaskMove::Fail("no such language".into());
    desk.complete(&claimed[0]).await;
    desk.say(&claimed[1].token, fail()).await.expect("given up");
    desk.clock.advance(Duration::from_secs(301));
    desk.store.wake_tasks().await.expect("the last one is dead");
    let before = |state| Ok((Moved::Before, state));
    let said = async |index: usize, step| {
        let answer = desk.say(&claimed[index].token, step).await;
        answer.map(|answer| (answer.moved, answer.state)).map_err(|refusal| lost() == Err(refusal))
    };
    assert_eq!(said(0, TaskMove::Complete).await, before(TaskState::Succeeded));
    assert_eq!(said(0, fail()).await, Err(true), "what is done is not given up");
    assert_eq!(said(1, fail()).await, before(TaskState::Failed));
    assert_eq!(said(1, TaskMove::Complete).await, Err(true), "what was given up is not done");
    assert_eq!(said(2, TaskMove::Complete).await, Err(true), "what is dead is not done");
    assert_eq!(said(2, fail()).await, Err(true));
}

async fn a_cancelled_task_is_a_letter_and_a_worker_that_ends_it_wins(home: Home) {
    let desk = Desk::new(home, 10).await;
    let round = desk.begin(0, 3).await;
    desk.hand_over(&round).await;
    let claimed = desk.claim(1).await.remove(0);
    let free = desk.changes(&round, 1, 1).changes.remove(0).task;
    assert_eq!(desk.cancel(&claimed.token.task).await, Moved::Flagged);
    assert_eq!(desk.cancel(&free).await, Moved::Now);
    desk.complete(&claimed).await;
    let skipped = "select count(*) from dead_letter where reason = 'skipped' and position = 1";
    assert_eq!(desk.count(skipped).await, 1);
    assert_eq!(desk.settled().await, (2, vec![]));
}

async fn a_batch_that_is_not_next_changes_nothing(home: Home) {
    let desk = Desk::new(home, 3).await;
    let round = desk.begin(0, 9).await;
    assert!(!desk.store.hand_over(desk.changes(&round, 1, 2)).await.expect("written"), "not the next one");
    assert!(desk.store.hand_over(desk.changes(&round, 0, 9)).await.expect("written"));
    assert_eq!(desk.count("select count(*) from task").await, 3, "no more than the window");
    assert!(!desk.store.hand_over(desk.changes(&round, 0, 3)).await.expect("written"), "a lane that repeats");
    let stale = Round { number: round.number + 1, ..round.clone() };
    assert!(!desk.store.hand_over(desk.changes(&stale, 3, 3)).await.expect("written"));
    assert_eq!(desk.store.hand_over_room(&desk.cursor, stale.number).await.expect("read"), None);
}

async fn a_watch_of_tasks_keeps_its_kind_of_sink(home: Home) {
    let desk = Desk::new(home, 3).await;
    let patch = |sink: Option<NewSink>| WatchPatch { sink: Some(sink), ..WatchPatch::default() };
    for other in [None, Some(NewSink { address: SinkAddress::Pull, ..sink(3, COMMAND) })] {
        let refused = desk.store.patch_watch(&app(), &desk.watch.id, &patch(other)).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))));
    }
    desk.store.patch_watch(&app(), &desk.watch.id, &patch(Some(sink(5, "index")))).await.expect("patched");
    let round = desk.begin(0, 9).await;
    assert_eq!(desk.hand_over(&round).await, 5, "the window may change");
    assert_eq!(
        desk.count(
            "select count(*) from task t join queue q on q.id = t.queue_id
        where q.command = 'index'"
        )
        .await,
        5
    );
}

async fn little_waits_while_nobody_works(home: Home) {
    let desk = Desk::new(home, 1_000).await;
    let round = desk.begin(0, 5_000).await;
    assert_eq!(desk.hand_over(&round).await, 100, "what nobody claims stays small");
    let claimed = desk.claim(50).await;
    assert_eq!(desk.hand_over(&round).await, 250, "four for each that a worker has");
    for task in &claimed {
        desk.complete(task).await;
    }
    assert_eq!(desk.hand_over(&round).await, 0, "300 wait, and nobody works");
    desk.counts_agree().await;
}

async fn tasks_that_wait_for_their_moment_keep_no_others_from_workers(home: Home) {
    let desk = Desk::new(home, 1_000).await;
    let round = desk.begin(0, 5_000).await;
    desk.hand_over(&round).await;
    let delay = Some(Duration::from_secs(600));
    for task in desk.claim(100).await {
        desk.say(&task.token, TaskMove::Nack { delay, reason: None }).await.expect("given back");
    }
    assert_eq!((desk.queue(TaskState::Waiting).await, desk.queue(TaskState::Ready).await), (100, 0));
    assert_eq!(desk.hand_over(&round).await, 100, "workers have work meanwhile");
    desk.counts_agree().await;
}

on_both! {
    ends_in_any_order_settle_and_the_round_ends
    creates_are_handed_over_when_every_delete_has_ended
    what_is_given_up_becomes_a_letter
    the_end_of_a_change_is_confirmed_to_who_reports_it_again_and_no_other_end
    a_cancelled_task_is_a_letter_and_a_worker_that_ends_it_wins
    a_batch_that_is_not_next_changes_nothing
    a_watch_of_tasks_keeps_its_kind_of_sink
    little_waits_while_nobody_works
    tasks_that_wait_for_their_moment_keep_no_others_from_workers
}
