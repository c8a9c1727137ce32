//! The notices of a round: `/resync` before its first change, `/synced` after its last one.
//!
//! A failure of the endpoint delays a notice like any change. A refusal of `/resync` blocks the cursor, and
//! the notice is then sent as a probe; a refusal of `/synced` is recorded, as an attempt at the position
//! after the last change, and the round ends.

use std::time::Duration;

use tidings_entity::id::CursorId;
use tokio::time::Instant;
use tracing::{Instrument, info_span, warn};

use super::{
    CurrentOutlet, DelivererMessage, DelivererState, Generation, Step,
    answers::{REOPEN, describe},
    gate::Pass,
    retry::{Block, Circumstances, Decision, PROBE_WAIT_LAST, Tries, Verdict, decide, verdict},
    running::Stage,
    sending::take_turn_under,
};
use crate::{
    circuit_breaker::{self, endpoint_key},
    model::round::DeliveryId,
    ports::{ATTEMPTS_LOG, Action, AttemptOutcome, AttemptRecord, Notice, StoreError},
    supervision::tasks::in_time,
};

/// The first wait after a refused notice.
const NOTICE_WAIT_FIRST: Duration = Duration::from_secs(5);

impl DelivererState {
    /// Ends the round, after `/synced` has been sent if the app wants it.
    pub(super) fn finish(&mut self, cursor: &CursorId, generation: Generation) {
        let (context, app) = (self.context.clone(), self.id.clone());
        let is_claimed = matches!(self.outlet, CurrentOutlet::Claim);
        let Some((running, _)) = self.running(cursor) else { return };
        let (round, attempts) = (running.open.round.clone(), running.open.snapshot.head_attempts);
        let end_told = running.end_told;
        let store = running.open.store.clone();
        if running.owes_synced || (running.owes_resync && is_claimed) {
            // Tries before a restart count, if it was this notice that waited.
            let waited = round.position == round.summary.total();
            running.stage = Stage::noticing(Action::Synced, if waited { attempts.tries } else { 0 });
            self.drive(cursor);
            return;
        }
        running.stage = Stage::Finishing;
        let cursor_of = cursor.clone();
        self.step(cursor, generation, async move {
            let _turn = context.rows.take(&app).await;
            let (number, at) = (round.number, context.now());
            Step::Finished(in_time(store.finish_round(&cursor_of, number, at, end_told)).await)
        });
    }

    pub(super) fn on_finished(&mut self, cursor: &CursorId, result: Result<bool, StoreError>) {
        let Some((running, _)) = self.running(cursor) else { return };
        running.stage = Stage::Flowing;
        match result {
            Ok(_) => running.reload(),
            Err(reason) => {
                warn!(cursor.id = %cursor, "the round of {cursor} was not ended: {reason}");
                running.reopen_after(REOPEN);
            }
        }
    }

    /// Sends the notice that is due now; it counts among the attempts in flight.
    pub(super) fn notice(&mut self, cursor: &CursorId, generation: Generation) {
        let CurrentOutlet::Attempt(endpoint) = &self.outlet else { return };
        let endpoint = endpoint.clone();
        let now = Instant::now();
        // A probe cannot be halted: its breaker waits for the result.
        let may_halt = !self.gate.is_open();
        if !may_halt {
            if !self.gate.take_probe() {
                return;
            }
        } else if let Some(held) = self.gate.held_until().filter(|until| *until > now) {
            let due = cursor.clone();
            self.mailbox.send_after(held - now, move || DelivererMessage::Due(due));
            return;
        }
        let (transport, outbound) = (self.context.transport.clone(), self.context.outbound.clone());
        let (tracer, app) = (self.context.tracer.clone(), self.id.clone());
        let Some((running, _)) = self.running(cursor) else { return };
        let Stage::Noticing { flying, action, .. } = &mut running.stage else { return };
        *flying = true;
        let notice = Notice::OfRound {
            action: *action,
            round: running.open.round.clone(),
            repository: running.open.snapshot.facts.clone(),
        };
        let (halt, trace) = (running.halt.clone(), running.trace(&tracer));
        let open = running.open.clone();
        let (position, of) = (running.open.round.position, cursor.to_string());
        let pass = self.gate.enter();
        self.step(cursor, generation, async move {
            let turn = tokio::select! {
                biased;
                () = halt.called(), if may_halt => return Step::Unnoticed { pass, is_probe: false },
                turn = take_turn_under(&open.hold, &endpoint, &outbound) => turn,
            };
            let Some(_place) = turn else { return Step::Unnoticed { pass, is_probe: !may_halt } };
            let span = info_span!("delivery.notice", app.id = %app, cursor.id = of);
            trace.put(&span, position);
            Step::Noticed(pass, transport.notify(&endpoint, &notice).instrument(span).await)
        });
    }

    /// The notice was not sent and is sent later.
    pub(super) fn on_unnoticed(&mut self, cursor: &CursorId) {
        if let Some((running, _)) = self.running(cursor)
            && let Stage::Noticing { flying, .. } = &mut running.stage
        {
            *flying = false;
        }
    }

    /// A notice was answered. An acknowledgement lets the round go on.
    pub(super) fn on_noticed(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        pass: Pass,
        outcome: &AttemptOutcome,
    ) {
        if !self.gate.is_of(pass) {
            // The answer came from an earlier endpoint of the app; the notice is sent to the present
            // endpoint.
            return self.on_unnoticed(cursor);
        }
        let now = Instant::now();
        let Some((running, _)) = self.running(cursor) else { return };
        let Stage::Noticing { action, tries, since, .. } = running.stage else { return };
        let verdict = verdict(outcome.result);
        if verdict == Verdict::Acknowledged {
            return self.on_notice_taken(cursor, generation, action);
        }
        let (tries, since) = (tries + 1, since.unwrap_or(now));
        let (rules, random) = (self.rules, self.context.random.clone());
        let Some((running, _)) = self.running(cursor) else { return };
        let circumstances = Circumstances {
            verdict,
            tries: Tries { all: tries, item: tries, since_first: now.duration_since(since) },
            status: outcome.result.ok(),
            in_grace: false,
            // A block that concerns changes does not keep the round from ending.
            block: (running.lane.is_blocked() && action == Action::Resync).then_some(Block::Endpoint),
            retry_after: outcome.retry_after,
        };
        let waits = |until| Stage::Noticing { action, tries, since: Some(since), until, flying: false };
        let asked = outcome.retry_after;
        let decision = decide(circumstances, &rules, random.as_ref());
        let (wait, blocks) = wait_for(decision, action, || {
            rules.wait_within(NOTICE_WAIT_FIRST..=PROBE_WAIT_LAST, tries, asked, random.as_ref())
        });
        running.stage = match wait {
            Some(wait) => waits(Some(now + wait)),
            None => Stage::Flowing,
        };
        running.owes_synced &= wait.is_some();
        if blocks {
            running.lane.block(format!(
                "the notice /{} was not taken: {}",
                action.as_str(),
                describe(outcome)
            ));
        }
        if let Some(wait) = wait {
            let due = cursor.clone();
            self.mailbox.send_after(wait, move || DelivererMessage::Due(due));
        }
        if action == Action::Synced {
            self.record_refused_synced(cursor, generation, tries, verdict, outcome);
        }
        match verdict {
            Verdict::Gone => self.on_gone(cursor, generation),
            Verdict::Endpoint => self.on_endpoint_failure(outcome, now),
            _ if self.gate.is_open() => {
                // The probe was not accepted, but the endpoint answered: the endpoint works.
                circuit_breaker::report(&self.context, &endpoint_key(self.sink.id()), Ok(()));
            }
            _ => {}
        }
    }

    fn on_notice_taken(&mut self, cursor: &CursorId, generation: Generation, action: Action) {
        let Some((running, _)) = self.running(cursor) else { return };
        running.stage = Stage::Flowing;
        running.owes_synced &= action != Action::Synced;
        running.end_told |= action == Action::Synced;
        running.lane.on_noticed();
        if action == Action::Resync {
            self.note_announced(cursor, generation);
        }
        self.gate.widen();
        circuit_breaker::report(&self.context, &endpoint_key(self.sink.id()), Ok(()));
    }

    /// Records that the app has been told of the beginning of the resync.
    pub(super) fn note_announced(&mut self, cursor: &CursorId, generation: Generation) {
        let Some((running, _)) = self.running(cursor) else { return };
        running.owes_resync = false;
        let (store, round, id) = (running.open.store.clone(), running.open.round.number, cursor.clone());
        let work = async move { Step::Recorded(in_time(store.note_announced(&id, round)).await) };
        self.step(cursor, generation, work);
    }

    fn record_refused_synced(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        number: u32,
        verdict: Verdict,
        outcome: &AttemptOutcome,
    ) {
        let at = self.context.now();
        let Some((running, _)) = self.running(cursor) else { return };
        let round = running.open.round.clone();
        warn!(
            target: ATTEMPTS_LOG,
            { cursor.id = %cursor, round.number = round.number, attempt.number = number },
            "the notice that round {} ended was not taken: {}", round.number, describe(outcome)
        );
        let attempt = AttemptRecord {
            cursor: cursor.clone(),
            round: round.number,
            position: round.summary.total(),
            number,
            delivery: DeliveryId::of_notice(cursor, round.number, Action::Synced.as_str()),
            status: outcome.result.ok(),
            item_failure: verdict.is_of_the_item(),
            excerpt: outcome.excerpt.clone(),
            answer: outcome.answer.clone(),
            took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            at,
            next_at: None,
        };
        self.record(cursor, generation, attempt);
    }
}

/// The wait after a notice that was not accepted, and whether it blocks its lane. No wait: the notice is not
/// sent again. A refused `/resync` is tried again after `refused`, because a refusal usually repeats.
fn wait_for(
    decision: Decision,
    action: Action,
    refused: impl FnOnce() -> Duration,
) -> (Option<Duration>, bool) {
    match decision {
        Decision::Retry(wait) => (Some(wait), false),
        Decision::Block(wait) => (Some(wait), true),
        Decision::Park { .. } if action == Action::Resync => (Some(refused()), true),
        Decision::Park { .. } => (None, false),
    }
}
