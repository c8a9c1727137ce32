//! How a task moves from state to state, pure. The store holds the lock on the row while it decides, so the
//! decision made here is the decision that is written.
//!
//! **The fence.** Each claim draws 128 random bits. The row keeps their hash; the worker sends the bits back.
//! Bits of an older claim change nothing, even from the worker that has the newest claim. A claim ends when
//! its worker reports a result, when its time is over, or when the task is sent again: from then on its bits
//! are stale. Only the call that ended the task may be repeated.
//!
//! **Attempts.** A claim is an attempt. An abandoned claim is not counted as an attempt, but only
//! [`ABANDONS_FREE`] times: a task that every worker abandons must end.

use std::{fmt, str::FromStr, time::Duration};

use data_encoding::HEXLOWER;
use tidings_entity::{
    id::{CursorId, Sha256Hash, TaskId},
    kind::TaskState,
};

use crate::time::Timestamp;

/// How often a task may be abandoned before that counts as an attempt.
pub const ABANDONS_FREE: i64 = 100;
/// How long the worker of a cancelled task may still end it.
pub const CANCEL_GRACE: Duration = Duration::from_secs(60);
/// How long an idempotency key holds at least, after the end of its task.
pub const KEY_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Bytes of the random part of a claim.
const CLAIM_BYTES: usize = 16;
/// The error of a task whose claim ran out.
pub const RAN_OUT: &str = "the claim ran out: its worker neither ended it nor extended it in time";

/// Proves a claim: the task and the bits that its claim drew.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimToken {
    /// The task that was claimed.
    pub task: TaskId,
    /// The bits that the claim drew.
    pub bits: [u8; CLAIM_BYTES],
    /// The change that a task of a watch is about; `None`: no watch created the task.
    pub place: Option<TaskPlace>,
}

/// The place of a change in its round. A token names it, because the row of a task of a watch goes when the
/// task ends: a completion that is repeated is answered from the settled ranges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskPlace {
    /// The cursor of the change.
    pub cursor: CursorId,
    /// The number of the round.
    pub round: i64,
    /// The position of the change in the round.
    pub position: u64,
}

impl ClaimToken {
    /// The value that the row of the task stores: half of the SHA-256 of the bits, as hexadecimal digits.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = Sha256Hash::of(&self.bits).to_string();
        hash.truncate(2 * CLAIM_BYTES);
        hash
    }

    /// What the token proves.
    #[must_use]
    pub fn proof(&self) -> ClaimProof {
        match &self.place {
            Some(place) => ClaimProof::OfWatch(self.hash(), place.clone()),
            None => ClaimProof::Hash(self.hash()),
        }
    }
}

impl fmt::Display for ClaimToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.task, HEXLOWER.encode(&self.bits))?;
        let Some(TaskPlace { cursor, round, position }) = &self.place else { return Ok(()) };
        write!(formatter, ".{cursor}.{round}.{position}")
    }
}

/// Shows only the task: a person who reads a log must not be able to end the task.
impl fmt::Debug for ClaimToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.(secret)", self.task)
    }
}

impl FromStr for ClaimToken {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split('.').collect();
        let (task, bits, place) = match parts[..] {
            [task, bits] => (task, bits, None),
            [task, bits, cursor, round, position] => {
                let (round, position) = (round.parse().map_err(drop)?, position.parse().map_err(drop)?);
                (task, bits, Some(TaskPlace { cursor: cursor.parse().map_err(drop)?, round, position }))
            }
            _ => return Err(()),
        };
        let bits = HEXLOWER.decode(bits.as_bytes()).map_err(drop)?;
        Ok(Self { task: task.parse().map_err(drop)?, bits: bits.try_into().map_err(drop)?, place })
    }
}

/// How a worker proves that it has a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimProof {
    /// By the hash of the bits of its claim ([`ClaimToken::hash`]).
    Hash(String),
    /// By that hash, for a task of a watch, with the place of its change.
    OfWatch(String, TaskPlace),
    /// The name of the worker: weaker than the bits, because an older claim of the same worker has the same
    /// name.
    Worker(String),
}

/// The facts about a task that decide its moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStanding {
    /// The present state of the task.
    pub state: TaskState,
    /// Claims that were not abandoned.
    pub attempts: i64,
    /// Claims that were abandoned.
    pub abandons: i64,
    /// The number of attempts after which the task is dead.
    pub max_attempts: i64,
    /// The hash of the newest claim; `None`: the task was never claimed, or its claim ended.
    pub claim: Option<String>,
    /// The worker that has the task, or that ended it.
    pub worker: Option<String>,
    /// When the task was last claimed.
    pub claimed_at: Option<Timestamp>,
    /// The moment of the next move by the clock: the task becomes due, its claim runs out, or it is
    /// forgotten, depending on its state.
    pub wake_at: Option<Timestamp>,
    /// Whether the task is cancelled once its claim ends.
    pub is_flagged: bool,
    /// Whether the task has an idempotency key.
    pub is_keyed: bool,
    /// When the task ended.
    pub ended_at: Option<Timestamp>,
    /// The last error of a worker, or the reason why the task is dead.
    pub error: Option<String>,
}

/// A move of a task that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskMove {
    /// The worker still works on the task, and needs this much time from now on.
    Heartbeat(Duration),
    /// The worker has done the task.
    Complete,
    /// The worker gives the task up for good, for this reason.
    Fail(String),
    /// The worker could not do the task this time: it is tried again after this wait, or by the policy of its
    /// queue.
    Nack {
        /// The wait; `None`: the wait of the policy.
        delay: Option<Duration>,
        /// The reason, for people.
        reason: Option<String>,
    },
    /// The worker did not try the task: another worker may have it after this wait.
    Abandon(Duration),
    /// The moment `wake_at` has come.
    Due,
    /// The time of its claim is over.
    Expire,
    /// A person cancels the task.
    Cancel,
    /// A person sends a task that has ended again.
    Redrive,
}

impl TaskMove {
    /// Whether only the worker that has the task may say so.
    #[must_use]
    pub fn needs_proof(&self) -> bool {
        !matches!(self, Self::Due | Self::Expire | Self::Cancel | Self::Redrive)
    }
}

/// The effect of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The task moved just now.
    Now,
    /// The task had made this move before: nothing changed.
    Before,
    /// The task is marked: it is cancelled when its claim ends, and no claim is extended until then.
    Flagged,
}

/// The reason why a task did not move. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveRefusal {
    /// The claim is not the newest of the task, or its time is over.
    ClaimLost,
    /// There is no such task, or it belongs to another app.
    NotFound,
    /// The move is not possible in this state of the task.
    State(TaskState),
}

/// The settings of a task's queue that decide its moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRules {
    /// The longest time from one extension of a claim to its end.
    pub claim_max: Duration,
    /// The longest time of a claim with all its extensions.
    pub timeout: Duration,
    /// How long a task is kept that succeeded, failed or was cancelled.
    pub retention: Duration,
    /// How long a dead task is kept.
    pub dead_retention: Duration,
}

impl TaskStanding {
    /// Gives the task to a worker until `claim` ends.
    pub fn claim(&mut self, hash: String, worker: String, claim: Duration, rules: &TaskRules, at: Timestamp) {
        self.state = TaskState::Claimed;
        self.attempts += 1;
        self.claim = Some(hash);
        self.worker = Some(worker);
        self.claimed_at = Some(at);
        self.wake_at = Some(at.after(claim.min(rules.claim_max).min(rules.timeout)));
    }

    /// Moves the task. `backoff` returns the wait of the policy after this many attempts.
    ///
    /// # Errors
    /// See [`MoveRefusal`].
    pub fn apply(
        &mut self,
        step: &TaskMove,
        proof: Option<&ClaimProof>,
        rules: &TaskRules,
        backoff: &dyn Fn(i64) -> Duration,
        at: Timestamp,
    ) -> Result<Moved, MoveRefusal> {
        if step.needs_proof() && !proof.is_some_and(|proof| self.is_held_by(proof)) {
            return Err(MoveRefusal::ClaimLost);
        }
        // Another worker may be given the task from this moment on, on whichever replica.
        let is_over = self.state == TaskState::Claimed && self.wake_at.is_some_and(|until| until <= at);
        if step.needs_proof() && is_over {
            return Err(MoveRefusal::ClaimLost);
        }
        match step {
            TaskMove::Complete | TaskMove::Fail(_) => return self.end_by_worker(step, rules, at),
            TaskMove::Cancel => return self.cancel(rules, at),
            TaskMove::Redrive => return self.redrive(),
            TaskMove::Due => {
                let is_due = self.wake_at.is_some_and(|wake_at| wake_at <= at);
                if self.state != TaskState::Waiting || !is_due {
                    return Err(MoveRefusal::State(self.state));
                }
                self.free(Duration::ZERO, at);
            }
            TaskMove::Expire => {
                let is_over = self.wake_at.is_some_and(|wake_at| wake_at <= at);
                if self.state != TaskState::Claimed || !is_over {
                    return Err(MoveRefusal::State(self.state));
                }
                self.give_back(Duration::ZERO, Some(RAN_OUT.to_owned()), rules, at);
            }
            _ if self.state != TaskState::Claimed => return Err(MoveRefusal::ClaimLost),
            TaskMove::Heartbeat(_) if self.is_flagged => return Ok(Moved::Flagged),
            TaskMove::Heartbeat(wanted) => {
                let last = self.claimed_at.unwrap_or(at).after(rules.timeout);
                self.wake_at = Some(at.after((*wanted).min(rules.claim_max)).min(last));
            }
            TaskMove::Nack { delay, reason } => {
                let wait = delay.unwrap_or_else(|| backoff(self.attempts));
                self.give_back(wait, reason.clone(), rules, at);
            }
            TaskMove::Abandon(wait) => {
                self.abandons += 1;
                if self.abandons <= ABANDONS_FREE {
                    self.attempts -= 1;
                }
                self.give_back(*wait, None, rules, at);
            }
        }
        Ok(Moved::Now)
    }

    /// Whether this proof belongs to the claim that has the task, or that ended it.
    fn is_held_by(&self, proof: &ClaimProof) -> bool {
        match proof {
            ClaimProof::Hash(hash) | ClaimProof::OfWatch(hash, _) => self.claim.as_ref() == Some(hash),
            ClaimProof::Worker(worker) => self.claim.is_some() && self.worker.as_ref() == Some(worker),
        }
    }

    fn end_by_worker(
        &mut self,
        step: &TaskMove,
        rules: &TaskRules,
        at: Timestamp,
    ) -> Result<Moved, MoveRefusal> {
        let (to, error) = match step {
            TaskMove::Fail(reason) => (TaskState::Failed, Some(reason.clone())),
            _ => (TaskState::Succeeded, None),
        };
        if self.state == to {
            return Ok(Moved::Before);
        }
        if self.state != TaskState::Claimed {
            return Err(MoveRefusal::ClaimLost);
        }
        self.error = error;
        self.end(to, rules, at);
        Ok(Moved::Now)
    }

    fn cancel(&mut self, rules: &TaskRules, at: Timestamp) -> Result<Moved, MoveRefusal> {
        match self.state {
            TaskState::Waiting | TaskState::Ready | TaskState::Aside => {
                self.end(TaskState::Cancelled, rules, at);
                Ok(Moved::Now)
            }
            TaskState::Claimed if self.is_flagged => Ok(Moved::Flagged),
            TaskState::Claimed => {
                let last = at.after(CANCEL_GRACE);
                self.wake_at = Some(self.wake_at.map_or(last, |wake_at| wake_at.min(last)));
                self.is_flagged = true;
                Ok(Moved::Flagged)
            }
            TaskState::Cancelled => Ok(Moved::Before),
            state => Err(MoveRefusal::State(state)),
        }
    }

    fn redrive(&mut self) -> Result<Moved, MoveRefusal> {
        if !matches!(self.state, TaskState::Failed | TaskState::Dead | TaskState::Cancelled) {
            return Err(MoveRefusal::State(self.state));
        }
        (self.state, self.attempts, self.abandons) = (TaskState::Ready, 0, 0);
        (self.claim, self.worker, self.claimed_at) = (None, None, None);
        (self.wake_at, self.ended_at) = (None, None);
        Ok(Moved::Now)
    }

    /// Ends a claim without an end of the task, unless its attempts are used up or it is to be cancelled.
    fn give_back(&mut self, wait: Duration, reason: Option<String>, rules: &TaskRules, at: Timestamp) {
        if reason.is_some() {
            self.error = reason;
        }
        self.claim = None;
        if self.is_flagged {
            self.end(TaskState::Cancelled, rules, at);
        } else if self.attempts >= self.max_attempts {
            self.end(TaskState::Dead, rules, at);
        } else {
            self.worker = None;
            self.free(wait, at);
        }
    }

    fn free(&mut self, wait: Duration, at: Timestamp) {
        (self.state, self.wake_at) = match wait {
            Duration::ZERO => (TaskState::Ready, None),
            wait => (TaskState::Waiting, Some(at.after(wait))),
        };
    }

    fn end(&mut self, to: TaskState, rules: &TaskRules, at: Timestamp) {
        let kept = if to == TaskState::Dead { rules.dead_retention } else { rules.retention };
        let kept = if self.is_keyed { kept.max(KEY_KEPT) } else { kept };
        (self.state, self.is_flagged) = (to, false);
        (self.ended_at, self.wake_at) = (Some(at), Some(at.after(kept)));
    }
}

/// The rank of a task in its queue: the smallest rank is claimed first. `micros` is the moment of creation.
/// Tasks of higher priority are claimed first, and of equal priority the older ones; with `ageing` each step
/// of priority counts as much as this age.
#[must_use]
pub fn rank(priority: u8, micros: i64, ageing: Option<Duration>) -> i64 {
    /// Bits that hold microseconds for 18,000 years.
    const MICROS_BITS: u32 = 59;
    let priority = i64::from(priority.min(9));
    match ageing {
        None => ((9 - priority) << MICROS_BITS) + micros.clamp(0, (1 << MICROS_BITS) - 1),
        Some(ageing) => {
            let step = i64::try_from(ageing.as_micros()).unwrap_or(i64::MAX);
            micros.saturating_sub(step.saturating_mul(priority))
        }
    }
}

/// Claims that a rate allows: no more than `rate` in any second, and up to a twentieth of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimRate {
    /// Claims a second, at least 1.
    pub rate: u32,
    /// Until when the claims so far are paid for, in microseconds.
    pub paid_until: i64,
}

impl ClaimRate {
    const SECOND: i64 = 1_000_000;

    fn burst(self) -> i64 {
        1 + i64::from(self.rate) / 20
    }

    /// The cost of a claim, in microseconds: a worker that claims a full burst at once can claim `rate` tasks
    /// in that second.
    fn cost(self) -> i64 {
        let steady = i64::from(self.rate.max(1)) - self.burst() + 1;
        (Self::SECOND + steady - 1) / steady
    }

    /// The moment up to which claims are paid, at least now. A moment further ahead than claims can lead to
    /// comes from a clock that was set back, and counts as now.
    fn paid(self, now: i64) -> i64 {
        if self.paid_until - now > self.burst() * self.cost() + Self::SECOND {
            return now;
        }
        self.paid_until.max(now)
    }

    /// How many claims are allowed now (`now` in microseconds).
    #[must_use]
    pub fn allowed(self, now: i64) -> i64 {
        let free = (self.burst() - 1) * self.cost() - (self.paid(now) - now);
        if free < 0 { 0 } else { free / self.cost() + 1 }
    }

    /// The rate after these claims were paid for.
    #[must_use]
    pub fn after(self, claims: i64, now: i64) -> Self {
        Self { paid_until: self.paid(now) + claims * self.cost(), ..self }
    }

    /// When the next claim is allowed, in microseconds.
    #[must_use]
    pub fn next(self, now: i64) -> i64 {
        now + (self.paid(now) - now - (self.burst() - 1) * self.cost()).max(0)
    }
}

#[cfg(test)]
mod tests;
