//! From a cursor's rows to an open round: reads the lane, decides what its next round is, plans it,
//! begins it. Runs as a task of the deliverer, never in its mailbox; everything it decides is in
//! [`next_round`], pure. What it writes is one verb of the store at a time, so it may be killed
//! anywhere.

mod blocks;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use tidings_entity::{
    id::{AppId, CursorId, DeadLetterId, ObjectId},
    kind::{CursorState, HistoryMode, LetterStatus, PayloadFormat, RoundKind, WatchState},
};
use tracing::{Instrument, info, info_span, warn};

use self::blocks::{Shown, block, cannot_be_delivered, is_held, lose_held, unblock};
use crate::{
    context::Context,
    follow::goes,
    ports::{
        Cause, CommitFacts, Extent, FetchOrder, GitError, LANE_LETTERS, LaneSnapshot, LetterPick, NewRound,
        Remote, Seek, SinkKey, Store, StoreError, Walk,
    },
    round::{Letter, Plan, RULES, Round, RoundSpec, Summary, TreeEnd},
    shards::Hold,
    tasks::in_time,
};

/// Changes of a sync round up to which its letters are looked up by path; beyond, all are read.
const LOOKED_UP_MAX: u64 = 100_000;
/// Deletes, and creates, of a round up to which renames are hinted.
const RENAMES_MAX: u64 = 10_000;
/// The wait after rows changed again and again while a round was planned.
const CONFLICT_WAIT: Duration = Duration::from_secs(1);
/// The wait before a target that cannot be delivered is looked at again; a new head does not wait.
const UNFIT_WAIT: Duration = Duration::from_secs(300);
/// The same where a host says so in words of its own, or sends what makes no sense.
const DOUBTFUL_WAIT: Duration = Duration::from_secs(60);
/// The wait for a lane that ends at the sink which its watch had before.
const HANDING_OVER: Duration = Duration::from_millis(100);
/// Conflicts in a row before that wait.
const CONFLICTS_MAX: u32 = 3;
/// Rounds without a change that are walked over in one go before others get a turn.
const STEPS_MAX: usize = 64;

/// What opening a lane led to.
#[derive(Debug)]
pub enum Opening {
    /// There is an open round to work on.
    Open(Box<OpenLane>),
    /// Nothing to do until rows change.
    Idle,
    /// More may be done at once; others get a turn first.
    Again,
    /// Nothing before this wait has passed.
    Later(Duration),
    /// The cursor is gone.
    Gone,
}

/// A lane ready to run.
pub struct OpenLane {
    /// The rows it was read from; `open` is moved out.
    pub snapshot: LaneSnapshot,
    /// The open round.
    pub round: Arc<Round>,
    /// The target commit's facts.
    pub commit: Option<Arc<CommitFacts>>,
    /// Of small rounds: the first deleted path of each blob, for the hint of a rename.
    pub renames: HashMap<ObjectId, Vec<u8>>,
    /// Where the trace is that its attempts belong to.
    pub place: Option<Cause>,
    /// The store for what it writes.
    pub store: Arc<dyn Store>,
    /// The right to work on its repository.
    pub hold: Hold,
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

/// Why a lane could not be opened; it is tried again later.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Git did not do it.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// What a lane's next round is.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// None.
    Nothing,
    /// None: what the branch names cannot be had, for this reason.
    Unfit(String),
    /// From held to head (or, in `every` mode, a commit on the way), or to nothing.
    Sync(Option<ObjectId>),
    /// Everything anew.
    Resync {
        /// The commit; `None`: nothing.
        target: Option<ObjectId>,
        /// Whether the app must drop what is not named.
        complete: bool,
    },
    /// What came after this tree once more.
    Replay(TreeEnd),
    /// Letters once more.
    Redrive,
}

/// Decides what comes after a closed round.
#[must_use]
pub fn next_round(lane: &LaneSnapshot) -> Next {
    if lane.watch_state == WatchState::Paused || lane.state == CursorState::Empty {
        return Next::Nothing;
    }
    let goes = lane.head.is_none() && goes(lane.state, lane.on_branch_gone);
    if let Some(complete) = lane.resync {
        // Without a head that can be had it waits: nothing else may go before it.
        return match &lane.head_fault {
            Some(fault) => Next::Unfit(fault.clone()),
            None if lane.head.is_none() && !goes => Next::Nothing,
            None => Next::Resync { target: lane.head, complete },
        };
    }
    // What a new view leaves out must not be sent once more: a round brings the view first.
    if lane.held.as_ref().is_some_and(|(_, view)| *view != lane.view) {
        return match (&lane.head_fault, lane.head) {
            (Some(fault), Some(_)) => Next::Unfit(fault.clone()),
            (None, Some(head)) => Next::Sync(Some(head)),
            (_, None) if goes => Next::Sync(None),
            (_, None) => Next::Nothing,
        };
    }
    if let Some(from) = lane.replay.as_ref().filter(|_| lane.held.is_some()) {
        return Next::Replay(from.clone());
    }
    let redrive = lane.letters.iter().any(|(_, status)| *status == LetterStatus::RedriveRequested);
    let is_new = |head: &ObjectId| lane.held.as_ref().is_none_or(|(held, _)| held != head);
    let to_nothing = (goes && lane.held.is_some()).then_some(None);
    let sync = lane.head.filter(is_new).map(Some).or(to_nothing);
    let fault = lane.head_fault.as_ref().filter(|_| sync.is_some());
    match (sync, redrive, fault) {
        (_, true, Some(_)) => Next::Redrive,
        (_, false, Some(fault)) => Next::Unfit(fault.clone()),
        (Some(target), true, None) if lane.last_was_redrive => Next::Sync(target),
        (_, true, None) => Next::Redrive,
        (Some(target), false, None) => Next::Sync(target),
        (None, false, None) => Next::Nothing,
    }
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
        // It is opened for the same reason another time.
        Ok(Opening::Again | Opening::Later(_)) | Err(_) => context.causes.of_lane(cursor, cause),
    }
    opening
}

/// Opens it where its repository is worked on here: what is decided from is read after the right to do so was
/// had. Before that one look tells whose it is, and whether there is anything to do: after each round it is
/// asked for again, and mostly there is not.
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
        // The deliverer of the sink that its watch had before waits for answers: nothing is sent twice.
        return Ok(Opening::Later(HANDING_OVER));
    }
    if context.shards.is_sole() {
        return open_held(context, app, cursor, Hold::sole()).await;
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
    mut hold: Hold,
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
        let next = next_round(&lane);
        let (replay, target) = match &next {
            Next::Replay(from) => (Some(from.commit), None),
            Next::Sync(target) | Next::Resync { target, .. } => (None, *target),
            Next::Nothing | Next::Unfit(_) | Next::Redrive => (None, None),
        };
        match (begin_next(context, &lane, next).await, replay) {
            // Nobody knows what an app has that went back to a tree which cannot be had.
            (Err(OpeningError::Git(reason)), Some(from))
                if matches!(reason, GitError::Unobtainable(_)) || reason.is_of_the_object() =>
            {
                let said = format!("the replay from {from} cannot be done: {reason}");
                warn!(commit = %from, "{said}; a complete resync follows");
                in_time(context.store.request_cursor_resync(cursor, true, &said)).await?;
            }
            // What the branch names can be had nowhere: nothing can be delivered before it can, or before the
            // branch names something else.
            (Err(OpeningError::Git(GitError::Unobtainable(commit))), _) if target == Some(commit) => {
                let said = cannot_be_delivered(&lane, &format!("its commit {commit} is obtainable nowhere"));
                block(context, &Shown::of(&lane), &said).await?;
                return Ok(Opening::Later(UNFIT_WAIT));
            }
            // An old tree that can be had nowhere: the one case for a complete resync.
            (Err(OpeningError::Git(GitError::Unobtainable(commit))), _) if is_held(&lane, commit) => {
                if let Some(blocked) = lose_held(context, &lane, commit, target).await? {
                    return Ok(blocked);
                }
            }
            (Err(OpeningError::Store(StoreError::Conflict(reason))), _) => {
                conflicts += 1;
                info!("the rows of the lane changed while its round was planned: {reason}");
            }
            (Err(OpeningError::Git(reason)), _) if reason.is_divisible() => {
                block(context, &Shown::of(&lane), &cannot_be_delivered(&lane, &reason)).await?;
                // The host's own words may be about a moment; what an object is stays.
                let wait = if reason.is_of_the_object() { UNFIT_WAIT } else { DOUBTFUL_WAIT };
                return Ok(Opening::Later(wait));
            }
            (Err(error), _) => return Err(error),
            (Ok(true), _) => {}
            (Ok(false), _) => return Ok(Opening::Idle),
        }
    }
    Ok(Opening::Again)
}

/// Takes up an open round, or says where the app sees it why that cannot be: a tree of it crosses a
/// cap that is lower than it was, or cannot be read. The round stays as it is; it goes on when
/// another look finds it well, and a resync ends it.
async fn resume_or_block(context: &Context, lane: LaneSnapshot, hold: Hold) -> Result<Opening, OpeningError> {
    let (shown, number) = (Shown::of(&lane), lane.open.as_ref().map_or(0, |round| round.number));
    match resume(context, lane, hold).await {
        Err(OpeningError::Git(reason)) if reason.is_of_the_object() => {
            let said = format!("round {number} cannot go on: {reason}; a resync is the way out");
            block(context, &shown, &said).await?;
            Ok(Opening::Later(UNFIT_WAIT))
        }
        other => other,
    }
}

/// Takes up an open round: makes its trees present and proves that its list is still the same.
async fn resume(context: &Context, mut lane: LaneSnapshot, hold: Hold) -> Result<Opening, OpeningError> {
    let Some(round) = lane.open.take() else { return Ok(Opening::Idle) };
    if !round.is_known() {
        let reason = format!("round {} was begun under rules {}", round.number, round.rules);
        in_time(context.store.request_cursor_resync(&lane.cursor, false, &reason)).await?;
        return Ok(Opening::Again);
    }
    let spec = RoundSpec { letters: Vec::new(), ..round.spec.clone() };
    let plan = match plan(context, &lane.app, &lane.remote, &spec, &round.spec.letters).await {
        Err(OpeningError::Git(GitError::Unobtainable(_))) => {
            let reason = "a tree of the open round is obtainable nowhere";
            warn!(round.number = round.number, "{reason}: a complete resync follows");
            in_time(context.store.request_cursor_resync(&lane.cursor, true, reason)).await?;
            return Ok(Opening::Again);
        }
        other => other?,
    };
    if lane.cancel_open && round.spec.kind == RoundKind::Redrive {
        return cancel(context, &lane, &round, plan.summary == round.summary).await;
    }
    if plan.summary != round.summary {
        let reason = format!(
            "the list of round {} is not the one that was begun; a resync is the way out",
            round.number
        );
        warn!(round.number = round.number, "{reason}: {:?} instead of {:?}", plan.summary, round.summary);
        in_time(context.store.set_blocked(&lane.cursor, Some(&reason))).await?;
        return Ok(Opening::Idle);
    }
    let commit = match &round.spec.target {
        Some(target) => Some(Arc::new(context.git.commit(&lane.remote, target.commit).await?)),
        None => None,
    };
    let renames = renames(context, &lane.remote, &round).await?;
    let round = Arc::new(round);
    let store = context.store.clone();
    Ok(Opening::Open(Box::new(OpenLane { snapshot: lane, round, commit, renames, place: None, store, hold })))
}

/// Ends a redrive where it stands. A letter is reached when nothing of its path lies ahead; of a
/// list that is not the one that was begun nobody can say.
async fn cancel(
    context: &Context,
    lane: &LaneSnapshot,
    round: &Round,
    known: bool,
) -> Result<Opening, OpeningError> {
    let letters = round.spec.letters.iter().filter(|_| known);
    let most = usize::try_from(round.summary.total()).unwrap_or(usize::MAX);
    let from = Seek::Position(round.position);
    let changes =
        if known { context.git.window(&lane.remote, &round.spec, &from, most).await? } else { Vec::new() };
    let is_above = |position: &u64| lane.above.iter().any(|range| range.contains(position));
    let ahead = changes.into_iter().zip(round.position..).filter(|(_, position)| !is_above(position));
    let ahead: HashSet<Vec<u8>> = ahead.map(|(change, _)| change.path).collect();
    let reached: Vec<DeadLetterId> =
        letters.filter(|letter| !ahead.contains(&letter.path)).map(|letter| letter.id.clone()).collect();
    info!(
        cursor.id = %lane.cursor, round.number = round.number,
        "round {} is cancelled: {} of {} letters were reached", round.number, reached.len(), round.spec.letters.len()
    );
    in_time(context.store.end_redrive(&lane.cursor, round.number, &reached, context.now())).await?;
    Ok(Opening::Again)
}

/// The deleted paths by blob, while deletes and creates are few enough for one list in memory.
async fn renames(
    context: &Context,
    remote: &Remote,
    round: &Round,
) -> Result<HashMap<ObjectId, Vec<u8>>, GitError> {
    if !hints_renames(&round.summary) {
        return Ok(HashMap::new());
    }
    let deletes = usize::try_from(round.summary.deletes).unwrap_or(0);
    let changes = context.git.window(remote, &round.spec, &Seek::Position(0), deletes).await?;
    let mut renames = HashMap::new();
    for change in changes {
        if let Some(old) = change.old {
            renames.entry(old.blob).or_insert(change.path);
        }
    }
    Ok(renames)
}

/// Whether a round says of a create where its content was deleted.
fn hints_renames(summary: &Summary) -> bool {
    let few = |count: u64| (1..=RENAMES_MAX).contains(&count);
    few(summary.deletes) && few(summary.creates)
}

/// Begins the next round, or moves held over commits that change nothing. `false`: nothing to do.
async fn begin_next(context: &Context, lane: &LaneSnapshot, next: Next) -> Result<bool, OpeningError> {
    let held = lane.held.clone().map(|(commit, view)| TreeEnd { commit, view });
    let end = |commit: Option<ObjectId>| commit.map(|commit| TreeEnd { commit, view: lane.view.clone() });
    let mut flags = Flags::default();
    let (kind, held, target, bases) = match next {
        Next::Unfit(reason) => {
            // The poll that can have it tells the lane.
            block(context, &Shown::of(lane), &cannot_be_delivered(lane, &reason)).await?;
            return Ok(false);
        }
        Next::Nothing => {
            // The branch names again what is held: what it named in between is no reason any more.
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
        // Up to what is held, not to the head: so it is right for an app that went back to that
        // tree as for one that did not.
        Next::Replay(from) => (RoundKind::Replay, Some(from), held, Vec::new()),
        Next::Redrive => (RoundKind::Redrive, held.clone(), held, Vec::new()),
    };
    let spec = RoundSpec { kind, held, target, bases, letters: Vec::new() };
    let (spec, plan) = match planned(context, lane, spec.clone()).await {
        // A complete resync names what it still can: the deletes of old trees that are there. An old
        // tree may be obtainable nowhere, or be over a limit; then it names none.
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

/// A round's list, with the letters that it binds.
async fn planned(
    context: &Context,
    lane: &LaneSnapshot,
    spec: RoundSpec,
) -> Result<(RoundSpec, Plan), OpeningError> {
    let candidates = candidates(context, lane, &spec).await?;
    let plan = plan(context, &lane.app, &lane.remote, &spec, &candidates).await?;
    Ok((spec, plan))
}

/// The letters that a round may bind, sorted by path. A snapshot holds a thousand; where a cursor has
/// more, those are read that can matter: what differs between the two trees of a sync round, found by
/// its own list, as long as that is short; otherwise every one.
async fn candidates(
    context: &Context,
    lane: &LaneSnapshot,
    spec: &RoundSpec,
) -> Result<Vec<Letter>, OpeningError> {
    let redrive = spec.kind == RoundKind::Redrive;
    if redrive || !lane.more_letters {
        let wanted =
            lane.letters.iter().filter(|(_, status)| !redrive || *status == LetterStatus::RedriveRequested);
        return Ok(wanted.map(|(letter, _)| letter.clone()).collect());
    }
    let mut letters = Vec::new();
    if spec.kind == RoundKind::Sync {
        let total = plan(context, &lane.app, &lane.remote, spec, &[]).await?.summary.total();
        if total <= LOOKED_UP_MAX {
            let mut seek = Seek::Position(0);
            loop {
                let changes = context.git.window(&lane.remote, spec, &seek, LANE_LETTERS).await?;
                let Some(last) = changes.last().cloned() else { break };
                seek = Seek::After(last);
                let paths = LetterPick::Paths(changes.into_iter().map(|change| change.path).collect());
                letters.extend(in_time(context.store.open_letters(&lane.cursor, &paths)).await?);
            }
            return Ok(by_path(letters));
        }
    }
    let mut after = None;
    loop {
        let pick = LetterPick::After(after);
        let some = in_time(context.store.open_letters(&lane.cursor, &pick)).await?;
        after = some.last().map(|(letter, _)| letter.path.clone());
        let is_last = some.len() < LANE_LETTERS;
        letters.extend(some);
        if is_last {
            return Ok(by_path(letters));
        }
    }
}

/// A path may be there twice: a changed kind of file is a delete and a create.
fn by_path(letters: Vec<(Letter, LetterStatus)>) -> Vec<Letter> {
    let mut letters: Vec<Letter> = letters.into_iter().map(|(letter, _)| letter).collect();
    letters.sort_by(|one, other| one.path.cmp(&other.path));
    letters.dedup_by(|one, other| one.path == other.path);
    letters
}

#[derive(Default)]
struct Flags {
    history_rewritten: bool,
    skipped_commits: bool,
    complete: bool,
}

/// In `every` mode: the first commit after held on the way to head.
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

/// The guard against a mistake at the source: pauses the watch instead of deleting most of what
/// its app holds.
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
    let format = app.map_or(PayloadFormat::Docora, |app| app.delivery.format);
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

/// Plans when it is the turn of the app, fetching by id what the mirror lacks: the mirror is a cache
/// and may vanish.
async fn plan(
    context: &Context,
    app: &AppId,
    remote: &Remote,
    spec: &RoundSpec,
    candidates: &[Letter],
) -> Result<Plan, OpeningError> {
    let planned = context.at_desk(app, context.git.plan(remote, spec, candidates)).await;
    match planned {
        Err(GitError::Missing(_) | GitError::Corrupt(_)) => {
            // A resync is made from its bases: what is held and obtainable nowhere must not stop it.
            let held = spec.held.iter().filter(|_| spec.kind != RoundKind::Resync);
            let ends = || held.clone().chain(&spec.target).chain(&spec.bases);
            let mut commits: Vec<ObjectId> = ends().map(|end| end.commit).collect();
            commits.sort_unstable();
            commits.dedup();
            let is_narrow = ends().all(|end| end.view.is_narrow());
            let extent = if is_narrow { Extent::Trees } else { Extent::Whole };
            for (at, commit) in commits.iter().enumerate() {
                let haves = commits[..at].to_vec();
                fetch(context, remote, FetchOrder { wants: vec![*commit], haves, depth: 1, extent }).await?;
            }
            Ok(context.at_desk(app, context.git.plan(remote, spec, candidates)).await?)
        }
        other => Ok(other?),
    }
}

/// Fetches. Only two definitive refusals in a row make an object unobtainable.
pub async fn fetch(context: &Context, remote: &Remote, order: FetchOrder) -> Result<(), GitError> {
    match context.git.fetch(remote, &order).await {
        Err(GitError::Unobtainable(_)) => context.git.fetch(remote, &order).await.map(drop),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests;
