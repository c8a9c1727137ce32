//! Handles the answer to a batch: tells the lane the result of each change, records the changes that were not
//! accepted, and reports to the breaker of the endpoint.

use std::time::Duration;

use futures_util::future::try_join_all;
use tidings_entity::id::{CursorId, DeadLetterId};
use tracing::{info, warn};

use super::{
    DelivererState, Generation, Step,
    answers::describe,
    lane::{Failed, Failure},
    retry::{Verdict, verdict},
    sending::Attempted,
};
use crate::{
    circuit_breaker::{self, endpoint_key},
    model::round::DeliveryId,
    ports::{ATTEMPTS_LOG, AttemptOutcome, AttemptRecord, ItemOutcome},
    supervision::tasks::in_time,
};

/// The data of one change of a batch for its attempt row.
struct TriedChange<'o> {
    position: u64,
    number: u32,
    delivery: Option<DeliveryId>,
    item_failure: bool,
    excerpt: &'o str,
    /// The wait before the next attempt; `None`: the change is not tried again.
    retry_in: Option<Duration>,
}

impl DelivererState {
    pub(super) fn on_batch(&mut self, cursor: &CursorId, generation: Generation, attempted: &Attempted) {
        match verdict(attempted.outcome.result) {
            Verdict::Acknowledged => self.on_batch_answered(cursor, generation, attempted),
            Verdict::Gone => {
                if let Some((running, _)) = self.running(cursor) {
                    attempted.batch.iter().for_each(|(position, _)| running.lane.on_recalled(*position));
                }
                self.on_gone(cursor, generation);
            }
            failed => self.on_batch_failed(cursor, generation, failed, attempted),
        }
    }

    /// The receiver acknowledged the request, but perhaps not each change in it.
    fn on_batch_answered(&mut self, cursor: &CursorId, generation: Generation, attempted: &Attempted) {
        let Attempted { batch, ended_at, outcome, .. } = attempted;
        let failure = self.failure(Verdict::Acknowledged, attempted);
        let (moment, rules, random) = (self.moment(), self.rules, self.context.random.clone());
        let record_all = self.context.policy.record_all;
        let Some((running, _)) = self.running(cursor) else { return };
        let lane = &mut running.lane;
        let mut rows = Vec::new();
        for (position, item) in batch {
            if record_all && *item == ItemOutcome::Accepted {
                rows.push(TriedChange {
                    position: *position,
                    number: lane.tries(*position) + 1,
                    delivery: lane.delivery_id(*position),
                    item_failure: false,
                    excerpt: "",
                    retry_in: None,
                });
            }
        }
        // Delivery ids are read first, because the lane forgets settled changes.
        let ids: Vec<_> = batch.iter().map(|(position, _)| lane.delivery_id(*position)).collect();
        let mut letter = || DeadLetterId::new(random.ulid(moment.wall));
        let failed = lane.on_batch_answered(batch, &failure, moment, &rules, random.as_ref(), &mut letter);
        for (position, Failed { number, item, retry_in }) in &failed {
            let at = batch.iter().position(|(of, _)| of == position);
            let Some((at, (_, word))) = at.and_then(|at| Some((at, batch.get(at)?))) else { continue };
            let excerpt = match word {
                ItemOutcome::Accepted | ItemOutcome::Untaken => "",
                ItemOutcome::Refused(reason) | ItemOutcome::Retry(reason) => reason,
            };
            rows.push(TriedChange {
                position: *position,
                number: *number,
                delivery: ids[at].clone(),
                item_failure: *item,
                excerpt,
                retry_in: *retry_in,
            });
        }
        if !failed.is_empty() {
            let parked = failed.iter().filter(|(_, failed)| failed.retry_in.is_none()).count();
            warn!(
                target: ATTEMPTS_LOG,
                { app.id = %self.id, cursor.id = %cursor },
                "of a batch of {} {} were not taken, {parked} of them are parked", batch.len(), failed.len()
            );
        }
        self.record_batch(cursor, generation, rows, outcome);
        if !self.gate.is_of(attempted.pass) {
            return;
        }
        if failed.len() < batch.len() {
            self.on_endpoint_answered(*ended_at);
        } else {
            // Nothing was taken, but there was an answer: the endpoint is well.
            circuit_breaker::report(&self.context, &endpoint_key(self.sink.id()), Ok(()));
        }
    }

    /// The request failed as a whole.
    fn on_batch_failed(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        verdict: Verdict,
        attempted: &Attempted,
    ) {
        let Attempted { batch, outcome, .. } = attempted;
        let failure = self.failure(verdict, attempted);
        let (moment, rules, random) = (self.moment(), self.rules, self.context.random.clone());
        let positions: Vec<u64> = batch.iter().map(|(position, _)| *position).collect();
        let Some((running, _)) = self.running(cursor) else { return };
        let failed = running.lane.on_batch_failed(&positions, &failure, moment, &rules, random.as_ref());
        let Some(failed) = failed else { return };
        let lane = &running.lane;
        // The failure is about the whole request, so no row counts as a failure of its change.
        let row = |(position, number): &(u64, u32)| TriedChange {
            position: *position,
            number: *number,
            delivery: lane.delivery_id(*position),
            item_failure: false,
            excerpt: outcome.excerpt.as_str(),
            retry_in: Some(failed.retry_in),
        };
        let rows = failed.numbers.iter().map(row).collect();
        if failed.item {
            info!(
                app.id = %self.id, cursor.id = %cursor,
                "a batch of {} was not taken ({}), smaller ones follow in {:?}",
                batch.len(), describe(outcome), failed.retry_in
            );
        } else {
            warn!(
                target: ATTEMPTS_LOG,
                { app.id = %self.id, cursor.id = %cursor },
                "a batch of {} failed ({}), next try in {:?}", batch.len(), describe(outcome), failed.retry_in
            );
        }
        self.record_batch(cursor, generation, rows, outcome);
        if !failed.item {
            self.on_endpoint_failure(outcome, moment.instant);
        } else if self.gate.is_open() && verdict != Verdict::Endpoint {
            // The batch was not accepted, but the endpoint answered: the endpoint works.
            circuit_breaker::report(&self.context, &endpoint_key(self.sink.id()), Ok(()));
        }
    }

    fn failure(&self, verdict: Verdict, attempted: &Attempted) -> Failure {
        let outcome = &attempted.outcome;
        Failure {
            verdict,
            sent_at: attempted.sent_at,
            answered_elsewhere: self.answered,
            retry_after: outcome.retry_after,
            status: outcome.result.ok(),
            excerpt: outcome.excerpt.clone(),
        }
    }

    /// Records one attempt row for each change of the batch. The shared answer is stored once, with the
    /// first.
    fn record_batch(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        rows: Vec<TriedChange<'_>>,
        outcome: &AttemptOutcome,
    ) {
        let at = self.context.now();
        let Some((running, _)) = self.running(cursor) else { return };
        let round = running.lane.round().number;
        let record = |tried: TriedChange<'_>| {
            Some(AttemptRecord {
                cursor: cursor.clone(),
                round,
                position: tried.position,
                number: tried.number,
                delivery: tried.delivery?,
                status: outcome.result.ok(),
                item_failure: tried.item_failure,
                excerpt: tried.excerpt.to_owned(),
                answer: None,
                took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
                at,
                next_at: tried.retry_in.map(|wait| at.after(wait)),
            })
        };
        let mut records: Vec<AttemptRecord> = rows.into_iter().filter_map(record).collect();
        let Some(first) = records.first_mut() else { return };
        first.answer.clone_from(&outcome.answer);
        let store = running.open.store.clone();
        self.step(cursor, generation, async move {
            let writes = records.into_iter().map(|record| in_time(store.record_attempt(record)));
            Step::Recorded(try_join_all(writes).await.map(drop))
        });
    }
}
