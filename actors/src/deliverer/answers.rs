//! What the tasks of a running lane bring back: changes read, deliveries rendered, attempts ended,
//! rows written.

use std::time::Duration;

use tidings_entity::id::{CursorId, DeadLetterId};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    DelivererMessage, DelivererState, Generation, Slot, Step,
    lane::CursorEffect,
    retry::{Verdict, verdict},
};
use crate::{
    circuit_breaker::{self, endpoint_key},
    context::in_time,
    ports::{AttemptOutcome, AttemptRecord, GitError, Parcel, PrepareError, StoreError},
    round::Change,
};

/// The wait before a delivery that could not be rendered is tried again.
const RENDER_AGAIN: Duration = Duration::from_secs(2);
/// The wait before a lane whose rows or trees failed is opened again.
pub(super) const REOPEN: Duration = Duration::from_secs(1);
/// The wait before a consequence for a cursor that was not written is written again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

impl DelivererState {
    pub(super) fn on_step(&mut self, cursor: &CursorId, generation: Generation, step: Step) {
        if let Step::Attempted(_, outcome) = &step {
            self.gate.leave(outcome.is_success());
        }
        if step.is_fenced() {
            self.context.give_up("another process took over this database");
        }
        if self.lanes.get(cursor).is_none_or(|lane| lane.generation != generation) {
            return;
        }
        match step {
            Step::Read(result) => self.on_read(cursor, result),
            Step::Prepared(position, result) => self.on_prepared(cursor, position, *result),
            Step::Attempted(position, outcome) => self.on_attempted(cursor, generation, position, &outcome),
            Step::Settled(result) => self.on_settled(cursor, result),
            Step::Finished(result) => self.on_finished(cursor, result),
            Step::Noticed(outcome) => self.on_announced(cursor, generation, &outcome),
            Step::Written(result) => self.on_written(cursor, result),
            Step::Recorded(Err(error)) => {
                warn!(cursor.id = %cursor, "a row of {cursor} was not written: {error}")
            }
            Step::Recorded(Ok(())) => {}
        }
        self.drive(cursor);
    }

    fn on_read(&mut self, cursor: &CursorId, result: Result<Vec<Change>, GitError>) {
        let Some((running, _)) = self.running(cursor) else { return };
        match result {
            Ok(changes) => {
                if !running.lane.on_read(changes) {
                    error!(cursor.id = %cursor, "the list of the open round of {cursor} is not the one that was begun");
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

    fn on_prepared(&mut self, cursor: &CursorId, position: u64, result: Result<Parcel, PrepareError>) {
        let letter = DeadLetterId::new(self.context.random.ulid(self.context.now()));
        let Some((running, _)) = self.running(cursor) else { return };
        match result {
            Ok(parcel) => running.lane.on_prepared(position, parcel),
            Err(PrepareError::Git(GitError::Unobtainable(blob))) => {
                running.lane.on_blob_unobtainable(position, blob, letter);
            }
            Err(reason) => {
                warn!(cursor.id = %cursor, delivery.position = position, "delivery {position} of {cursor} could not be rendered: {reason}");
                running.lane.retry_later(position, Instant::now() + RENDER_AGAIN);
            }
        }
    }

    fn on_attempted(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        position: u64,
        outcome: &AttemptOutcome,
    ) {
        let verdict = verdict(outcome);
        let key = endpoint_key(self.id.as_str());
        match verdict {
            Verdict::Acknowledged => {
                self.answered = Some(Instant::now());
                circuit_breaker::report(&self.context, &key, Ok(()));
                if self.context.policy.record_all {
                    self.record_success(cursor, generation, position, outcome);
                }
                if let Some((running, _)) = self.running(cursor) {
                    running.lane.on_acknowledged(position);
                }
            }
            Verdict::Gone => {
                if let Some((running, _)) = self.running(cursor) {
                    running.lane.on_recalled(position);
                }
                self.on_gone(cursor, generation);
            }
            Verdict::Endpoint | Verdict::Refused | Verdict::Failing => {
                self.on_failed_attempt(cursor, generation, position, verdict, outcome);
            }
        }
    }

    fn on_failed_attempt(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        position: u64,
        verdict: Verdict,
        outcome: &AttemptOutcome,
    ) {
        let (moment, rules, answered) = (self.moment(), self.rules, self.answered);
        let random = self.context.random.clone();
        let letter = DeadLetterId::new(random.ulid(moment.wall));
        let Some((running, _)) = self.running(cursor) else { return };
        let Some(delivery) = running.lane.delivery_id(position) else { return };
        let round = running.lane.round().number;
        let answer = (outcome.result.ok(), outcome.excerpt.clone());
        let asked = outcome.retry_after;
        let lane = &mut running.lane;
        let failed = lane.on_failed(
            position,
            verdict,
            asked,
            answer,
            answered,
            moment,
            &rules,
            random.as_ref(),
            letter,
        );
        let Some(failed) = failed else { return };
        match failed.retry_in {
            Some(wait) => warn!(
                app.id = %self.id, cursor.id = %cursor, delivery.id = %delivery, attempt.number = failed.number,
                "attempt {} of delivery {delivery} failed ({}), next in {wait:?}", failed.number, describe(outcome)
            ),
            None => warn!(
                app.id = %self.id, cursor.id = %cursor, delivery.id = %delivery, attempt.number = failed.number,
                "delivery {delivery} is parked after {} attempts ({})", failed.number, describe(outcome)
            ),
        }
        if !failed.item {
            self.on_endpoint_failure(outcome, moment.instant);
        } else if verdict != Verdict::Endpoint && self.gate.is_open() {
            // The probe was not taken, but it was answered: the endpoint is well.
            circuit_breaker::report(&self.context, &endpoint_key(self.id.as_str()), Ok(()));
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
            took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            at: moment.wall,
        };
        self.record(cursor, generation, attempt);
    }

    /// With `delivery.history = all` an acknowledged attempt is a row, too.
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
            took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            at,
        };
        self.record(cursor, generation, attempt);
    }

    fn record(&mut self, cursor: &CursorId, generation: Generation, attempt: AttemptRecord) {
        let store = self.context.store.clone();
        let work = async move { Step::Recorded(in_time(store.record_attempt(attempt)).await) };
        self.step(cursor, generation, work);
    }

    /// An attempt or a notice failed through the fault of the endpoint as a whole.
    pub(super) fn on_endpoint_failure(&mut self, outcome: &AttemptOutcome, now: Instant) {
        // Beyond the cap, one header could silence the app's deliveries for a year.
        let asked = outcome.retry_after.map(|asked| asked.min(self.rules.cap));
        self.gate.narrow();
        if let Some(asked) = asked {
            self.gate.hold(now + asked);
        }
        let key = endpoint_key(self.id.as_str());
        circuit_breaker::report(&self.context, &key, Err((describe(outcome), asked)));
    }

    /// 410: the app is not served any more.
    pub(super) fn on_gone(&mut self, cursor: &CursorId, generation: Generation) {
        info!(app.id = %self.id, "the endpoint of {} answered 410: the app is disabled", self.id);
        let (store, id) = (self.context.store.clone(), self.id.clone());
        self.endpoint = None;
        for lane in self.lanes.values_mut() {
            if let Slot::Running(running) = &mut lane.slot {
                running.reload();
            }
        }
        self.step(cursor, generation, async move {
            Step::Recorded(in_time(store.set_app_disabled(&id, Some("the endpoint answered 410 Gone"))).await)
        });
    }

    fn on_settled(&mut self, cursor: &CursorId, result: Result<bool, StoreError>) {
        let Some((running, _)) = self.running(cursor) else { return };
        match result {
            Ok(true) => running.lane.on_settled(),
            Ok(false) => {
                running.lane.on_settle_failed();
                running.reload();
            }
            Err(reason) => {
                warn!(cursor.id = %cursor, "a settlement of {cursor} was not written: {reason}");
                running.lane.on_settle_failed();
                running.reopen_after(REOPEN);
            }
        }
    }

    /// Writes one consequence for the cursor; [`Step::Written`] follows.
    pub(super) fn write_effect(&mut self, cursor: &CursorId, generation: Generation, effect: CursorEffect) {
        let (store, id, app) = (self.context.store.clone(), cursor.clone(), self.id.clone());
        self.step(cursor, generation, async move {
            Step::Written(match effect {
                CursorEffect::Block(reason) => {
                    warn!(cursor.id = %id, "cursor {id} is blocked: {reason}");
                    in_time(store.set_blocked(&id, Some(&reason))).await
                }
                CursorEffect::Unblock(letters) => {
                    info!(cursor.id = %id, "cursor {id} goes on; {} changes are redriven next", letters.len());
                    let unblocked = in_time(store.set_blocked(&id, None)).await;
                    if unblocked.is_err() || letters.is_empty() {
                        unblocked
                    } else {
                        in_time(store.request_redrive(&app, &letters)).await.map(drop)
                    }
                }
            })
        });
    }

    fn on_written(&mut self, cursor: &CursorId, result: Result<(), StoreError>) {
        let Some((running, _)) = self.running(cursor) else { return };
        running.writing = false;
        match result {
            Ok(()) => running.lane.on_effect_written(),
            // Somebody else closed a letter or removed the cursor: there is nothing left to write.
            Err(reason @ (StoreError::NotFound | StoreError::Conflict(_))) => {
                info!(cursor.id = %cursor, "{cursor} changed meanwhile: {reason}");
                running.lane.on_effect_written();
            }
            Err(reason) => {
                warn!(cursor.id = %cursor, "the state of {cursor} was not written: {reason}");
                running.write_after = Some(Instant::now() + WRITE_AGAIN);
                let due = cursor.clone();
                self.post.send_after(WRITE_AGAIN, move || DelivererMessage::Due(due));
            }
        }
    }
}

/// What came of an attempt, in a few words.
pub(super) fn describe(outcome: &AttemptOutcome) -> String {
    match outcome.result {
        Ok(status) => format!("status {status}"),
        Err(failure) => format!("{failure:?}: {}", outcome.excerpt),
    }
}
