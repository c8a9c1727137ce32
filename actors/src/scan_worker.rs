//! One scan: list the refs, fetch what is missing of those that somebody follows, move the heads in the
//! store, say who is concerned. A worker of the `scans` factory: any worker takes any job, a panic loses that
//! one job and its watcher hears of it; the queue holds at most one job per repository, because a watcher has
//! one outstanding scan. A crash anywhere loses nothing: objects that no head names are found again by the
//! next scan.
//!
//! Workers are few, so a scan comes here only with its turn at its host ([`crate::hosts`]) and a place
//! ([`crate::scan_slots`]): a host that hangs holds as many workers as it may have scans, and no more. After
//! [`QUICK`] a scan goes over to a place among slow ones or ends; there are workers for both kinds.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    directory::Directory,
    hosts::Turn,
    polls::{Scanned, Unseen},
    ports::{
        Cause, FetchOrder, FetchOutcome, Fetched, GitError, Moved, RefListing, RefPatterns, SinkKey, Source,
        StoreError,
    },
    scan_slots::ScanSlot,
    supervisor::Birth,
    tasks::in_time,
    time::Timestamp,
    tree::SCANS,
};

/// A scan that takes longer than this is given up by its watcher; the fetch inside has its own,
/// shorter deadlines.
pub const SCAN_DEADLINE: Duration = Duration::from_secs(1_200);

/// A scan whose host takes longer than this is a slow one.
pub const QUICK: Duration = Duration::from_secs(10);

/// A listing that says what the one before said is looked up in the rows at least this often: a branch whose
/// hint was lost gets another one then.
const CALM_FOR: Duration = Duration::from_secs(600);

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct ScanReport {
    /// Whether a head moved.
    pub changed: bool,
    /// The watched refs that are absent from a repository that has others.
    pub missing: BTreeSet<String>,
    /// What its apps follow together, where that is more than one listing may say.
    pub wide: Option<Vec<RefPatterns>>,
    /// What of it could not be listed.
    pub unseen: Option<Unseen>,
    /// How many refs of a pattern are not followed because it matches too many, by watch.
    pub left_out: BTreeMap<WatchId, u64>,
    /// Bytes of the objects that it fetched.
    pub bytes: u64,
    /// Whose cursors now have something to do.
    pub cursors: Vec<(SinkKey, CursorId)>,
    /// What the next scan need not look at again.
    pub calm: Option<Calm>,
}

/// Why a scan failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ScanError {
    /// Git did not do it.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker crashed.
    #[error("the scan crashed")]
    Crashed,
    /// It took longer than [`QUICK`], and its apps hold as many slow places as they may.
    #[error(
        "the Git host is slow, and as many slow scans as an app may have are under way; it is tried again \
         later"
    )]
    Crowded,
}

impl ScanError {
    /// A stable word.
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

/// The word for what went well.
const OK: &str = "ok";

/// The outcome of a scan.
pub type ScanOutcome = Result<ScanReport, ScanError>;

/// A scan that ended.
#[derive(Debug)]
pub struct Ended {
    /// What came of it.
    pub outcome: ScanOutcome,
    /// Its place in the trace, for what follows from it.
    pub place: Option<Cause>,
}

impl Ended {
    /// What is shown of it: it ended at `at` and took so long.
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

/// What a scan holds while it runs.
#[derive(Debug)]
pub struct Place {
    /// Its turn at the host.
    pub turn: Turn,
    /// Its place among all scans.
    pub slot: ScanSlot,
}

impl Place {
    /// Does what a host may draw out, of a scan that began then.
    async fn hold<T>(&mut self, began: Instant, work: impl Future<Output = T>) -> Result<T, ScanError> {
        tokio::pin!(work);
        match timeout_at(began + QUICK, &mut work).await {
            Ok(done) => Ok(done),
            Err(_) if self.slot.slow_down() => Ok(work.await),
            Err(_) => Err(ScanError::Crowded),
        }
    }
}

/// What scans of a source learnt that is in no row.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Refs that have been absent for long enough: if they still are, that is believed.
    pub gone: BTreeSet<String>,
    /// What its apps followed together when that was more than one listing may say. As long as they follow
    /// the same, each app's refs are listed alone.
    pub wide: Option<Vec<RefPatterns>>,
    /// The last listing that was looked at whole, where it left nobody anything to do.
    pub calm: Option<Calm>,
}

/// A listing that changed nothing and left nobody anything to do. As long as the rows of its source are not
/// read anew, the same listing again means the same, and costs neither a fetch nor a look at the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calm {
    /// What it said.
    digest: u64,
    /// When its meaning was looked up in the rows.
    since: Instant,
}

impl Calm {
    /// Whether a listing that says this means nothing new.
    fn covers(&self, digest: u64) -> bool {
        self.digest == digest && self.since.elapsed() < CALM_FOR
    }
}

/// A scan to be done.
pub struct Scan {
    /// What to scan.
    pub source: Arc<Source>,
    /// What scans before it learnt.
    pub known: Known,
    /// Its turn at the host and its place, taken before it got a worker.
    pub place: Place,
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Ended>,
}

/// The worker.
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
        // A watcher that is gone may be followed by one that scans: this scan must not go on.
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

/// Does one scan, as part of the trace of whoever asked for it.
pub async fn scan(context: &Context, source: &Source, known: Known, place: &mut Place) -> Ended {
    let repository = &source.remote.repository;
    let Some((context, _hold)) = context.of(repository) else {
        return ScanError::from(StoreError::Lost).into();
    };
    let context = &context;
    // The worker is in a span of its own, which lasts as long as it lives.
    let span = info_span!(parent: None, "scan", source.id = %source.id, repository.id = %repository);
    if let Some(cause) = context.causes.scan_begins(repository) {
        context.tracer.follow(&span, cause);
    }
    let outcome = scan_traced(context, source, known, place).instrument(span.clone()).await;
    Ended { outcome, place: context.tracer.place(&span) }
}

async fn scan_traced(context: &Context, source: &Source, known: Known, place: &mut Place) -> ScanOutcome {
    let Known { gone, mut wide, calm } = known;
    let (asked_at, start) = (Some(context.now()), Instant::now());
    let listed = place.hold(start, list(context, source, &mut wide)).await?;
    context.meter.polled(listed.as_ref().map_or_else(GitError::code, |_| OK), start.elapsed());
    let (mut listing, unseen) = listed?;
    if !listing.has_refs && !source.haves.is_empty() {
        return Err(GitError::NoRefs.into());
    }
    listing.asked_at = asked_at;
    listing.gone = gone.into_iter().filter(|name| !listing.is_unseen(name)).collect();
    let digest = listing.digest();
    if let Some(calm) = calm.filter(|calm| listing.gone.is_empty() && calm.covers(digest)) {
        return Ok(ScanReport { wide, calm: Some(calm), ..ScanReport::default() });
    }
    let wants = source.followed.commits(&listing);
    let mut bytes = 0;
    if !wants.is_empty() {
        place.turn.fetches();
        let order = FetchOrder { wants, haves: source.haves.clone(), depth: 1, extent: source.extent };
        let began = Instant::now();
        let fetched = place.hold(start, context.git.fetch_each(&source.remote, &order)).await?;
        let cost = fetched.as_ref().map(|outcome| outcome.cost).map_err(GitError::code);
        context.meter.fetched(Fetched::Commits, cost, began.elapsed());
        let outcome = fetched?;
        let report = outcome.cost;
        bytes = report.bytes;
        take_word(&mut listing, outcome, order.wants.len())?;
        if report.objects > 0 {
            info!(
                fetch.bytes = report.bytes,
                fetch.objects = report.objects,
                "fetched {} objects in {} bytes",
                report.objects,
                report.bytes
            );
        }
    }
    let moved = in_time(context.store.move_heads(&source.id, &listing, context.now())).await?;
    let place = context.tracer.place(&Span::current());
    for (_, cursor) in &moved.cursors {
        context.causes.of_lane(cursor, place);
    }
    let is_clean = listing.refused.is_empty() && listing.untried.is_empty() && unseen.is_none();
    let calm = (moved == Moved::default() && is_clean).then_some(Calm { digest, since: start });
    let Moved { changed, absent, left_out, cursors } = moved;
    Ok(ScanReport { changed, missing: absent, wide, unseen, left_out, bytes, cursors, calm })
}

/// Lists what the apps of a source follow, together. Where that is too much, each app's refs are listed
/// alone: those of an app that follows more than one listing may say are unknown, and nobody else's are.
async fn list(
    context: &Context,
    source: &Source,
    wide: &mut Option<Vec<RefPatterns>>,
) -> Result<(RefListing, Option<Unseen>), GitError> {
    let all: BTreeSet<&String> = source.patterns.iter().flatten().collect();
    if wide.as_ref() != Some(&source.patterns) {
        *wide = None;
        let all: RefPatterns = all.into_iter().cloned().collect();
        match context.git.list_refs(&source.remote, &all).await {
            Err(GitError::TooLarge(_)) if source.patterns.len() > 1 => *wide = Some(source.patterns.clone()),
            listed => return listed.map(|listing| (listing, None)),
        }
    }
    let (mut listing, mut fault) = (None::<RefListing>, None);
    let (mut seen, mut unseen) = (BTreeSet::new(), BTreeSet::new());
    for patterns in &source.patterns {
        match context.git.list_refs(&source.remote, patterns).await {
            Ok(found) => {
                seen.extend(patterns.iter().cloned());
                match &mut listing {
                    Some(listing) => listing.join(found),
                    None => listing = Some(found),
                }
            }
            Err(reason @ GitError::TooLarge(_)) => {
                unseen.extend(patterns.iter().cloned());
                fault = Some(reason);
            }
            Err(reason) => return Err(reason),
        }
    }
    let Some(mut listing) = listing else {
        return Err(fault.unwrap_or_else(|| GitError::Protocol("nobody follows anything".to_owned())));
    };
    // What another app could list is seen.
    listing.unseen = unseen.difference(&seen).cloned().collect();
    listing.seen = seen.into_iter().collect();
    let refs = listing.unseen.clone();
    let unseen = fault.filter(|_| !refs.is_empty()).map(|fault| Unseen { refs, reason: fault.to_string() });
    Ok((listing, unseen))
}

/// What cannot be had is noted beside the refs that name it; where nothing can be had, that is the fault of
/// the whole source.
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
pub async fn start_factory(context: Context, birth: Birth) -> Result<ActorCell, ActorProcessingErr> {
    let workers = 2 * context.policy.scan_workers;
    birth.gauge.say(format!("{workers} workers"));
    let arguments = FactoryArguments::builder()
        .worker_builder(Box::new(Builder(context.clone())))
        .num_initial_workers(workers)
        .router(QueuerRouting::default())
        .queue(DefaultQueue::default())
        .discard_settings(DiscardSettings::None)
        .build();
    let (factory, _join) =
        ractor::Actor::spawn_linked(None, ScanFactory::default(), arguments, birth.supervisor).await?;
    Ok(factory.get_cell())
}

/// Hands a scan to the factory and waits for its outcome. A crash of the worker, or a factory that
/// is being restarted, is an outcome too.
pub async fn dispatch(directory: Directory, source: Arc<Source>, known: Known, place: Place) -> Ended {
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
    // The factory is ractor's and does not count what it takes out of its mailbox.
    drop(factory.gauge().begin());
    match tokio::time::timeout(SCAN_DEADLINE, receiver).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => ScanError::Crashed.into(),
        Err(_) => {
            ScanError::Git(GitError::Timeout("the scan took longer than its deadline".to_owned())).into()
        }
    }
}
