//! Who waits for a change of tasks, which verbs may make true what they wait for, and that each verb sends the
//! word by which they learn of it.
//!
//! [`Waiter`] lists everybody who waits, `verbs!` is the table, and one test does each verb of the table on a
//! real database and compares those who are told with the table. A verb without a row cannot be done here, and
//! a part of the news that nobody hears does not compile ([`Waiter::told_by`]).
//!
//! What follows a word is tested with the actors: `actors/src/housekeeping/claims/tests.rs`. Three waits have
//! no row because no verb of tasks ends them: requests that pull changes wait for their lane, a wider `window`
//! of a sink comes with the look at the rows of its app, and a redrive of tasks that met a bound waits at its
//! client, which sends the request again.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use tidings_actors::ports::{
    Clock, NewTask, QueueSettings, ScheduleSettings, ScheduleStore, TaskNews, TopicPolicy,
};
use tidings_entity::{
    id::QueueId,
    kind::{MissedTicks, TickOverlap},
};

use super::{interruptions::made, *};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Everybody who waits for a change of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waiter {
    /// A claim that waits for tasks, of one task or of several.
    Claim,
    /// A worker that waits for a message of its worker subscription.
    Listener,
    /// A request that waits for the result of a task.
    Result,
    /// A lane that waits for room, for the deletes of its round, or for the last claim of a round that ended
    /// early. Redrives of dead letters wait as lanes.
    Lane,
    /// A schedule whose tick waits for the end of what the tick before began, or is due.
    Tick,
    /// The clock, which must look before the moment that it knows of.
    Clock,
}

impl Waiter {
    /// Who hears of this news.
    fn told_by(news: &TaskNews, now: Timestamp) -> BTreeSet<Self> {
        let TaskNews { ready, rated, ended, room, wake_at, tally: _ } = news;
        let place = (app(), QueueId::of(&app(), COMMAND));
        let is_told = [
            (Self::Claim, ready.contains(&place)),
            (Self::Listener, ready.contains(&place) || rated.contains(&place)),
            (Self::Result, !ended.is_empty()),
            (Self::Lane, room.contains(&app())),
            (Self::Tick, wake_at.is_some_and(|at| at <= now)),
            (Self::Clock, wake_at.is_some_and(|at| at > now)),
        ];
        is_told.into_iter().filter(|(_, is_told)| *is_told).map(|(waiter, _)| waiter).collect()
    }
}

/// Each verb, who waits for what it may make true, and the function that does it: that function ends with the
/// verb, and forgets before it what the steps up to there told ([`Desk::quiet`]).
macro_rules! verbs {
    ($($verb:ident [$($waiter:ident)*] $function:ident;)+) => {
        /// Everything that changes tasks, or what decides about them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Verb { $($verb,)+ }

        impl Verb {
            const ALL: &'static [Self] = &[$(Self::$verb,)+];

            /// Who waits for what this verb may make true.
            fn wakes(self) -> BTreeSet<Waiter> {
                match self { $(Self::$verb => BTreeSet::from([$(Waiter::$waiter,)*]),)+ }
            }

            async fn happen(self, desk: &Desk) {
                match self { $(Self::$verb => $function(desk).await,)+ }
            }
        }
    };
}

verbs! {
    // Producers.
    Create [Claim Listener] create;
    CreateForLater [Clock] create_for_later;
    HandOver [Claim Listener] hand_over;
    // Workers.
    Take [Lane Clock] take;
    TakeWhatTheRateAllows [Listener Lane Clock] take_what_the_rate_allows;
    TakeOfADisabledApp [Lane] take_of_a_disabled_app;
    Heartbeat [Clock] heartbeat;
    GiveBack [Claim Listener] give_back;
    GiveBackForLater [Clock] give_back_for_later;
    GiveBackWhereClaimsAreBounded [Claim Listener Clock] give_back_where_claims_are_bounded;
    Complete [Result Lane] complete;
    CompleteWhereClaimsAreBounded [Claim Listener Result Lane] complete_where_claims_are_bounded;
    CompleteWithFollowUps [Claim Listener Result Lane] complete_with_follow_ups;
    CompleteTheTaskOfATick [Result Lane Tick] complete_the_task_of_a_tick;
    Fail [Result Lane] fail;
    LastAttempt [Result Lane] last_attempt;
    SuccessInABlockedBranch [Claim Listener Result Lane] success_in_a_blocked_branch;
    LastWordOfAnOvertakenRound [Result Lane] last_word_of_an_overtaken_round;
    // The clock.
    Due [Claim Listener] due;
    RunOut [Claim Listener] run_out;
    TickFires [Claim Listener] tick_fires;
    Retention [] retention;
    // People, about tasks and queues.
    Cancel [Result Lane] cancel;
    CancelOfAClaim [Clock] cancel_of_a_claim;
    Redrive [Claim Listener] redrive;
    Purge [Result Lane] purge;
    PurgeOfTheTaskOfATick [Result Lane Tick] purge_of_the_task_of_a_tick;
    PauseQueue [] pause_queue;
    ResumeQueue [Claim Listener] resume_queue;
    SetQueue [Claim Listener] set_queue;
    SetTopic [Claim Listener] set_topic;
    SetSchedule [Tick] set_schedule;
    ResumeSchedule [Tick] resume_schedule;
    // People, about watches and apps.
    PauseWatch [Lane] pause_watch;
    ResumeWatch [Claim Listener] resume_watch;
    Block [Lane] block;
    Unblock [Claim Listener] unblock;
    Resync [Result Lane] resync;
    EndOfAResync [Tick] end_of_a_resync;
    EndOfARedrive [Result Lane] end_of_a_redrive;
    Unwatch [Result Lane] unwatch;
    UnwatchWhereClaimsAreBounded [Claim Listener Result Lane] unwatch_where_claims_are_bounded;
    EnableApp [Claim Listener Tick] enable_app;
    // Everybody who waits for tasks of this app goes with it.
    EraseApp [] erase_app;
}

/// Does each verb on a database of its own.
async fn each_verb(home: impl AsyncFn() -> Option<Home>) {
    let mut wrong = Vec::new();
    for verb in Verb::ALL {
        let Some(home) = home().await else { return };
        let desk = Desk::new(home, 30).await;
        verb.happen(&desk).await;
        let told = Waiter::told_by(&desk.news(), desk.clock.now());
        if told != verb.wakes() {
            wrong.push(format!("{verb:?}: {:?} are waited for, {told:?} are told", verb.wakes()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn each_verb_tells_those_whose_wait_it_may_end() {
    each_verb(async || Some(Home::file())).await;
}

#[tokio::test]
async fn each_verb_on_a_server_tells_those_whose_wait_it_may_end() {
    each_verb(Home::server).await;
}

#[tokio::test]
async fn a_verb_whose_caller_is_gone_tells_all_the_same() {
    let desk = Desk::new(Home::file(), 30).await;
    let round = desk.begin(0, 2).await;
    let (queue, app) = (QueueSettings::default(), app());
    let work = [Waiter::Claim, Waiter::Listener];
    desk.quiet();
    // The lane is told nothing of tasks that it handed over too late for its own deadline.
    desk.leave(desk.store.hand_over(desk.changes(&round, 0, 2)), &work).await;
    assert_eq!(desk.queue(TaskState::Ready).await, 2);
    // The connections of these requests end before their answers.
    desk.leave(desk.store.set_queue(&app, COMMAND, &queue, START), &work).await;
    desk.leave(desk.store.set_topic(&app, COMMAND, Some(&TopicPolicy::default()), START), &work).await;
    desk.leave(desk.store.pause_queue(&app, COMMAND, true), &[]).await;
    desk.leave(desk.store.pause_queue(&app, COMMAND, false), &work).await;
    let settings = desk.each_minute(false);
    desk.leave(desk.store.set_schedule(&app, "nightly", &settings), &[Waiter::Tick]).await;
    desk.leave(desk.store.pause_schedule(&app, "nightly", true), &[Waiter::Tick]).await;
}

impl Desk {
    /// Begins a verb whose caller is gone before its answer, and compares who is told once it is done.
    async fn leave<T>(&self, verb: impl Future<Output = T>, wakes: &[Waiter]) {
        assert!(verb.now_or_never().is_none(), "the writer has not begun yet");
        // The writer does one verb after another, and this one tells nothing.
        self.store.forget_tasks_of(&app(), START, 1).await.expect("written");
        let told = Waiter::told_by(&self.news(), self.clock.now());
        assert_eq!(told, BTreeSet::from_iter(wakes.iter().copied()));
    }

    /// Takes what was told since the last call.
    fn news(&self) -> TaskNews {
        self.store.task_news().now_or_never().unwrap_or_default()
    }

    /// Forgets what was told so far.
    fn quiet(&self) {
        drop(self.news());
    }

    async fn set(&self, settings: QueueSettings) {
        self.store.set_queue(&app(), COMMAND, &settings, START).await.expect("set");
    }

    /// Creates this number of tasks of a producer.
    async fn make(&self, count: u128) {
        self.store
            .create_tasks(&app(), (0..count).map(made).collect())
            .await
            .expect("written")
            .expect("made");
    }

    /// Makes this number of tasks of the watch.
    async fn fill(&self, count: u64) -> Round {
        let round = self.begin(0, count).await;
        assert_eq!(self.hand_over(&round).await, count);
        round
    }

    /// A task of a producer that is claimed.
    async fn taken(&self) -> ClaimedTask {
        self.make(1).await;
        self.claim(1).await.remove(0)
    }

    async fn words(&self, id: &TaskId, step: TaskMove) {
        let word = TaskWord { id: id.clone(), app: app(), proof: None, step, body: None, then: Vec::new() };
        let answers = self.store.move_tasks(vec![word]).await.expect("written");
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    /// Makes a schedule that fires each minute and waits for what the tick before began: tasks, or resyncs of
    /// the watch.
    async fn schedule(&self, is_resync: bool) {
        let settings = self.each_minute(is_resync);
        self.store.set_schedule(&app(), "nightly", &settings).await.expect("set");
    }

    fn each_minute(&self, is_resync: bool) -> ScheduleSettings {
        ScheduleSettings {
            cron: "* * * * *".into(),
            zone: "UTC".into(),
            missed: MissedTicks::One,
            overlap: TickOverlap::Wait,
            watch: is_resync.then(|| self.watch.id.clone()),
            command: if is_resync { String::new() } else { COMMAND.into() },
            payload: "{}".into(),
            priority: 0,
            max_attempts: None,
            callback: None,
        }
    }

    /// Two minutes later, with a look at the clock in each: the first tick has its task, the second one waits.
    async fn two_ticks(&self) {
        self.schedule(false).await;
        for ticks in [1, 0] {
            self.clock.advance(MINUTE);
            assert_eq!(self.store.wake_tasks().await.expect("woken").ticks, ticks);
        }
    }
}

fn nack(delay: Duration) -> TaskMove {
    TaskMove::Nack { delay: Some(delay), reason: None }
}

fn one_at_a_time() -> QueueSettings {
    QueueSettings { max_claimed: Some(1), ..QueueSettings::default() }
}

async fn create(desk: &Desk) {
    desk.quiet();
    desk.make(1).await;
}

async fn create_for_later(desk: &Desk) {
    desk.quiet();
    let task = NewTask { delay: Some(MINUTE), ..made(1) };
    desk.store.create_tasks(&app(), vec![task]).await.expect("written").expect("made");
}

async fn hand_over(desk: &Desk) {
    let round = desk.begin(0, 2).await;
    desk.quiet();
    assert_eq!(desk.hand_over(&round).await, 2);
}

async fn take(desk: &Desk) {
    desk.make(2).await;
    desk.quiet();
    assert_eq!(desk.claim(1).await.len(), 1);
}

async fn take_what_the_rate_allows(desk: &Desk) {
    desk.set(QueueSettings { rate: Some(1), ..QueueSettings::default() }).await;
    desk.make(2).await;
    desk.quiet();
    assert_eq!(desk.claim(9).await.len(), 1);
}

async fn take_of_a_disabled_app(desk: &Desk) {
    desk.fill(2).await;
    desk.disable(Some("by hand")).await;
    desk.quiet();
    assert!(desk.claim(9).await.is_empty());
}

async fn heartbeat(desk: &Desk) {
    let task = desk.taken().await;
    desk.quiet();
    desk.say(&task.token, TaskMove::Heartbeat(2 * MINUTE)).await.expect("extended");
}

async fn give_back(desk: &Desk) {
    let task = desk.taken().await;
    desk.quiet();
    desk.say(&task.token, nack(Duration::ZERO)).await.expect("given back");
}

async fn give_back_for_later(desk: &Desk) {
    let task = desk.taken().await;
    desk.quiet();
    desk.say(&task.token, nack(MINUTE)).await.expect("given back");
}

async fn give_back_where_claims_are_bounded(desk: &Desk) {
    desk.set(one_at_a_time()).await;
    desk.make(2).await;
    let task = desk.claim(9).await.remove(0);
    desk.quiet();
    desk.say(&task.token, nack(MINUTE)).await.expect("given back");
}

async fn complete(desk: &Desk) {
    let task = desk.taken().await;
    desk.quiet();
    desk.complete(&task).await;
}

async fn complete_where_claims_are_bounded(desk: &Desk) {
    desk.set(one_at_a_time()).await;
    desk.make(2).await;
    let task = desk.claim(9).await.remove(0);
    desk.quiet();
    desk.complete(&task).await;
}

async fn complete_with_follow_ups(desk: &Desk) {
    let task = desk.taken().await;
    desk.quiet();
    let word = TaskWord {
        id: task.token.task.clone(),
        app: app(),
        proof: Some(task.token.proof()),
        step: TaskMove::Complete,
        body: None,
        then: vec![made(7)],
    };
    let answers = desk.store.move_tasks(vec![word]).await.expect("written");
    assert!(answers[0].is_ok(), "{answers:?}");
}

async fn complete_the_task_of_a_tick(desk: &Desk) {
    desk.two_ticks().await;
    let task = desk.claim(1).await.remove(0);
    desk.quiet();
    desk.complete(&task).await;
}

async fn fail(desk: &Desk) {
    let task = desk.taken().await;
    desk.quiet();
    desk.say(&task.token, TaskMove::Fail("no".into())).await.expect("failed");
}

async fn last_attempt(desk: &Desk) {
    desk.set(QueueSettings { max_attempts: Some(1), ..QueueSettings::default() }).await;
    let task = desk.taken().await;
    desk.quiet();
    desk.say(&task.token, nack(Duration::ZERO)).await.expect("dead");
}

async fn success_in_a_blocked_branch(desk: &Desk) {
    desk.set(QueueSettings { max_attempts: Some(1), ..QueueSettings::default() }).await;
    desk.fill(14).await;
    for task in desk.claim(10).await {
        desk.say(&task.token, nack(Duration::ZERO)).await.expect("dead");
    }
    let probe = desk.claim(9).await;
    assert_eq!(probe.len(), 1, "the branch is blocked");
    desk.quiet();
    desk.complete(&probe[0]).await;
}

async fn last_word_of_an_overtaken_round(desk: &Desk) {
    desk.fill(1).await;
    let task = desk.claim(1).await.remove(0);
    desk.store.request_resync(&app(), &desk.watch.id, false).await.expect("asked");
    desk.quiet();
    assert_eq!(desk.say(&task.token, TaskMove::Complete).await, lost());
}

async fn due(desk: &Desk) {
    create_for_later(desk).await;
    desk.clock.advance(MINUTE);
    desk.quiet();
    assert_eq!(desk.store.wake_tasks().await.expect("woken").due, 1);
}

async fn run_out(desk: &Desk) {
    desk.taken().await;
    desk.clock.advance(MINUTE + SECOND);
    desk.quiet();
    assert_eq!(desk.store.wake_tasks().await.expect("woken").expired, 1);
}

async fn tick_fires(desk: &Desk) {
    desk.schedule(false).await;
    desk.clock.advance(MINUTE);
    desk.quiet();
    assert_eq!(desk.store.wake_tasks().await.expect("woken").ticks, 1);
}

async fn retention(desk: &Desk) {
    let task = desk.taken().await;
    desk.complete(&task).await;
    desk.clock.advance(Duration::from_secs(8 * 24 * 3_600));
    desk.quiet();
    assert_eq!(desk.store.forget_tasks(100).await.expect("forgotten"), 1);
}

async fn cancel(desk: &Desk) {
    desk.make(1).await;
    desk.quiet();
    desk.words(&made(0).id, TaskMove::Cancel).await;
}

async fn cancel_of_a_claim(desk: &Desk) {
    let task = desk.taken().await;
    desk.say(&task.token, TaskMove::Heartbeat(5 * MINUTE)).await.expect("extended");
    desk.quiet();
    desk.words(&task.token.task, TaskMove::Cancel).await;
}

async fn redrive(desk: &Desk) {
    cancel(desk).await;
    desk.quiet();
    desk.words(&made(0).id, TaskMove::Redrive).await;
}

async fn purge(desk: &Desk) {
    desk.make(2).await;
    desk.quiet();
    assert_eq!(desk.store.purge_queue(&app(), COMMAND, 10).await.expect("purged"), 2);
}

async fn purge_of_the_task_of_a_tick(desk: &Desk) {
    desk.two_ticks().await;
    desk.quiet();
    assert_eq!(desk.store.purge_queue(&app(), COMMAND, 10).await.expect("purged"), 1);
}

async fn pause_queue(desk: &Desk) {
    desk.make(1).await;
    desk.quiet();
    desk.store.pause_queue(&app(), COMMAND, true).await.expect("paused");
}

async fn resume_queue(desk: &Desk) {
    pause_queue(desk).await;
    desk.quiet();
    desk.store.pause_queue(&app(), COMMAND, false).await.expect("resumed");
}

async fn set_queue(desk: &Desk) {
    desk.make(1).await;
    desk.quiet();
    desk.set(one_at_a_time()).await;
}

async fn set_topic(desk: &Desk) {
    desk.make(1).await;
    desk.quiet();
    desk.store.set_topic(&app(), COMMAND, Some(&TopicPolicy::default()), START).await.expect("set");
}

async fn set_schedule(desk: &Desk) {
    desk.quiet();
    desk.schedule(false).await;
}

async fn resume_schedule(desk: &Desk) {
    desk.schedule(false).await;
    desk.store.pause_schedule(&app(), "nightly", true).await.expect("paused");
    desk.quiet();
    desk.store.pause_schedule(&app(), "nightly", false).await.expect("resumed");
}

async fn pause_watch(desk: &Desk) {
    desk.fill(2).await;
    desk.quiet();
    desk.patch(WatchState::Paused).await;
}

async fn resume_watch(desk: &Desk) {
    pause_watch(desk).await;
    desk.quiet();
    desk.patch(WatchState::Active).await;
}

async fn block(desk: &Desk) {
    desk.fill(3).await;
    desk.quiet();
    desk.store.set_blocked(&desk.cursor, Some("by hand")).await.expect("blocked");
    assert_eq!(desk.queue(TaskState::Aside).await, 2, "only the oldest is tried");
}

async fn unblock(desk: &Desk) {
    block(desk).await;
    desk.quiet();
    desk.store.set_blocked(&desk.cursor, None).await.expect("unblocked");
}

async fn resync(desk: &Desk) {
    desk.fill(3).await;
    desk.claim(1).await;
    desk.quiet();
    desk.store.request_resync(&app(), &desk.watch.id, false).await.expect("asked");
}

async fn end_of_a_resync(desk: &Desk) {
    desk.schedule(true).await;
    desk.store.request_resync(&app(), &desk.watch.id, false).await.expect("asked");
    let round = desk.fill(1).await;
    assert_eq!(round.spec.kind, RoundKind::Resync);
    let task = desk.claim(1).await.remove(0);
    desk.complete(&task).await;
    desk.clock.advance(MINUTE);
    assert!(desk.store.wake_tasks().await.expect("woken").resynced.is_empty(), "the tick waits");
    desk.quiet();
    desk.finish(&round).await;
}

async fn end_of_a_redrive(desk: &Desk) {
    let round = desk.fill(1).await;
    let task = desk.claim(1).await.remove(0);
    desk.say(&task.token, TaskMove::Fail("no".into())).await.expect("failed");
    desk.finish(&round).await;
    let redrive = desk.redrive().await;
    assert_eq!(desk.hand_over(&redrive).await, 1);
    desk.quiet();
    let ended = desk.store.end_redrive(&desk.cursor, redrive.number, &[], START).await;
    assert!(ended.expect("written"));
}

async fn unwatch(desk: &Desk) {
    desk.fill(2).await;
    desk.quiet();
    desk.store.unwatch(&app(), &desk.watch.id).await.expect("unwatched");
}

async fn unwatch_where_claims_are_bounded(desk: &Desk) {
    desk.set(one_at_a_time()).await;
    desk.fill(1).await;
    desk.claim(9).await;
    desk.make(1).await;
    desk.quiet();
    desk.store.unwatch(&app(), &desk.watch.id).await.expect("unwatched");
}

async fn enable_app(desk: &Desk) {
    take_of_a_disabled_app(desk).await;
    desk.quiet();
    desk.disable(None).await;
}

async fn erase_app(desk: &Desk) {
    desk.make(1).await;
    desk.quiet();
    desk.store.erase_app(&app()).await.expect("erased");
}
