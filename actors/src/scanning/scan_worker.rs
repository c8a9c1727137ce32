//! One scan: lists the refs, fetches missing objects of followed refs, moves the heads in the store, and
//! reports the cursors that are behind. A worker of the `scans` factory: any worker takes any job. A panic
//! loses that one job, and its watcher is told. The queue holds at most one job per repository, because a
//! watcher has one outstanding scan. A crash anywhere loses nothing: objects that no head names are found
//! again by the next scan.
//!
//! Workers are few, so a scan comes here only with its turn at its host ([`crate::limits::hosts`]) and a
//! place ([`crate::limits::scan_slots`]): a host that hangs holds at most as many workers as it may have
//! scans. After [`QUICK`] a scan moves to a slow slot or ends; there are workers for both kinds.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    sync::Arc,
    time::Duration,
};

use ractor::{
    ActorCell, ActorProcessingErr, ActorRef,
    factory::{
        DiscardSettings, Factory, FactoryArguments, FactoryMessage, Job, JobOptions, Worker, WorkerBuilder,
        WorkerId, queues::DefaultQueue, routing::QueuerRouting,
    },
};
use tidings_entity::id::{CursorId, SourceId, WatchId};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tracing::{Instrument, Span, debug, info, info_span};

use crate::{
    context::Context,
    limits::{hosts::Turn, scan_slots::ScanSlot},
    ports::{
        Cause, FetchOrder, FetchOutcome, Fetched, GitError, Moved, RefListing, SinkKey, Source, StoreError,
    },
    scanning::listing::{Wide, list},
    signals::polls::{Scanned, Unseen},
    supervision::{directory::Directory, supervisor::SpawnContext, tasks::in_time, tree::SCANS},
    time::Timestamp,
};

/// A scan that takes longer than this is abandoned by its watcher; the fetch inside has its own, shorter
/// deadlines.
pub const SCAN_DEADLINE: Duration = Duration::from_secs(1_200);

/// A scan whose host takes longer than this is a slow one.
pub const QUICK: Duration = Duration::from_secs(10);

/// A listing equal to the previous one is checked against the rows at least this often, so that a branch
/// whose hint was lost gets another one.
const CALM_FOR: Duration = Duration::from_secs(600);

/// The result of a successful scan.
#[derive(Clone, Debug, Default)]
pub struct ScanReport {
    /// Whether a head moved.
    pub changed: bool,
    /// The watched refs that are absent from a repository that has other refs.
    pub missing: BTreeSet<String>,
    /// How the next scan lists the refs, if they are many.
    pub wide: Option<Box<Wide>>,
    /// Whether it said nothing about refs that `wide` leaves out.
    pub is_partial: bool,
    /// The refs that could not be listed.
    pub unseen: Option<Unseen>,
    /// How many refs of a pattern are not followed because it matches too many, by watch. `None`: as many as
    /// in the scan before.
    pub left_out: Option<BTreeMap<WatchId, u64>>,
    /// Bytes of the objects that it fetched.
    pub bytes: u64,
    /// The cursors that now have something to do.
    pub cursors: Vec<(SinkKey, CursorId)>,
    /// Knowledge that lets the next scan skip the rows.
    pub calm: Option<Calm>,
}

/// Why a scan failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ScanError {
    /// The Git host or the mirror failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The database could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker panicked; the scan is repeated by the schedule.
    #[error("the scan crashed")]
    Crashed,
    /// The scan took longer than [`QUICK`], and its apps hold as many slow slots as they may.
    #[error(
        "the Git host is slow, and as many slow scans as an app may have are under way; it is tried again \
         later"
    )]
    Crowded,
}

impl ScanError {
    /// The stable code of the error, for people and labels.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Git(error) => error.code(),
            Self::Store(_) => "database_failed",
            Self::Crashed => "crashed",
            Self::Crowded => "crowded",
        }
    }
}

/// The outcome label of a successful scan.
const OK: &str = "ok";

/// The outcome of a scan.
pub type ScanOutcome = Result<ScanReport, ScanError>;

/// A scan that ended.
#[derive(Debug)]
pub struct Ended {
    /// The outcome of the scan.
    pub outcome: ScanOutcome,
    /// The place of the scan's span, for work that follows from it.
    pub place: Option<Cause>,
}

impl Ended {
    /// The result of the scan as people see it: it ended at `at` and took this long.
    pub(crate) fn shown(&self, at: Timestamp, took: Duration) -> Scanned {
        let (report, error) = (self.outcome.as_ref().ok(), self.outcome.as_ref().err());
        Scanned {
            at,
            took,
            bytes: report.map(|report| report.bytes),
            outcome: error.map_or(OK, ScanError::code),
            reason: error.map(ToString::to_string),
            unseen: report.and_then(|report| report.unseen.clone()),
        }
    }
}

impl From<ScanError> for Ended {
    fn from(reason: ScanError) -> Self {
        Self { outcome: Err(reason), place: None }
    }
}

/// The turn and the slot that a scan holds while it runs.
#[derive(Debug)]
pub struct ScanPermit {
    /// The turn at the Git host.
    pub turn: Turn,
    /// The slot among all scans.
    pub slot: ScanSlot,
}

impl ScanPermit {
    /// Does work whose duration depends on the host. After [`QUICK`] since the beginning of the scan it moves
    /// to a slow slot, or fails if there is none.
    async fn hold<T>(&mut self, began: Instant, work: impl Future<Output = T>) -> Result<T, ScanError> {
        tokio::pin!(work);
        match timeout_at(began + QUICK, &mut work).await {
            Ok(done) => Ok(done),
            Err(_) if self.slot.slow_down() => Ok(work.await),
            Err(_) => Err(ScanError::Crowded),
        }
    }
}

/// Knowledge from the scans of a source that is in no row.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Refs that have been absent for long enough: if this scan does not list them either, they count as
    /// gone.
    pub gone: BTreeSet<String>,
    /// How the refs are listed, if they are many.
    pub wide: Option<Box<Wide>>,
    /// The last listing whose rows were checked, if it left nothing to do.
    pub calm: Option<Calm>,
}

/// A listing that changed nothing and left nothing to do. Until the rows of its source are read again, the
/// same listing means the same, and costs neither a fetch nor a look at the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calm {
    /// Digest of the listing that changed nothing.
    digest: u64,
    /// Digest of the answer that the listing was last read from: the same bytes need not be read again.
    answer: Option<NonZeroU64>,
    /// Whether the listing left refs out. A listing that asks for other refs is not the same one, even if the
    /// host answers with the same bytes.
    is_partial: bool,
    /// When the rows were last compared with the listing.
    since: Instant,
}

impl Calm {
    /// Whether the same listing still means nothing new.
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < CALM_FOR
    }
}

/// A scan to be run by a worker.
pub struct Scan {
    /// The source to scan, with its patterns.
    pub source: Arc<Source>,
    /// Knowledge from earlier scans of the source.
    pub known: Known,
    /// The turn at the host and the slot, taken before the scan got a worker.
    pub place: ScanPermit,
    /// Receives the outcome of the scan.
    pub reply: oneshot::Sender<Ended>,
}

/// A worker of the `scans` factory.
pub struct ScanWorker;

#[ractor::async_trait]
impl Worker for ScanWorker {
    type Key = SourceId;
    type Message = Scan;
    type State = Context;
    type Arguments = Context;

    async fn pre_start(
        &self,
        _worker: WorkerId,
        _factory: &ActorRef<FactoryMessage<SourceId, Scan>>,
        context: Context,
    ) -> Result<Context, ActorProcessingErr> {
        Ok(context)
    }

    async fn handle(
        &self,
        _worker: WorkerId,
        _factory: &ActorRef<FactoryMessage<SourceId, Scan>>,
        job: Job<SourceId, Scan>,
        context: &mut Context,
    ) -> Result<SourceId, ActorProcessingErr> {
        let Scan { source, known, mut place, mut reply } = job.msg;
        // If the watcher has ended, a new watcher may start another scan: this scan stops.
        let began = Instant::now();
        let ended = tokio::select! {
            ended = scan(context, &source, known, &mut place) => ended,
            () = reply.closed() => return Ok(job.key),
        };
        let outcome = &ended.outcome;
        context.meter.scanned(outcome.as_ref().map_or_else(ScanError::code, |_| OK), began.elapsed());
        let is_silent =
            matches!(outcome, Err(ScanError::Git(GitError::Unreachable(_) | GitError::Timeout(_))));
        // Whether the host answers is not known of a scan that ended early.
        if !matches!(outcome, Err(ScanError::Crowded)) {
            place.turn.ended(!is_silent);
        }
        drop(place);
        if reply.send(ended).is_err() {
            debug!(source.id = %job.key, "nobody waits for the scan of {} any more", job.key);
        }
        Ok(job.key)
    }
}

/// Does one scan, in the trace of its cause.
pub async fn scan(context: &Context, source: &Source, known: Known, place: &mut ScanPermit) -> Ended {
    let repository = &source.remote.repository;
    let Some((context, _hold)) = context.of(repository) else {
        return ScanError::from(StoreError::Lost).into();
    };
    let context = &context;
    // The worker's own span lasts as long as the worker, so the scan gets a span without that parent.
    let span = info_span!(parent: None, "scan", source.id = %source.id, repository.id = %repository);
    if let Some(cause) = context.causes.scan_begins(repository) {
        context.tracer.follow(&span, cause);
    }
    let outcome = scan_traced(context, source, known, place).instrument(span.clone()).await;
    Ended { outcome, place: context.tracer.place(&span) }
}

async fn scan_traced(
    context: &Context,
    source: &Source,
    known: Known,
    place: &mut ScanPermit,
) -> ScanOutcome {
    let Known { gone, wide, calm } = known;
    let mut wide = wide.filter(|wide| wide.holds(&source.patterns));
    let is_partial = wide.as_ref().is_some_and(|wide| wide.rests());
    // A ref that counts as gone changes rows although the listing stays the same.
    let calm = calm.filter(|calm| gone.is_empty() && calm.is_fresh() && calm.is_partial == is_partial);
    let (asked_at, start) = (Some(context.now()), Instant::now());
    let last = calm.and_then(|calm| calm.answer);
    let listed = place.hold(start, list(context, source, &mut wide, last)).await?;
    context.meter.polled(listed.as_ref().map_or_else(GitError::code, |_| OK), start.elapsed());
    let Some((mut listing, mut unseen)) = listed? else {
        return Ok(ScanReport { wide, is_partial, calm, ..ScanReport::default() });
    };
    let is_partial = listing.is_partial;
    if !listing.unreadable.is_empty() {
        let reasons: Vec<&str> = listing.unreadable.values().map(String::as_str).collect();
        let reason = reasons.join("; ");
        unseen = Some(Unseen { refs: listing.unreadable.keys().cloned().collect(), reason });
    }
    if !listing.has_refs && !source.haves.is_empty() {
        return Err(GitError::NoRefs.into());
    }
    listing.asked_at = asked_at;
    listing.gone = gone.into_iter().filter(|name| !listing.is_unseen(name)).collect();
    let digest = listing.digest();
    let answer = listing.answer;
    if let Some(calm) = calm.filter(|calm| calm.digest == digest) {
        let calm = Some(Calm { answer, ..calm });
        return Ok(ScanReport { wide, is_partial, calm, ..ScanReport::default() });
    }
    let bytes = fetch(context, source, &mut listing, (place, start)).await?;
    let began = Instant::now();
    let moved = in_time(context.store.move_heads(&source.id, &listing, context.now())).await?;
    if !is_partial && let Some(wide) = &mut wide {
        wide.rest_longer(began.elapsed());
    }
    let place = context.tracer.place(&Span::current());
    for (_, cursor) in &moved.cursors {
        context.causes.of_lane(cursor, place);
    }
    let Moved { changed, absent: missing, left_out, cursors } = moved;
    let is_clean = listing.refused.is_empty() && listing.untried.is_empty() && unseen.is_none();
    let is_calm = is_clean && !changed && missing.is_empty() && cursors.is_empty();
    let calm = is_calm.then_some(Calm { digest, answer, is_partial, since: start });
    let left_out = (!is_partial).then_some(left_out);
    Ok(ScanReport { changed, missing, wide, is_partial, unseen, left_out, bytes, cursors, calm })
}

/// Fetches the commits that the listing names and the store lacks, and notes those that cannot be taken.
/// Returns the bytes that came.
async fn fetch(
    context: &Context,
    source: &Source,
    listing: &mut RefListing,
    (place, start): (&mut ScanPermit, Instant),
) -> Result<u64, ScanError> {
    let wants = source.followed.commits(listing);
    if wants.is_empty() {
        return Ok(0);
    }
    place.turn.fetches();
    let order = FetchOrder { wants, haves: source.haves.clone(), depth: 1, extent: source.extent };
    let began = Instant::now();
    let fetched = place.hold(start, context.git.fetch_each(&source.remote, &order)).await?;
    let cost = fetched.as_ref().map(|outcome| outcome.cost).map_err(GitError::code);
    context.meter.fetched(Fetched::Commits, cost, began.elapsed());
    let outcome = fetched?;
    let report = outcome.cost;
    take_word(listing, outcome, order.wants.len())?;
    if report.objects > 0 {
        info!(
            fetch.bytes = report.bytes,
            fetch.objects = report.objects,
            "fetched {} objects in {} bytes",
            report.objects,
            report.bytes
        );
    }
    Ok(report.bytes)
}

/// Records, for each ref whose commit cannot be fetched, the reason. If no wanted commit can be fetched, the
/// source itself is at fault.
fn take_word(listing: &mut RefListing, outcome: FetchOutcome, wanted: usize) -> Result<(), GitError> {
    if outcome.refused.len() == wanted {
        return outcome.whole().map(drop);
    }
    for (commit, reason) in outcome.refused {
        debug!(commit = %commit, "{commit} cannot be taken: {reason}; other refs go on");
        listing.refused.insert(commit, reason.to_string());
    }
    listing.untried.extend(outcome.untried);
    Ok(())
}

struct Builder(Context);

impl WorkerBuilder<ScanWorker, Context> for Builder {
    fn build(&mut self, _worker: WorkerId) -> (ScanWorker, Context) {
        (ScanWorker, self.0.clone())
    }
}

type ScanFactory =
    Factory<SourceId, Scan, Context, ScanWorker, QueuerRouting<SourceId, Scan>, DefaultQueue<SourceId, Scan>>;

/// Starts the factory.
///
/// # Errors
/// When its actor cannot be spawned.
pub async fn start_factory(
    context: Context,
    spawn_context: SpawnContext,
) -> Result<ActorCell, ActorProcessingErr> {
    let workers = 2 * context.policy.scan_workers;
    spawn_context.gauge.say(format!("{workers} workers"));
    let arguments = FactoryArguments::builder()
        .worker_builder(Box::new(Builder(context.clone())))
        .num_initial_workers(workers)
        .router(QueuerRouting::default())
        .queue(DefaultQueue::default())
        .discard_settings(DiscardSettings::None)
        .build();
    let (factory, _join) =
        ractor::Actor::spawn_linked(None, ScanFactory::default(), arguments, spawn_context.supervisor)
            .await?;
    Ok(factory.get_cell())
}

/// Hands a scan to the factory and waits for its outcome. A crash of the worker, or a factory that
/// is being restarted, is an outcome too.
pub async fn dispatch(directory: Directory, source: Arc<Source>, known: Known, place: ScanPermit) -> Ended {
    let Some(factory) = directory.find::<FactoryMessage<SourceId, Scan>>(SCANS, "") else {
        return ScanError::Crashed.into();
    };
    let (reply, receiver) = oneshot::channel();
    let key = source.id.clone();
    let scan = Scan { source, known, place, reply };
    let job = Job { key, msg: scan, options: JobOptions::default(), accepted: None };
    if !factory.send(FactoryMessage::Dispatch(job)) {
        return ScanError::Crashed.into();
    }
    // ractor runs the factory and does not count the messages that it takes out of its mailbox.
    drop(factory.gauge().begin());
    match tokio::time::timeout(SCAN_DEADLINE, receiver).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => ScanError::Crashed.into(),
        Err(_) => {
            ScanError::Git(GitError::Timeout("the scan took longer than its deadline".to_owned())).into()
        }
    }
}
