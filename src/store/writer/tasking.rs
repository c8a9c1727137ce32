//! The part of a turn that is about tasks: a transaction of its own before that of verbs and settlements, so
//! that a failure of one does not affect the other.

use std::time::Duration;

use sea_orm::{DatabaseTransaction, TransactionTrait};
use tidings_actors::ports::{StoreError, TaskNews, TaskTally, TaskWord};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{TURN_MAX, Task, Work, turn::Turn, unavailable, unpanicked};
use crate::{
    Context,
    database::{connect::Share, error::OfTable},
    tasks::{self, Operation, Outcome},
};

/// The bytes of task bodies in one turn (8 MiB); further operations wait for the next turn.
const TURN_BYTES: usize = 8 << 20;
/// Most claims of turns in doubt that are noted; further ones run out.
const UNCONFIRMED_MAX: usize = 10_000;

/// The outcomes of operations, in their order.
type Outcomes = Vec<Result<Outcome, StoreError>>;

impl Task {
    /// Leaves the first operation without room in this turn, and all work after it, for the next turn.
    pub(super) fn hold_back(&mut self, batch: &mut Vec<Work>) {
        let mut bytes = 0;
        let is_too_much = |work: &Work| {
            let Work::Tasks(operation, _) = work else { return false };
            let before = bytes;
            bytes += operation.bytes();
            before > 0 && bytes > TURN_BYTES
        };
        if let Some(first) = batch.iter().position(is_too_much) {
            self.held_back = batch.split_off(first);
        }
    }

    /// Does the operations on tasks, and answers them.
    pub(super) async fn do_tasks(&mut self, turn: &mut Turn) {
        let count = turn.operations.len();
        if count == 0 {
            return;
        }
        let began = Instant::now();
        let outcome = unpanicked(self.operate_in_time(turn)).await;
        if let Some(meter) = self.meter.get() {
            meter.committed(outcome.is_ok(), count, began.elapsed());
        }
        let outcome = outcome.map(|(outcomes, tallies)| {
            self.tell();
            if let Some(meter) = self.meter.get() {
                tallies.iter().for_each(|tally| meter.tasks_moved(tally));
            }
            outcomes
        });
        let is_failure = |error: &StoreError| matches!(error, StoreError::Unavailable(_));
        let failed = match &outcome {
            Ok(outcomes) => outcomes.iter().any(|one| one.as_ref().err().is_some_and(is_failure)),
            Err(error) => is_failure(error),
        };
        if failed {
            self.next_trial = Some(Instant::now());
            self.disconnect().await;
            self.is_in_doubt |= outcome.is_err();
        }
        let words = turn.answer_tasks(outcome);
        self.give_back(words);
    }

    /// The outcome of turns in doubt is known now: who waits for what they did is told, and what they claimed
    /// is given back, because its callers were told of a failure.
    pub(super) fn end_doubt(&mut self) {
        self.tell();
        let words = std::mem::take(&mut self.unconfirmed);
        self.give_back(words);
    }

    /// Says these words in the next turn. Nobody waits for the answer.
    fn give_back(&mut self, words: Vec<TaskWord>) {
        if !words.is_empty() {
            let (answer, _) = oneshot::channel();
            self.held_back.push(Work::Tasks(Box::new(Operation::Move(words)), answer));
        }
    }

    async fn operate_in_time(&mut self, turn: &mut Turn) -> Result<(Outcomes, Vec<TaskTally>), StoreError> {
        let is_file = self.address.file().is_some();
        let limit = if is_file { Duration::MAX } else { TURN_MAX };
        let silent = || Err(unavailable("the database server does not answer any more"));
        timeout(limit, self.operate(turn)).await.unwrap_or_else(|_| silent())
    }

    /// Does all operations in one transaction: in as few sets as possible or, if a set fails, one by one.
    async fn operate(&mut self, turn: &mut Turn) -> Result<(Outcomes, Vec<TaskTally>), StoreError> {
        let context = self.context.clone();
        let share = if self.is_in_doubt { Share::Alone } else { Share::Working };
        let transaction = self.begin(share, turn).await?;
        self.is_in_doubt = false;
        let operations = std::mem::take(&mut turn.operations);
        let sets = tasks::sets(&operations);
        let is_one_set = sets.len() == 1;
        let transaction = if is_one_set {
            if let Ok((outcomes, news)) = tasks::run(&transaction, &context, &operations).await {
                let tally = self.mark(news);
                self.commit(transaction, claimed(&outcomes)).await?;
                return Ok((outcomes.into_iter().map(Ok).collect(), vec![tally]));
            }
            transaction.rollback().await.of("rollback")?;
            self.begin(share, turn).await?
        } else {
            transaction
        };
        let (mut outcomes, mut tallies) = (Vec::with_capacity(operations.len()), Vec::new());
        for set in sets {
            // A set that failed alone is not tried as it was.
            if !is_one_set && let Ok((done, news)) = apart(&transaction, &context, set).await? {
                outcomes.extend(done.into_iter().map(Ok));
                tallies.push(self.mark(news));
                continue;
            }
            for operation in set {
                match apart(&transaction, &context, std::slice::from_ref(operation)).await? {
                    Ok((done, news)) => {
                        outcomes.extend(done.into_iter().map(Ok));
                        tallies.push(self.mark(news));
                    }
                    Err(fault) => outcomes.push(Err(fault)),
                }
            }
        }
        self.commit(transaction, claimed(outcomes.iter().flatten())).await?;
        Ok((outcomes, tallies))
    }

    /// Notes what is told once the turn is on disk: the turn may take effect although its commit fails.
    /// Returns the numbers for the meter.
    fn mark(&self, mut news: TaskNews) -> TaskTally {
        let tally = std::mem::take(&mut news.tally);
        self.context.tasks.mark(news);
        tally
    }

    /// Commits a turn that claimed tasks. Their claims are noted until the commit has succeeded, also where
    /// the wait for it is given up.
    async fn commit(
        &mut self,
        transaction: DatabaseTransaction,
        claims: Vec<TaskWord>,
    ) -> Result<(), StoreError> {
        let noted = self.unconfirmed.len();
        self.unconfirmed.extend(claims.into_iter().take(UNCONFIRMED_MAX.saturating_sub(noted)));
        transaction.commit().await.of("commit")?;
        self.unconfirmed.truncate(noted);
        Ok(())
    }
}

/// The words that give back what was claimed.
fn claimed<'o>(outcomes: impl IntoIterator<Item = &'o Outcome>) -> Vec<TaskWord> {
    let claims = outcomes.into_iter().filter_map(|outcome| match outcome {
        Outcome::Claimed(claims) => Some(claims),
        _ => None,
    });
    let tasks = claims.flatten().flat_map(|claim| &claim.tasks);
    tasks.map(|claimed| TaskWord::give_back(claimed.task.app.clone(), claimed.token.clone())).collect()
}

/// Does a set of operations, which changes nothing if it fails.
async fn apart(
    transaction: &DatabaseTransaction,
    context: &Context,
    set: &[Operation],
) -> Result<Result<(Vec<Outcome>, TaskNews), StoreError>, StoreError> {
    let savepoint = transaction.begin().await.of("savepoint")?;
    let done = tasks::run(&savepoint, context, set).await;
    match &done {
        Ok(_) => savepoint.commit().await.of("savepoint")?,
        Err(_) => savepoint.rollback().await.of("savepoint")?,
    }
    Ok(done)
}
