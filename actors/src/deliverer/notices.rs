//! The notices of a round: `/resync` before its first change, `/synced` after its last one.

use tidings_entity::id::CursorId;
use tokio::time::Instant;
use tracing::warn;

use super::{
    DelivererMessage, DelivererState, Generation, Step,
    answers::{REOPEN, describe},
    retry::{Circumstances, Decision, Tries, Verdict, decide, verdict},
    running::Stage,
};
use crate::{
    circuit_breaker::{self, endpoint_key},
    context::in_time,
    ports::{Action, AttemptOutcome, Notice, StoreError},
};

impl DelivererState {
    /// Ends the round, after `/synced` for those who want it.
    pub(super) fn finish(&mut self, cursor: &CursorId, generation: Generation) {
        let Some(endpoint) = self.endpoint.clone() else { return };
        let wants_notice = self.app.as_ref().is_some_and(|app| app.delivery.synced);
        let context = self.context.clone();
        let Some((running, _)) = self.running(cursor) else { return };
        running.stage = Stage::Finishing;
        let (round, facts) = (running.open.round.clone(), running.open.snapshot.facts.clone());
        let cursor_of = cursor.clone();
        self.step(cursor, generation, async move {
            if wants_notice {
                let notice = Notice::OfRound { action: Action::Synced, round: round.clone(), repository: facts };
                let outcome = context.transport.notify(&endpoint, &notice).await;
                if !outcome.is_success() {
                    warn!(cursor.id = %cursor_of, round.number = round.number, "the notice that round {} ended was refused: {}", round.number, describe(&outcome));
                }
            }
            Step::Finished(in_time(context.store.finish_round(&cursor_of, round.number, context.now())).await)
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

    pub(super) fn announce(&mut self, cursor: &CursorId, generation: Generation) {
        let Some(endpoint) = self.endpoint.clone() else { return };
        let now = Instant::now();
        if self.gate.is_open() {
            if !self.gate.take_probe() {
                return;
            }
        } else if let Some(held) = self.gate.held_until().filter(|until| *until > now) {
            let due = cursor.clone();
            self.post.send_after(held - now, move || DelivererMessage::Due(due));
            return;
        }
        let transport = self.context.transport.clone();
        let Some((running, _)) = self.running(cursor) else { return };
        if let Stage::Announcing { flying, .. } = &mut running.stage {
            *flying = true;
        }
        let notice = Notice::OfRound {
            action: Action::Resync,
            round: running.open.round.clone(),
            repository: running.open.snapshot.facts.clone(),
        };
        self.step(
            cursor,
            generation,
            async move { Step::Noticed(transport.notify(&endpoint, &notice).await) },
        );
    }

    /// `/resync` was answered: acknowledged, it opens the way; refused for good, it blocks the
    /// cursor and is tried again under probe.
    pub(super) fn on_announced(
        &mut self,
        cursor: &CursorId,
        generation: Generation,
        outcome: &AttemptOutcome,
    ) {
        let (now, rules, random) = (Instant::now(), self.rules, self.context.random.clone());
        let Some((running, _)) = self.running(cursor) else { return };
        let Stage::Announcing { tries, since, .. } = running.stage else { return };
        let verdict = verdict(outcome);
        if verdict == Verdict::Acknowledged {
            running.stage = Stage::Flowing;
            running.lane.on_announced();
            circuit_breaker::report(&self.context, &endpoint_key(self.id.as_str()), Ok(()));
            return;
        }
        let (tries, since) = (tries + 1, since.unwrap_or(now));
        let circumstances = Circumstances {
            verdict,
            tries: Tries { all: tries, item: tries, since_first: now.duration_since(since) },
            acknowledged: running.open.snapshot.acknowledged,
            blocked: running.lane.is_blocked(),
            retry_after: outcome.retry_after,
        };
        let (wait, block) = match decide(circumstances, &rules, random.as_ref()) {
            Decision::Retry(wait) => (wait, false),
            Decision::Block(wait) => (wait, true),
            Decision::Park(_) => (rules.cap, true),
        };
        running.stage =
            Stage::Announcing { tries, since: Some(since), until: Some(now + wait), flying: false };
        if block {
            running.lane.block(format!("the notice of a resync was refused: {}", describe(outcome)));
        }
        let due = cursor.clone();
        self.post.send_after(wait, move || DelivererMessage::Due(due));
        match verdict {
            Verdict::Gone => self.on_gone(cursor, generation),
            Verdict::Endpoint => self.on_endpoint_failure(outcome, now),
            _ if self.gate.is_open() => {
                // The probe was not taken, but it was answered: the endpoint is well.
                circuit_breaker::report(&self.context, &endpoint_key(self.id.as_str()), Ok(()));
            }
            _ => {}
        }
    }
}
