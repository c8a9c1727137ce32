//! The work of the writer in one transaction, and the callers that wait for it.

use std::collections::BTreeSet;

use tidings_actors::ports::{Fence, Settlement, StoreError, TaskWord};

use super::verb::{Answer, Job};
use crate::tasks::{Operation, Outcome};

/// A request to the writing task.
pub(super) enum Work {
    Settle(Box<Settlement>, Option<Fence>, Answer<bool>),
    Verb(Box<dyn Job>),
    Tasks(Box<Operation>, Answer<Outcome>),
    Flush(Answer<()>),
    Close(Answer<()>),
}

/// The work of one transaction.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) settlements: Vec<Settlement>,
    pub(super) settled: Vec<(Option<Fence>, Answer<bool>)>,
    pub(super) jobs: Vec<Box<dyn Job>>,
    pub(super) operations: Vec<Operation>,
    pub(super) operated: Vec<Answer<Outcome>>,
    pub(super) flushed: Vec<Answer<()>>,
    pub(super) closing: Vec<Answer<()>>,
}

impl Turn {
    /// Sorts work by kind.
    pub(super) fn sort(work: impl Iterator<Item = Work>) -> Self {
        let mut turn = Self::default();
        for work in work {
            match work {
                Work::Settle(settlement, fence, answer) => {
                    turn.settlements.push(*settlement);
                    turn.settled.push((fence, answer));
                }
                Work::Verb(job) => turn.jobs.push(job),
                Work::Tasks(operation, answer) => {
                    turn.operations.push(*operation);
                    turn.operated.push(answer);
                }
                Work::Flush(answer) => turn.flushed.push(answer),
                Work::Close(answer) => turn.closing.push(answer),
            }
        }
        turn
    }

    /// The leases under which its verbs were begun.
    pub(super) fn fences(&self) -> BTreeSet<Fence> {
        let settled = self.settled.iter().filter_map(|(fence, _)| *fence);
        settled.chain(self.jobs.iter().filter_map(|job| job.fence())).collect()
    }

    /// Refuses the verbs whose lease is not among these: they change nothing.
    pub(super) fn refuse_lost(&mut self, standing: &BTreeSet<Fence>) {
        let is_lost = |fence: Option<Fence>| fence.is_some_and(|fence| !standing.contains(&fence));
        let mut stays =
            self.settled.iter().map(|(fence, _)| !is_lost(*fence)).collect::<Vec<_>>().into_iter();
        self.settlements.retain(|_| stays.next().unwrap_or(true));
        for (_, answer) in self.settled.extract_if(.., |(fence, _)| is_lost(*fence)) {
            drop(answer.send(Err(StoreError::Lost)));
        }
        for job in self.jobs.extract_if(.., |job| is_lost(job.fence())) {
            job.answer(Some(&StoreError::Lost));
        }
    }

    /// Answers the operations on tasks. Returns the words that give back what was claimed for callers that do
    /// not wait for the answer any more.
    #[must_use]
    pub(super) fn answer_tasks(
        &mut self,
        outcomes: Result<Vec<Result<Outcome, StoreError>>, StoreError>,
    ) -> Vec<TaskWord> {
        let answers = std::mem::take(&mut self.operated);
        let count = answers.len();
        let outcomes = outcomes.unwrap_or_else(|fault| (0..count).map(|_| Err(fault.clone())).collect());
        let mut words = Vec::new();
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            if let Err(Ok(Outcome::Claimed(claims))) = answer.send(outcome) {
                let tasks = claims.into_iter().flat_map(|claim| claim.tasks);
                words.extend(tasks.map(|claimed| TaskWord::give_back(claimed.task.app, claimed.token)));
            }
        }
        words
    }

    /// How many verbs it carries to the disk.
    pub(super) fn verbs(&self) -> usize {
        self.settlements.len() + self.jobs.len()
    }

    /// Answers all verbs, except those that wait for the end of the turn.
    pub(super) fn answer(self, outcome: Result<Vec<Result<bool, StoreError>>, StoreError>) {
        let fault = outcome.as_ref().err().cloned();
        for job in self.jobs {
            job.answer(fault.as_ref());
        }
        let count = self.settled.len();
        let settled = outcome.unwrap_or_else(|fault| vec![Err(fault); count]);
        for ((_, answer), outcome) in self.settled.into_iter().zip(settled) {
            drop(answer.send(outcome));
        }
        for answer in self.flushed {
            drop(answer.send(Ok(())));
        }
    }
}
