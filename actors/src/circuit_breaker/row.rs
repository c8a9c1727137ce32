//! A breaker and its row: which changes the row lacks, how the row is read, and how it is written. A write
//! that failed stays owed; nothing is told before the row is written.

use ractor::ActorRef;
use tidings_entity::kind::BreakerKind;
use tracing::{info, warn};

use super::{
    Breaker, BreakerNews, BreakerState, CircuitBreakerMessage, CircuitBreakerState, OPENED_BY_HAND,
    PROBE_DEADLINE, Transition, policy_of,
};
use crate::{
    ports::{ATTEMPTS_LOG, BreakerRow, Signal, StoreError},
    supervision::tasks::in_time,
};

/// The changes that the row of a breaker does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwedToRow {
    /// The row is up to date.
    Nothing,
    /// A try succeeded: the breaker closes.
    Closing,
    /// A permitted probe was not sent: another probe may go.
    ProbeBack,
}

impl OwedToRow {
    /// Records that a permitted probe was not sent. A breaker that is about to close has no probe to give
    /// back.
    pub(super) fn give_probe_back(&mut self) {
        if *self == Self::Nothing {
            *self = Self::ProbeBack;
        }
    }
}

impl CircuitBreakerState {
    /// Brings breaker and row together: closes the breaker, reads the row, counts the noted failures and
    /// gives a probe back, as far as each is due. `true`: the breaker has no failures left and ended.
    pub(super) async fn catch_up(
        &mut self,
        myself: &ActorRef<CircuitBreakerMessage>,
    ) -> Result<bool, StoreError> {
        if self.owed == OwedToRow::Closing {
            self.close().await?;
        }
        if self.is_stale {
            self.refresh().await?;
        }
        self.count().await?;
        let ends = self.breaker.failures() == 0;
        if ends {
            // No failures are left: the breaker closed, a success came before the failures were counted, or
            // another replica closed it while this actor did not run. A waiting listener is told now.
            self.tell(BreakerNews::Closed);
            myself.stop(None);
            return Ok(true);
        }
        self.bound().await?;
        if self.owed == OwedToRow::ProbeBack {
            self.give_back().await?;
        }
        Ok(false)
    }

    /// Shortens a deadline that a clock set back made too long, also in the row: otherwise other processes
    /// would wait for it.
    async fn bound(&mut self) -> Result<(), StoreError> {
        let before = self.breaker;
        if self.breaker.bound(self.context.now()) {
            self.record().await.inspect_err(|_| self.breaker = before)?;
            self.arm();
        }
        Ok(())
    }

    /// Takes over the state in the row, if there is a row, and tells the listener. The row may come from
    /// another replica and counts all the same.
    async fn refresh(&mut self) -> Result<(), StoreError> {
        let was_open = self.breaker.state() != BreakerState::Closed;
        let rows = in_time(self.context.store.breakers()).await?;
        self.is_stale = false;
        let (kind, id) = (self.guarded.kind(), self.guarded.id());
        let policy = policy_of(&self.context, kind);
        self.armed = None;
        match rows.into_iter().find(|row| row.kind == kind && row.id == id) {
            Some(row) => {
                // A peer's Retry-After is never longer than the cap, and no wait of the policy is longer than
                // `last_wait`.
                let longest_wait = policy.last_wait.max(self.context.policy.retry_cap).max(PROBE_DEADLINE);
                let (opened_at, probe_at, now) = (row.opened_at, row.probe_at, self.context.now());
                self.breaker =
                    Breaker::restored(policy, row.failures, opened_at, probe_at, longest_wait, now);
                self.last_error = row.last_error;
                self.on_subscribed();
            }
            None => self.breaker = Breaker::new(policy),
        }
        if was_open && self.breaker.state() == BreakerState::Closed {
            self.tell(BreakerNews::Closed);
        }
        Ok(())
    }

    /// Counts the noted failures. They stay noted if the row cannot be written.
    async fn count(&mut self) -> Result<(), StoreError> {
        let Some(failures) = self.context.directory.failures().look(&self.key) else { return Ok(()) };
        let (before, mut changed) = (self.breaker, None);
        for _ in 0..failures.count {
            match self.breaker.on_failure(self.context.now(), failures.retry_after) {
                Transition::None => {}
                Transition::Opened => changed = Some(true),
                Transition::StillOpen | Transition::Closed => changed = changed.or(Some(false)),
            }
        }
        // An open breaker does not change through late failures, so the row is not written: another replica
        // may have written a newer state.
        if self.breaker != before {
            self.last_error = failures.error;
            self.record().await.inspect_err(|_| self.breaker = before)?;
        }
        self.context.directory.failures().counted(&self.key, failures.count);
        if changed == Some(true) {
            self.log_opened();
        }
        if let Some(fresh) = changed {
            self.tell_open(fresh);
            self.context.tell_others(Signal::Breaker(self.key.clone())).await;
        }
        Ok(())
    }

    /// Logs that the breaker opened: that of an endpoint among the lines about attempts.
    fn log_opened(&self) {
        let (kind, id) = (self.guarded.kind(), self.guarded.id());
        let (failures, reason) = (self.breaker.failures(), &self.last_error);
        let text = format!("the breaker of {} opened after {failures} failures: {reason}", self.guarded);
        match kind {
            BreakerKind::Endpoint => {
                warn!(target: ATTEMPTS_LOG, { breaker.kind = %kind, breaker.id = id }, "{text}");
            }
            BreakerKind::Source => warn!(breaker.kind = %kind, breaker.id = id, "{text}"),
        }
    }

    /// Writes that it is closed, and says so.
    async fn close(&mut self) -> Result<(), StoreError> {
        let before = self.breaker;
        let transition = self.breaker.on_success();
        self.record().await.inspect_err(|_| self.breaker = before)?;
        (self.owed, self.is_stale) = (OwedToRow::Nothing, false);
        if transition == Transition::Closed {
            info!(
                breaker.kind = %self.guarded.kind(),
                breaker.id = self.guarded.id(),
                "the breaker of {} closed", self.guarded
            );
        }
        self.tell(BreakerNews::Closed);
        self.context.tell_others(Signal::Breaker(self.key.clone())).await;
        Ok(())
    }

    /// Makes the next probe due now, unless an operator opened the breaker. The row is written first, because
    /// replicas take a probe from the row.
    pub(super) async fn hasten(&mut self) -> Result<(), StoreError> {
        let before = self.breaker;
        if self.last_error != OPENED_BY_HAND && self.breaker.hasten(self.context.now()) {
            self.record().await.inspect_err(|_| self.breaker = before)?;
        }
        Ok(())
    }

    /// Gives the permitted probe back. Other replicas may take it at once; the deliverer of this replica is
    /// asked again after [`ASK_AGAIN`].
    async fn give_back(&mut self) -> Result<(), StoreError> {
        let before = self.breaker;
        let gave = self.breaker.give_probe_back(self.context.now());
        if gave {
            self.record().await.inspect_err(|_| self.breaker = before)?;
        }
        self.owed = OwedToRow::Nothing;
        if gave {
            self.context.tell_others(Signal::Breaker(self.key.clone())).await;
            self.ask_again();
        }
        Ok(())
    }

    async fn record(&self) -> Result<(), StoreError> {
        let (opened_at, probe_at) = match self.breaker.state() {
            BreakerState::Closed => (None, None),
            BreakerState::Open { opened_at, probe_at } => (Some(opened_at), Some(probe_at)),
            BreakerState::HalfOpen { opened_at, lost_at } => (Some(opened_at), Some(lost_at)),
        };
        let row = BreakerRow {
            kind: self.guarded.kind(),
            id: self.guarded.id().to_owned(),
            failures: self.breaker.failures(),
            opened_at,
            probe_at,
            last_error: self.last_error.clone(),
        };
        in_time(self.context.store.record_breaker(&row)).await
    }
}
