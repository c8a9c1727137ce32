//! The results of the tasks of a running lane: changes were read, deliveries rendered, attempts answered,
//! rows written.

use std::{ops::RangeInclusive, time::Duration};

use tidings_entity::id::{CursorId, DeadLetterId};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    CurrentOutlet, DelivererMessage, DelivererState, Generation, Step,
    lane::{CursorEffect, Failure},
    retry::{Verdict, verdict},
    running::RunningLane,
    sending::Attempted,
};
use crate::{
    circuit_breaker::{self, endpoint_key},
    model::round::Change,
    ports::{
        ATTEMPTS_LOG, AttemptOutcome, AttemptRecord, GitError, ItemOutcome, Parcel, PrepareError, StoreError,
    },
    supervision::tasks::in_time,
};

/// The wait before a delivery that could not be rendered is tried again.
const RENDER_AGAIN: Duration = Duration::from_secs(2);
/// The wait before a lane whose rows or trees failed is opened again.
pub(super) const REOPEN: Duration = Duration::from_secs(1);
/// The wait before a consequence for a cursor that was not written is written again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// The longest wait before a settlement that was not written is written again; the first is
/// [`WRITE_AGAIN`], and each doubles it.
const SETTLE_AGAIN_LAST: Duration = Duration::from_secs(30);

impl DelivererState {
    pub(super) fn on_step(&mut self, cursor: &CursorId, generation: Generation, step: Step) {
        if let Step::PipelineEnded(pass, ..)
        | Step::Unprobed(pass, _)
        | Step::Noticed(pass, _)
        | Step::Unnoticed { pass, .. } = &step
        {
            self.gate.leave(*pass);
        }
        if let Step::Unprobed(pass, _) | Step::Unnoticed { pass, is_probe: true } = &step
            && self.gate.is_of(*pass)
        {
            self.on_unprobed();
        }
        if step.is_fenced() {
            self.context.give_up("another process took over this database");
        }
        if self.lanes.get(cursor).is_none_or(|lane| lane.generation != generation) {
            return;
        }
        match step {
            Step::Read(result) => self.on_read(cursor, result),
            Step::Prepared(head, result) => self.on_prepared(cursor, head, result),
            Step::Answered(outcomes) => self.on_answered(cursor, generation, outcomes.take()),
            Step::PipelineEnded(_, outcomes, range) => {
                self.on_answered(cursor, generation, outcomes.take());
                self.on_pipeline_ended(cursor, range);
            }
            Step::Unprobed(_, range) => self.on_pipeline_ended(cursor, range),
            Step::Settled(result) => self.on_settled(cursor, result),
            Step::Finished(result) => self.on_finished(cursor, result),
            Step::Noticed(pass, outcome) => self.on_noticed(cursor, generation, pass, &outcome),
            Step::Unnoticed { .. } => self.on_unnoticed(cursor),
            Step::Written(result) => self.on_written(cursor, result),
            Step::Recorded(Err(error)) => {
                warn!(cursor.id = %cursor, "a row of {cursor} was not written: {error}")
            }
            Step::Recorded(Ok(())) => {}
            Step::HandedOver(result) => self.on_handed_over(cursor, generation, result),
        }
        self.drive(cursor);
    }

    fn on_read(&mut self, cursor: &CursorId, result: Result<Vec<Change>, GitError>) {
        let Some((running, _)) = self.running(cursor) else { return };
        match result {
            Ok(changes) => {
                if !running.lane.on_read(changes) {
                    error!(
                        cursor.id = %cursor,
                        "the list of the open round of {cursor} is not the one that was begun"
                    );
                    running.reopen_after(REOPEN);
                }
            }
            Err(reason) => {
                warn!(cursor.id = %cursor, "the trees of {cursor} could not be read: {reason}");
                running.lane.on_read_failed();
                running.reopen_after(REOPEN);
            }
        }
    }

    fn on_prepared(&mut self, cursor: &CursorId, head: u64, result: Result<Vec<Parcel>, PrepareError>) {
        let letter = DeadLetterId::new(self.context.random.ulid(self.context.now()));
        let Some((running, _)) = self.running(cursor) else { return };
        match result {
            Ok(parcels) => running.lane.on_prepared(parcels),
            Err(PrepareError::Git(GitError::Unobtainable(blob))) => {
                running.lane.on_prepared(Vec::new());
                running.lane.on_blob_unobtainable(head, blob, letter);
            }
            Err(PrepareError::Git(reason)) if reason.is_of_the_object() => {
                running.lane.on_prepared(Vec::new());
                running.lane.on_content_unfit(head, reason.to_string(), letter);
            }
            Err(reason) => {
                warn!(
                    cursor.id = %cursor, delivery.position = head,
                    "delivery {head} of {cursor} could not be rendered: {reason}"
                );
                running.lane.on_prepared(Vec::new());
                running.lane.retry_later(head, Instant::now() + RENDER_AGAIN);
            }
        }
    }

    fn on_answered(&mut self, cursor: &CursorId, generation: Generation, answers: Vec<Attempted>) {
        let mut acknowledged = None;
        for attempted in answers {
            if !self.gate.is_of(attempted.pass) {
                self.on_former_answer(cursor, &attempted);
                continue;
            }
            if !attempted.batch.is_empty() {
                if let Some(at) = acknowledged.take() {
                    self.on_endpoint_answered(at);
                }
                self.on_batch(cursor, generation, &attempted);
                continue;
            }
            let Attempted { position, ended_at, outcome, .. } = &attempted;
            match verdict(outcome.result) {
                Verdict::Acknowledged => {
                    acknowledged = Some(*ended_at);
                    if self.context.policy.record_all {
                        self.record_success(cursor, generation, *position, outcome);
                    }
                    if let Some((running, _)) = self.running(cursor) {
                        running.lane.on_acknowledged(*position);
                    }
                }
                failed => {
                    // Outcomes are reported in the order in which they came, because a breaker counts
                    // failures in a row.
                    if let Some(at) = acknowledged.take() {
                        self.on_endpoint_answered(at);
                    }
                    if failed == Verdict::Gone {
                        if let Some((running, _)) = self.running(cursor) {
                            running.lane.on_recalled(*position);
                        }
                        self.on_gone(cursor, generation);
                    } else {
                        self.on_failed_attempt(cursor, generation, failed, &attempted);
                    }
                }
            }
        }
        if let Some(at) = acknowledged {
            self.on_endpoint_answered(at);
        }
    }

    /// Handles the answer of an endpoint that the app has replaced since. An acknowledgement counts; any
    /// other answer says nothing of the present endpoint, which is tried next.
    fn on_former_answer(&mut self, cursor: &CursorId, attempted: &Attempted) {
        let Some((running, _)) = self.running(cursor) else { return };
        let is_success = attempted.outcome.is_success();
        let mut settle = |position, is_taken| match is_taken {
            true => running.lane.on_acknowledged(position),
            false => running.lane.on_recalled(position),
        };
        if attempted.batch.is_empty() {
            return settle(attempted.position, is_success);
        }
        for (position, item) in &attempted.batch {
            settle(*position, is_success && *item == ItemOutcome::Accepted);
        }
    }

    /// The endpoint acknowledged something.
    pub(super) fn on_endpoint_answered(&mut self, at: Instant) {
        self.answered = self.answered.max(Some(at));
        self.gate.widen();
        circuit_breaker::report(&self.context, &endpoint_key(self.sink.id()), Ok(()));
    }

    /// Marks the changes that a pipeline did not send as ready again.
    fn on_pipeline_ended(&mut self, cursor: &CursorId, range: RangeInclusive<u64>) {
        let closed = self.gate.is_closed(Instant::now());
        if let Some((running, _)) = self.running(cursor) {
            range.for_each(|position| running.lane.on_recalled(position));
            if closed {
                running.lane.release();
            }
        }
    }

    fn on_failed_attempt(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        verdict: Verdict,
        attempted: &Attempted,
    ) {
        let Attempted { position, sent_at, outcome, .. } = attempted;
        let position = *position;
        let (moment, rules, answered) = (self.moment(), self.rules, self.answered);
        let random = self.context.random.clone();
        let letter = DeadLetterId::new(random.ulid(moment.wall));
        let Some((running, _)) = self.running(cursor) else { return };
        let Some(delivery) = running.lane.delivery_id(position) else { return };
        let round = running.lane.round().number;
        let failure = Failure {
            verdict,
            sent_at: *sent_at,
            answered_elsewhere: answered,
            retry_after: outcome.retry_after,
            status: outcome.result.ok(),
            excerpt: outcome.excerpt.clone(),
        };
        let lane = &mut running.lane;
        let failed = lane.on_failed(position, failure, moment, &rules, random.as_ref(), letter);
        let Some(failed) = failed else { return };
        match failed.retry_in {
            Some(wait) => warn!(
                target: ATTEMPTS_LOG,
                {
                    app.id = %self.id, cursor.id = %cursor, delivery.id = %delivery,
                    attempt.number = failed.number
                },
                "attempt {} of delivery {delivery} failed ({}), next in {wait:?}",
                failed.number, describe(outcome)
            ),
            None => warn!(
                target: ATTEMPTS_LOG,
                {
                    app.id = %self.id, cursor.id = %cursor, delivery.id = %delivery,
                    attempt.number = failed.number
                },
                "delivery {delivery} is parked after {} attempts ({})", failed.number, describe(outcome)
            ),
        }
        if !failed.item {
            self.on_endpoint_failure(outcome, moment.instant);
        } else if self.gate.is_open() {
            // The probe was not taken, but if it was answered the endpoint is well.
            let answered = verdict != Verdict::Endpoint;
            let word = if answered { Ok(()) } else { Err((describe(outcome), None)) };
            circuit_breaker::report(&self.context, &endpoint_key(self.sink.id()), word);
        }
        let attempt = AttemptRecord {
            cursor: cursor.clone(),
            round,
            position,
            number: failed.number,
            delivery,
            status: outcome.result.ok(),
            item_failure: failed.item,
            excerpt: outcome.excerpt.clone(),
            answer: outcome.answer.clone(),
            took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            at: moment.wall,
            next_at: failed.retry_in.map(|wait| moment.wall.after(wait)),
        };
        self.record(cursor, generation, attempt);
    }

    /// Records an acknowledged attempt as a row, with `delivery.history = all`.
    fn record_success(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        position: u64,
        outcome: &AttemptOutcome,
    ) {
        let at = self.context.now();
        let Some((running, _)) = self.running(cursor) else { return };
        let Some(delivery) = running.lane.delivery_id(position) else { return };
        let attempt = AttemptRecord {
            cursor: cursor.clone(),
            round: running.lane.round().number,
            position,
            number: running.lane.tries(position) + 1,
            delivery,
            status: outcome.result.ok(),
            item_failure: false,
            excerpt: outcome.excerpt.clone(),
            answer: outcome.answer.clone(),
            took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            at,
            next_at: None,
        };
        self.record(cursor, generation, attempt);
    }

    pub(super) fn record(&mut self, cursor: &CursorId, generation: Generation, attempt: AttemptRecord) {
        let Some((running, _)) = self.running(cursor) else { return };
        let store = running.open.store.clone();
        let work = async move { Step::Recorded(in_time(store.record_attempt(attempt)).await) };
        self.step(cursor, generation, work);
    }

    /// An attempt or a notice failed through the fault of the endpoint as a whole.
    pub(super) fn on_endpoint_failure(&mut self, outcome: &AttemptOutcome, now: Instant) {
        // A `Retry-After` is cut off at the cap: otherwise one header could stop the app's deliveries for a
        // year.
        let asked = outcome.retry_after.map(|asked| asked.min(self.rules.cap));
        self.gate.narrow();
        self.halt();
        if let Some(asked) = asked {
            self.gate.hold(now + asked);
            self.hold_back();
            self.arm_flow(now);
        }
        let key = endpoint_key(self.sink.id());
        circuit_breaker::report(&self.context, &key, Err((describe(outcome), asked)));
    }

    /// 410: the sink is not served any more.
    pub(super) fn on_gone(&mut self, cursor: &CursorId, generation: Generation) {
        let what = if self.sink.sink.is_some() { "that sink" } else { "the app" };
        info!(app.id = %self.id, "the endpoint of {} answered 410: {what} is disabled", self.sink);
        let (store, sink, since) = (self.context.store.clone(), self.sink.clone(), self.gate.since());
        self.outlet = CurrentOutlet::Closed;
        self.running_lanes().for_each(RunningLane::reload);
        self.step(cursor, generation, async move {
            Step::Recorded(in_time(store.disable_gone(&sink, since)).await.map(drop))
        });
    }

    fn on_settled(&mut self, cursor: &CursorId, result: Result<bool, StoreError>) {
        let Some((running, _)) = self.running(cursor) else { return };
        match result {
            Ok(true) => {
                (running.unwritten, running.settle_after) = (0, None);
                running.lane.on_settled();
            }
            Ok(false) => {
                running.lane.on_settle_refused();
                running.reload();
            }
            // Another replica has the repository: it reads the rows itself.
            Err(reason @ StoreError::Lost) => {
                info!(cursor.id = %cursor, "{cursor} is not worked on here any more: {reason}");
                running.lane.on_settle_refused();
                running.reload();
            }
            Err(reason) => {
                let wait = (WRITE_AGAIN * 2_u32.pow(running.unwritten.min(16))).min(SETTLE_AGAIN_LAST);
                warn!(
                    cursor.id = %cursor,
                    "a settlement of {cursor} was not written, next try in {wait:?}: {reason}"
                );
                running.lane.on_settle_failed();
                running.unwritten += 1;
                running.settle_after = Some(Instant::now() + wait);
                running.hold_back();
                let due = cursor.clone();
                self.mailbox.send_after(wait, move || DelivererMessage::Due(due));
            }
        }
    }

    /// Writes one consequence for the cursor; [`Step::Written`] follows.
    pub(super) fn write_effect(&mut self, cursor: &CursorId, generation: Generation, effect: CursorEffect) {
        let Some((running, _)) = self.running(cursor) else { return };
        let (store, id) = (running.open.store.clone(), cursor.clone());
        self.step(cursor, generation, async move {
            Step::Written(match effect {
                CursorEffect::Block(reason) => {
                    warn!(cursor.id = %id, "cursor {id} is blocked: {reason}");
                    in_time(store.set_blocked(&id, Some(&reason))).await
                }
                CursorEffect::Unblock => {
                    info!(cursor.id = %id, "cursor {id} goes on");
                    in_time(store.set_blocked(&id, None)).await
                }
            })
        });
    }

    fn on_written(&mut self, cursor: &CursorId, result: Result<(), StoreError>) {
        let Some((running, _)) = self.running(cursor) else { return };
        running.writing = false;
        match result {
            Ok(()) => running.lane.on_effect_written(),
            // The cursor was removed by another request: there is nothing left to write.
            Err(reason @ (StoreError::NotFound | StoreError::Conflict(_))) => {
                info!(cursor.id = %cursor, "{cursor} changed meanwhile: {reason}");
                running.lane.on_effect_written();
            }
            // Another replica has the repository: it reads the rows itself.
            Err(reason @ StoreError::Lost) => {
                info!(cursor.id = %cursor, "{cursor} is not worked on here any more: {reason}");
                running.lane.on_effect_written();
                running.reload();
            }
            Err(reason) => {
                warn!(cursor.id = %cursor, "the state of {cursor} was not written: {reason}");
                running.write_after = Some(Instant::now() + WRITE_AGAIN);
                let due = cursor.clone();
                self.mailbox.send_after(WRITE_AGAIN, move || DelivererMessage::Due(due));
            }
        }
    }
}

/// The result of an attempt in a few words, for logs.
pub(crate) fn describe(outcome: &AttemptOutcome) -> String {
    match outcome.result {
        Ok(status) => format!("status {status}"),
        Err(failure) => format!("{failure:?}: {}", outcome.excerpt),
    }
}
