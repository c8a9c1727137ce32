//! From a cursor's rows to an open round: reads the lane, decides its next round, plans the round and begins
//! it. Runs as a task of the deliverer, never in its mailbox; the decision is in [`next_round`], pure. Each
//! write is a single call of the store, so the task may be killed at any point.

mod blocks;
mod next;
mod planning;
mod resuming;

pub(crate) use self::resuming::renames;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use tidings_entity::{
    id::{AppId, CursorId, ObjectId},
    kind::{HistoryMode, PayloadFormat, RoundKind, WatchState},
};
use tracing::{Instrument, info, info_span, warn};

use self::{
    blocks::{Shown, block, cannot_be_delivered, is_held, lose_held, unblock},
    planning::planned,
    resuming::resume_or_block,
};
pub use self::{
    next::{Next, next_round},
    planning::fetch,
};
use crate::{
    context::Context,
    model::round::{Plan, RULES, Round, RoundSpec, TreeEnd},
    ownership::shards::ShardHold,
    ports::{Cause, CommitFacts, GitError, LaneSnapshot, NewRound, Remote, SinkKey, Store, StoreError, Walk},
    supervision::tasks::in_time,
};

/// The wait after rows changed again and again while a round was planned.
const CONFLICT_WAIT: Duration = Duration::from_secs(1);
/// The wait before a target that cannot be delivered is checked again; a new head is checked at once.
const UNFIT_WAIT: Duration = Duration::from_secs(300);
/// The wait where the host reports a missing object in its own words, or sends a malformed answer.
const DOUBTFUL_WAIT: Duration = Duration::from_secs(60);
/// The wait while the deliverer of the watch's previous sink still has the lane open.
const HANDING_OVER: Duration = Duration::from_millis(100);
/// Conflicts in a row before that wait.
const CONFLICTS_MAX: u32 = 3;
/// Rounds without a change that are passed in one task before other lanes get a turn.
const STEPS_MAX: usize = 64;

/// The result of opening a lane.
#[derive(Debug)]
pub enum Opening {
    /// There is an open round to work on.
    Open(Box<OpenLane>),
    /// The lane has no work until rows change.
    Idle,
    /// More rounds can be begun at once; other lanes get a turn first.
    Again,
    /// The lane has no work before this wait is over.
    Later(Duration),
    /// Workers still have tasks of a round that ended early: the end of the last of them wakes the lane.
    Claimed,
    /// The cursor does not exist any more.
    Gone,
}

/// A lane ready to run.
pub struct OpenLane {
    /// The rows it was read from; `open` is moved out.
    pub snapshot: LaneSnapshot,
    /// The open round, with its bound letters.
    pub round: Arc<Round>,
    /// Author, time and subject of the target commit; `None`: the round has no target.
    pub commit: Option<Arc<CommitFacts>>,
    /// For small rounds: the first deleted path of each blob, for the hint of a rename.
    pub renames: HashMap<ObjectId, Vec<u8>>,
    /// The span that the attempts of the lane belong to; `None`: it is not traced.
    pub place: Option<Cause>,
    /// The store for the lane's writes.
    pub store: Arc<dyn Store>,
    /// The right to work on its repository.
    pub hold: ShardHold,
}

impl fmt::Debug for OpenLane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { snapshot, round, hold, .. } = self;
        formatter
            .debug_struct("OpenLane")
            .field("cursor", &snapshot.cursor)
            .field("round", &round.number)
            .field("hold", hold)
            .finish_non_exhaustive()
    }
}

/// The reason why a lane could not be opened; it is tried again later.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// A read or a write of the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading or fetching from Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// Opens the lane of a cursor.
pub async fn open(context: &Context, sink: &SinkKey, cursor: &CursorId) -> Result<Opening, OpeningError> {
    let span = info_span!("lane.open", cursor.id = %cursor);
    let cause = context.causes.lane_opens(cursor);
    if let Some(cause) = cause {
        context.tracer.follow(&span, cause);
    }
    let mut opening = open_owned(context, sink, cursor).instrument(span.clone()).await;
    match &mut opening {
        Ok(Opening::Open(open)) => open.place = context.tracer.place(&span),
        Ok(Opening::Idle | Opening::Gone) => {}
        // The next opening has the same cause.
        Ok(Opening::Again | Opening::Later(_) | Opening::Claimed) | Err(_) => {
            context.causes.of_lane(cursor, cause);
        }
    }
    opening
}

/// Opens a lane if this process works on its repository: the rows that decide are read after the right to
/// work was checked. A short read before that finds the repository and whether there is anything to do,
/// because lanes are opened after each round and mostly there is nothing.
async fn open_owned(context: &Context, sink: &SinkKey, cursor: &CursorId) -> Result<Opening, OpeningError> {
    let app = &sink.app;
    let turn = context.rows.take(app).await;
    let glimpse = in_time(context.store.glimpse(cursor)).await;
    drop(turn);
    let glimpse = match glimpse {
        Err(StoreError::NotFound) => return Ok(Opening::Gone),
        seen => seen?,
    };
    if glimpse.sink != sink.sink {
        return Ok(Opening::Gone);
    }
    if !glimpse.is_waiting {
        return Ok(Opening::Idle);
    }
    if context.terms.runs(cursor) {
        // The deliverer of the watch's previous sink still waits for answers: opening now could send changes
        // twice.
        return Ok(Opening::Later(HANDING_OVER));
    }
    if context.shards.is_sole() {
        return open_held(context, app, cursor, ShardHold::sole()).await;
    }
    match context.of(&glimpse.repository) {
        Some((context, hold)) => open_held(&context, app, cursor, hold).await,
        None => Ok(Opening::Idle),
    }
}

async fn open_held(
    context: &Context,
    app: &AppId,
    cursor: &CursorId,
    mut hold: ShardHold,
) -> Result<Opening, OpeningError> {
    let mut conflicts = 0;
    for _ in 0..STEPS_MAX {
        if conflicts >= CONFLICTS_MAX {
            return Ok(Opening::Later(CONFLICT_WAIT));
        }
        let turn = context.rows.take(app).await;
        let lane = hold.read(&context.terms, cursor, in_time(context.store.lane(cursor))).await;
        drop(turn);
        let lane = match lane {
            Err(StoreError::NotFound) => return Ok(Opening::Gone),
            other => other?,
        };
        if lane.watch_state == WatchState::Paused {
            return Ok(Opening::Idle);
        }
        let now = context.now();
        let latest = lane.deliver_after.bounded(now, context.policy.first_delay);
        if latest < lane.deliver_after {
            // The clock was ahead when the watch was registered. Written: the grace of the watch follows.
            in_time(context.store.deliver_no_later(&lane.watch, latest)).await?;
            continue;
        }
        let wait = latest.since(now);
        if !wait.is_zero() {
            return Ok(Opening::Later(wait));
        }
        if lane.open.is_some() {
            return resume_or_block(context, lane, hold).await;
        }
        if lane.has_tasks {
            return Ok(Opening::Claimed);
        }
        let next = next_round(&lane);
        let (replay, target) = match &next {
            Next::Replay(from) => (Some(from.commit), None),
            Next::Sync(target) | Next::Resync { target, .. } => (None, *target),
            Next::Nothing | Next::Unfit(_) | Next::Redrive => (None, None),
        };
        let failure = match begin_next(context, &lane, next).await {
            Ok(true) => continue,
            Ok(false) => return Ok(Opening::Idle),
            Err(failure) => failure,
        };
        if let OpeningError::Store(StoreError::Conflict(reason)) = failure {
            conflicts += 1;
            info!("the rows of the lane changed while its round was planned: {reason}");
        } else if let Some(ended) = after_failure(context, &lane, failure, replay, target).await? {
            return Ok(ended);
        }
    }
    Ok(Opening::Again)
}

/// What follows from a failure to begin a round. `None`: the rows were changed, so decide again.
async fn after_failure(
    context: &Context,
    lane: &LaneSnapshot,
    failure: OpeningError,
    replay: Option<ObjectId>,
    target: Option<ObjectId>,
) -> Result<Option<Opening>, OpeningError> {
    let reason = match failure {
        OpeningError::Git(reason) => reason,
        other => return Err(other),
    };
    if let Some(from) = replay
        && (matches!(reason, GitError::Unobtainable(_)) || reason.is_of_the_object())
    {
        // An app that went back to a tree which cannot be fetched may hold anything: only a complete resync
        // helps.
        let said = format!("the replay from {from} cannot be done: {reason}");
        warn!(commit = %from, "{said}; a complete resync follows");
        in_time(context.store.request_cursor_resync(&lane.cursor, true, &said)).await?;
        return Ok(None);
    }
    match reason {
        // The commit of the branch cannot be fetched anywhere: nothing can be delivered before it can, or
        // before the branch moves.
        GitError::Unobtainable(commit) if target == Some(commit) => {
            let said = cannot_be_delivered(
                lane,
                &format!("its commit {commit} is neither in the mirror nor at the Git host"),
            );
            block(context, &Shown::of(lane), &said).await?;
            Ok(Some(Opening::Later(UNFIT_WAIT)))
        }
        // An old tree cannot be fetched anywhere: the only case that needs a complete resync.
        GitError::Unobtainable(commit) if is_held(lane, commit) => {
            lose_held(context, lane, commit, target).await
        }
        reason if reason.is_divisible() => {
            block(context, &Shown::of(lane), &cannot_be_delivered(lane, &reason)).await?;
            // A reason in the host's own words may be temporary; a property of the object is permanent.
            let wait = if reason.is_of_the_object() { UNFIT_WAIT } else { DOUBTFUL_WAIT };
            Ok(Some(Opening::Later(wait)))
        }
        reason => Err(reason.into()),
    }
}

/// Begins the next round, or moves held over commits that change nothing. `false`: nothing to do.
async fn begin_next(context: &Context, lane: &LaneSnapshot, next: Next) -> Result<bool, OpeningError> {
    let held = lane.held.clone().map(|(commit, view)| TreeEnd { commit, view });
    let end = |commit: Option<ObjectId>| commit.map(|commit| TreeEnd { commit, view: lane.view.clone() });
    let mut flags = Flags::default();
    let (kind, held, target, bases) = match next {
        Next::Unfit(reason) => {
            // The poll that fetches the head wakes the lane.
            block(context, &Shown::of(lane), &cannot_be_delivered(lane, &reason)).await?;
            return Ok(false);
        }
        Next::Nothing => {
            // The branch is back at the held commit: a commit in between that could not be delivered is no
            // reason to block any more.
            if lane.head.is_some() {
                unblock(context, lane).await?;
            }
            return Ok(false);
        }
        Next::Sync(head) => {
            let target = match (head, &lane.held, lane.mode) {
                (Some(head), Some((held, _)), HistoryMode::Every) if *held != head => {
                    Some(next_commit(context, &lane.remote, head, *held, &mut flags).await?)
                }
                _ => head,
            };
            (RoundKind::Sync, held, end(target), Vec::new())
        }
        Next::Resync { target, complete } => {
            flags.complete = complete;
            (RoundKind::Resync, held, end(target), lane.resync_bases.clone())
        }
        // A replay ends at the held commit (at nothing, if nothing is held any more), not at the head: so it
        // is right whether or not the app really went back to `from`.
        Next::Replay(from) => (RoundKind::Replay, Some(from), held, Vec::new()),
        Next::Redrive => (RoundKind::Redrive, held.clone(), held, Vec::new()),
    };
    let spec = RoundSpec { kind, held, target, bases, letters: Vec::new() };
    let (spec, plan) = match planned(context, lane, spec.clone()).await {
        // A complete resync sends deletes for the old trees that can be read. If an old tree cannot be
        // fetched, or exceeds a limit, the resync sends no deletes.
        Err(OpeningError::Git(reason))
            if flags.complete
                && (matches!(reason, GitError::Unobtainable(_)) || reason.is_of_the_object()) =>
        {
            planned(context, lane, RoundSpec { held: None, bases: Vec::new(), ..spec }).await?
        }
        other => other?,
    };
    if plan.summary.total() == 0 && plan.letters.is_empty() {
        match (kind, &spec.held) {
            (RoundKind::Sync, _) => {
                let target = spec.target.map(|target| (target.commit, target.view.id()));
                in_time(context.store.advance(&lane.cursor, lane.last_round, target)).await?;
                return Ok(true);
            }
            (RoundKind::Replay, Some(from)) => {
                in_time(context.store.drop_replay(&lane.cursor, from.commit)).await?;
                return Ok(true);
            }
            _ => {}
        }
    }
    if deletes_too_much(context, lane, &spec, &plan).await? {
        return Ok(false);
    }
    begin(context, lane, spec, plan, flags).await?;
    Ok(true)
}

#[derive(Default)]
struct Flags {
    history_rewritten: bool,
    skipped_commits: bool,
    complete: bool,
}

/// In `every` mode: the first commit after `held` on the way to the head.
async fn next_commit(
    context: &Context,
    remote: &Remote,
    head: ObjectId,
    held: ObjectId,
    flags: &mut Flags,
) -> Result<ObjectId, OpeningError> {
    Ok(match context.git.walk(remote, head, held, context.policy.every_max).await? {
        Walk::Reached(commits) => commits.first().copied().unwrap_or(head),
        Walk::Rewritten => {
            flags.history_rewritten = true;
            head
        }
        Walk::LimitReached => {
            flags.skipped_commits = true;
            head
        }
    })
}

/// Pauses the watch instead of deleting most of the files that its app holds: this guards against a mistake
/// at the source.
async fn deletes_too_much(
    context: &Context,
    lane: &LaneSnapshot,
    spec: &RoundSpec,
    plan: &Plan,
) -> Result<bool, OpeningError> {
    let Some(percent) = context.policy.max_delete_percent else { return Ok(false) };
    if spec.kind != RoundKind::Sync || plan.summary.deletes == 0 || lane.guard_waived {
        return Ok(false);
    }
    let all = RoundSpec { target: None, ..spec.clone() };
    let held = context.git.plan(&lane.remote, &all, &[]).await?.summary.deletes;
    if plan.summary.deletes.saturating_mul(100) <= held.saturating_mul(u64::from(percent)) {
        return Ok(false);
    }
    let reason = format!(
        "the next round would delete {} of {held} files, more than {percent} %; resume to let it happen",
        plan.summary.deletes
    );
    in_time(context.store.pause_by_guard(&lane.cursor, &reason)).await?;
    Ok(true)
}

async fn begin(
    context: &Context,
    lane: &LaneSnapshot,
    spec: RoundSpec,
    plan: Plan,
    flags: Flags,
) -> Result<(), OpeningError> {
    let began_at = context.now();
    let number = began_at.0.max(lane.last_round + 1);
    info!(
        cursor.id = %lane.cursor,
        round.number = number,
        round.kind = %spec.kind,
        round.total = plan.summary.total(),
        "round {number} of {} begins: {} deletes, {} creates, {} updates",
        lane.cursor,
        plan.summary.deletes,
        plan.summary.creates,
        plan.summary.updates
    );
    let _turn = context.rows.take(&lane.app).await;
    let sink = SinkKey { app: lane.app.clone(), sink: lane.sink.clone() };
    let app = in_time(context.store.served(&sink)).await?;
    let format = app.map_or(PayloadFormat::Docora, |app| app.format());
    let round = Round {
        cursor: lane.cursor.clone(),
        number,
        spec: RoundSpec { letters: plan.letters, ..spec },
        summary: plan.summary,
        rules: RULES,
        began_at,
        branch: lane.branch.clone(),
        url: lane.facts.github_url.clone(),
        format,
        history_rewritten: flags.history_rewritten,
        skipped_commits: flags.skipped_commits,
        complete: flags.complete,
        position: 0,
    };
    in_time(context.store.begin_round(&NewRound { round, planned_after: lane.last_round })).await?;
    unblock(context, lane).await
}
