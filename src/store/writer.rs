//! The one task that writes. Calls (verbs) wait in a bounded channel; each turn takes at most 256 of them
//! into one transaction: first all settlements in a few statements, then every other verb inside its own
//! savepoint, so that a failed verb does not affect the others; a turn with only settlements, or with a
//! single verb, needs no savepoint. Answers are sent after the commit, that is, after the sync.
//!
//! Operations on tasks come first, in a transaction of their own ([`super::tasks`]): their turn shares the
//! database with those of other processes, and a failure of one kind of work does not affect the other.
//!
//! Settlements of several lanes are gathered: while turns bring several settlements each, the next turn with
//! only settlements begins [`GATHER`] after the previous one, so that more of them share a sync. A single
//! lane, and every other verb, does not wait.
//!
//! When the transaction fails, every verb of the turn gets the same error, and after a failure of the
//! database the next turn makes a new connection: a full disk or a lock can be repaired without a restart,
//! and `trial` notices that. A silent server is abandoned after a while. Whether a turn that was cut off took
//! effect is unknown: the next turn runs alone on the database, and so waits for its end. A verb that is part
//! of a request writes the request's audit entry in its transaction ([`super::audit`]). Every turn first
//! checks the leases: if another process took over the database, the turn changes nothing, and a verb whose
//! own lease has ended changes nothing. A full channel makes verbs wait. Dropping a verb's future does not
//! cancel the verb; tasks that were claimed for a caller that is gone are given back in the next turn, and
//! those of a turn whose outcome is unknown once it is known.

mod tasking;
mod trial;
mod turn;
mod verb;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use sea_orm::{DatabaseTransaction, TransactionTrait};
use tidings_actors::ports::{Fence, Meter, Settlement, StoreError, TaskWord};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, warn};

use self::{
    turn::{Turn, Work},
    verb::{Answer, Verb},
};
use super::audit::Pending;
use super::{Context, database::error::OfTable};
use crate::{
    database::{
        address::Address,
        connect::{self, Connection, Share},
    },
    lanes::settle,
    leases::fences,
    tasks::{Operation, Outcome},
};

/// Most verbs in one transaction.
const TURN: usize = 256;
/// How long settlements wait for those of other lanes. Two such waits are well below the time in which a lane
/// that shares its endpoint with others sends its whole window.
const GATHER: Duration = Duration::from_millis(16);
/// The longest turn: statements have shorter timeouts on the server. A connection whose turn takes longer is
/// abandoned.
const TURN_MAX: Duration = Duration::from_secs(20);
/// Verbs that wait for their turn; further callers wait for room in the channel.
const WAITING: usize = 1024;

/// The door to the writing task.
#[derive(Clone)]
pub(super) struct Writer {
    inbox: mpsc::Sender<Work>,
    /// The lease of the work that this handle is for; `None`: no lease is checked.
    fence: Option<Fence>,
    /// Whether the last trial failed.
    is_refused: Arc<AtomicBool>,
    meter: Arc<OnceLock<Arc<dyn Meter>>>,
}

impl Writer {
    /// Starts the task that writes.
    #[expect(clippy::disallowed_methods, reason = "the one task of the store; `close` ends it")]
    pub(super) fn start(address: Address, connection: Connection, context: Context, epoch: i64) -> Self {
        let (inbox, work) = mpsc::channel(WAITING);
        let (meter, is_refused): (Arc<OnceLock<_>>, Arc<AtomicBool>) = Default::default();
        let task = Task {
            address,
            connection: Some(connection),
            is_in_doubt: false,
            context,
            epoch,
            work,
            held_back: Vec::new(),
            unconfirmed: Vec::new(),
            meter: meter.clone(),
            next_trial: None,
            is_refused: is_refused.clone(),
        };
        tokio::spawn(task.run());
        Self { inbox, fence: None, is_refused, meter }
    }

    /// Counts transactions with `meter` from now on. The first meter stays.
    pub(super) fn measure(&self, meter: Arc<dyn Meter>) {
        self.meter.get_or_init(|| meter);
    }

    /// The meter, if there is one.
    pub(super) fn meter(&self) -> Option<&dyn Meter> {
        self.meter.get().map(|meter| &**meter)
    }

    /// Whether the database took the last write that was tried. Sends no query.
    pub(super) fn takes_writes(&self) -> bool {
        !self.is_refused.load(Relaxed) && !self.inbox.is_closed()
    }

    /// A handle on the same writer for work under this lease.
    pub(super) fn under(&self, fence: Fence) -> Self {
        Self { fence: Some(fence), ..self.clone() }
    }

    /// Runs one verb in the next transaction and waits for its commit.
    pub(super) async fn verb<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseTransaction, &'c Context) -> BoxFuture<'c, Result<T, StoreError>>
            + Send
            + 'static,
    {
        self.run(work, Pending::current(), |_| true).await
    }

    /// Runs a verb that may decide to change nothing. Its refusal leaves the request's audit entry as it is:
    /// the entry does not say that the request was done.
    pub(super) async fn decision<T, R, F>(&self, work: F) -> Result<Result<T, R>, StoreError>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: for<'c> FnOnce(
                &'c DatabaseTransaction,
                &'c Context,
            ) -> BoxFuture<'c, Result<Result<T, R>, StoreError>>
            + Send
            + 'static,
    {
        self.run(work, Pending::current(), Result::is_ok).await
    }

    /// Runs a verb that only reads, so that the request's audit entry stays for a verb that changes
    /// something. When it answers, all earlier verbs are on disk, or have failed for good.
    pub(super) async fn question<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseTransaction, &'c Context) -> BoxFuture<'c, Result<T, StoreError>>
            + Send
            + 'static,
    {
        self.run(work, None, |_| true).await
    }

    async fn run<T, F>(
        &self,
        work: F,
        pending: Option<Arc<Pending>>,
        is_change: fn(&T) -> bool,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseTransaction, &'c Context) -> BoxFuture<'c, Result<T, StoreError>>
            + Send
            + 'static,
    {
        let fence = self.fence;
        let work = Some(work);
        let verb = |answer| Verb { work, fence, pending, is_change, written: None, outcome: None, answer };
        self.ask(|answer| Work::Verb(Box::new(verb(answer)))).await
    }

    /// Records a settled prefix with the next transaction. `Ok(false)`: the round has ended or the position
    /// is not new, and nothing was changed.
    pub(super) async fn settle(&self, settlement: Settlement) -> Result<bool, StoreError> {
        self.ask(|answer| Work::Settle(Box::new(settlement), self.fence, answer)).await
    }

    /// Runs an operation on tasks in the next transaction. No lease is checked, because the token of a claim
    /// is its proof.
    pub(super) async fn tasks(&self, operation: Operation) -> Result<Outcome, StoreError> {
        self.ask(|answer| Work::Tasks(Box::new(operation), answer)).await
    }

    /// Returns when everything that was asked before is on disk (or failed).
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        self.ask(Work::Flush).await
    }

    /// Ends the task after everything that was asked before.
    pub(super) async fn close(&self) {
        if let Err(error) = self.ask(Work::Close).await {
            warn!(%error, "the store was closed before");
        }
    }

    async fn ask<T>(&self, work: impl FnOnce(Answer<T>) -> Work) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(work(answer)).await.map_err(|_| unavailable("the store is closed"))?;
        answered.await.unwrap_or_else(|_| Err(unavailable("the store was closed")))
    }
}

struct Task {
    address: Address,
    /// `None` after a failure: the next turn connects again.
    connection: Option<Connection>,
    /// Whether the outcome of the previous turn is unknown: the next turn waits for its end.
    is_in_doubt: bool,
    context: Context,
    epoch: i64,
    work: mpsc::Receiver<Work>,
    /// The work that the previous turn had no room for, or that follows from it.
    held_back: Vec<Work>,
    /// The words that give back what turns in doubt claimed, if they did.
    unconfirmed: Vec<TaskWord>,
    meter: Arc<OnceLock<Arc<dyn Meter>>>,
    /// When the next trial write is due; `None`: no write has failed.
    next_trial: Option<Instant>,
    is_refused: Arc<AtomicBool>,
}

impl Task {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(TURN);
        let mut closing = Vec::new();
        let mut gather_until = None;
        while self.receive(&mut batch).await > 0 {
            if let Some(until) = gather_until {
                self.gather(&mut batch, until).await;
            }
            self.hold_back(&mut batch);
            let mut turn = Turn::sort(batch.drain(..));
            if !turn.closing.is_empty() {
                self.work.close();
                closing.append(&mut turn.closing);
            }
            self.do_tasks(&mut turn).await;
            let (verbs, began) = (turn.verbs(), Instant::now());
            let outcome = unpanicked(self.transact_in_time(&mut turn)).await;
            if verbs > 0
                && let Some(meter) = self.meter.get()
            {
                meter.committed(outcome.is_ok(), verbs, began.elapsed());
            }
            let failed = was_failed(&turn, &outcome);
            if failed || matches!(outcome, Err(StoreError::Unavailable(_))) {
                self.next_trial = Some(Instant::now());
            }
            // A turn of flushes waits for nothing: what an earlier turn in doubt did may not be on disk yet.
            if outcome.is_ok() && !self.is_in_doubt {
                self.tell();
            }
            gather_until = (turn.settlements.len() > 1).then(|| Instant::now() + GATHER);
            if let Err(StoreError::Unavailable(reason)) = &outcome {
                error!(reason, "the database did not take a write; its connection is opened again");
                self.disconnect().await;
                self.is_in_doubt = true;
            } else if self.address.file().is_none() && failed {
                // Failures of one connection (a plan from before a change of the schema, a server that no
                // longer accepts writes) would repeat on it.
                self.disconnect().await;
            }
            turn.answer(outcome);
        }
        self.disconnect().await;
        for answer in closing {
            drop(answer.send(Ok(())));
        }
    }

    /// Tells what transactions did that are on disk.
    fn tell(&self) {
        self.context.news.tell();
        self.context.statuses.tell();
        self.context.tasks.tell_marked();
    }

    /// Takes further settlements until this moment, or until another verb arrives.
    async fn gather(&mut self, batch: &mut Vec<Work>, until: Instant) {
        let settles = |work: &Work| matches!(work, Work::Settle(..));
        let mut may_wait = batch.iter().all(settles);
        while may_wait && batch.len() < TURN {
            let Ok(Some(work)) = timeout_at(until, self.work.recv()).await else { break };
            may_wait = settles(&work);
            batch.push(work);
        }
    }

    async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            warn!(%error, "the writing connection did not close cleanly");
        }
    }

    async fn connection(&mut self) -> Result<&Connection, StoreError> {
        if self.connection.is_none() {
            let made = connect::writer(&self.address).await;
            self.connection = Some(made.map_err(|error| StoreError::Unavailable(error.to_string()))?);
        }
        self.connection.as_ref().ok_or_else(|| unavailable("there is no connection"))
    }

    /// A transaction for the rest of the turn: work that was begun under a lost lease is refused.
    async fn begin(&mut self, share: Share, turn: &mut Turn) -> Result<DatabaseTransaction, StoreError> {
        let (epoch, fences) = (self.epoch, turn.fences());
        let transaction = self.connection().await?.begin(share).await.of("lease")?;
        match fences::standing(&transaction, epoch, &fences).await {
            Ok(standing) => {
                if standing.len() < fences.len() {
                    turn.refuse_lost(&standing);
                }
                Ok(transaction)
            }
            Err(error) => {
                transaction.rollback().await.of("lease")?;
                Err(error)
            }
        }
    }

    /// Runs a turn, unless the server is silent; on a SQLite file every turn ends by itself.
    async fn transact_in_time(
        &mut self,
        turn: &mut Turn,
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        if self.address.file().is_some() {
            return self.transact(turn).await;
        }
        let silent = || Err(unavailable("the database server does not answer any more"));
        timeout(TURN_MAX, self.transact(turn)).await.unwrap_or_else(|_| silent())
    }

    /// Does all work of a turn in one transaction. Returns the result of each settlement.
    async fn transact(&mut self, turn: &mut Turn) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        if turn.jobs.is_empty() && turn.settlements.is_empty() {
            return Ok(Vec::new());
        }
        let context = self.context.clone();
        let is_alone = self.is_in_doubt || !turn.jobs.is_empty();
        let share = if is_alone { Share::Alone } else { Share::Working };
        let mut transaction = self.begin(share, turn).await?;
        self.is_in_doubt = false;
        if turn.jobs.is_empty() && turn.settlements.is_empty() {
            transaction.rollback().await.of("rollback")?;
            return Ok(Vec::new());
        }
        if turn.jobs.is_empty() {
            // The usual turn, in quiet and in busy hours: only lanes that settle.
            if let Ok(settled) = settle::settle(&transaction, &context, &turn.settlements).await {
                transaction.commit().await.of("commit")?;
                return Ok(settled.into_iter().map(Ok).collect());
            }
            transaction.rollback().await.of("rollback")?;
            transaction = self.begin(share, turn).await?;
        }
        if let ([job], []) = (&mut turn.jobs[..], &turn.settlements[..]) {
            if job.run(&transaction, &context).await {
                transaction.commit().await.of("commit")?;
            } else {
                transaction.rollback().await.of("rollback")?;
            }
            return Ok(Vec::new());
        }
        let settled = settle_apart(&transaction, &context, &turn.settlements).await?;
        for job in &mut turn.jobs {
            let savepoint = transaction.begin().await.of("savepoint")?;
            if job.run(&savepoint, &context).await {
                savepoint.commit().await.of("savepoint")?;
            } else {
                savepoint.rollback().await.of("savepoint")?;
            }
        }
        transaction.commit().await.of("commit")?;
        Ok(settled)
    }
}

/// Turns a panic into a failure of this turn: a row of another shape than the code expects must not end all
/// writing.
async fn unpanicked<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|_| Err(unavailable("a turn of the store panicked")))
}

/// Whether the database caused a failure in a turn that was committed.
fn was_failed(turn: &Turn, outcome: &Result<Vec<Result<bool, StoreError>>, StoreError>) -> bool {
    let is_failure = |settled: &Result<bool, StoreError>| matches!(settled, Err(StoreError::Unavailable(_)));
    turn.jobs.iter().any(|job| job.was_failed())
        || outcome.as_ref().is_ok_and(|settled| settled.iter().any(is_failure))
}

/// Settles all at once; if that fails, one by one, so that only the faulty ones fail.
async fn settle_apart(
    transaction: &DatabaseTransaction,
    context: &Context,
    settlements: &[Settlement],
) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    if let Ok(settled) = settle_in_savepoint(transaction, context, settlements).await? {
        return Ok(settled.into_iter().map(Ok).collect());
    }
    let mut outcomes = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        let outcome = settle_in_savepoint(transaction, context, std::slice::from_ref(settlement)).await?;
        outcomes.push(outcome.map(|settled| settled.first().copied().unwrap_or(false)));
    }
    Ok(outcomes)
}

async fn settle_in_savepoint(
    transaction: &DatabaseTransaction,
    context: &Context,
    settlements: &[Settlement],
) -> Result<Result<Vec<bool>, StoreError>, StoreError> {
    let savepoint = transaction.begin().await.of("savepoint")?;
    let outcome = settle::settle(&savepoint, context, settlements).await;
    match outcome {
        Ok(_) => savepoint.commit().await.of("savepoint")?,
        Err(_) => savepoint.rollback().await.of("savepoint")?,
    }
    Ok(outcome)
}

fn unavailable(reason: &str) -> StoreError {
    StoreError::Unavailable(reason.into())
}

#[cfg(test)]
mod tests {
    use tidings_actors::{
        ports::TaskNews,
        testing::{ManualClock, SeededRandom},
        time::Timestamp,
    };
    use tidings_secrets::Keyring;

    use super::*;

    #[tokio::test]
    async fn a_panic_fails_one_turn_and_ends_nothing() {
        let panics = async { if true { panic!("a row of another shape") } else { Ok(1) } };
        assert!(matches!(unpanicked(panics).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(unpanicked(async { Ok(1) }).await, Ok(1)));
    }

    #[tokio::test]
    async fn what_a_turn_in_doubt_did_is_not_told_before_its_outcome_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, random) = (folder.path().join("keyring"), Arc::new(SeededRandom::new(1)));
        let context = Context {
            keyring: Arc::new(Keyring::create(&path, &*random).expect("a keyring")),
            clock: Arc::new(ManualClock::new(Timestamp(1))),
            random,
            kept: Arc::default(),
            news: Arc::default(),
            statuses: Arc::default(),
            tasks: Arc::default(),
        };
        let news = TaskNews { wake_at: Some(Timestamp(1)), ..TaskNews::default() };
        context.tasks.mark(news.clone());
        for (is_in_doubt, told) in [(true, None), (false, Some(news))] {
            let (inbox, work) = mpsc::channel(1);
            let (answer, answered) = oneshot::channel();
            assert!(inbox.send(Work::Flush(answer)).await.is_ok());
            drop(inbox);
            let task = Task {
                address: Address::parse("sqlite:///tidings.db").expect("an address"),
                connection: None,
                is_in_doubt,
                context: context.clone(),
                epoch: 1,
                work,
                held_back: Vec::new(),
                unconfirmed: Vec::new(),
                meter: Arc::default(),
                next_trial: None,
                is_refused: Arc::default(),
            };
            task.run().await;
            answered.await.expect("answered").expect("flushed");
            assert_eq!(context.tasks.next().now_or_never(), told, "in doubt: {is_in_doubt}");
        }
    }
}
