//! What the lease keeper asks of the database, one question at a time: a renewal first, then shards are given
//! back, then free ones are taken. A renewal that is wanted while another question is under way follows it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{AGAIN, LeaseKeeperMessage, LeaseKeeperState};
use crate::{
    coalesced::Coalesced,
    leases::{Step, step, trusted_for},
    ports::{Fence, LeaseStanding, Leases, Signal, StoreError},
};

/// How long after the end of a lease it is looked for.
const LOOK_AFTER: Duration = Duration::from_millis(20);

impl LeaseKeeperState {
    pub(super) fn renew_soon(&mut self) {
        let Some(leases) = self.context.leases.clone() else { return };
        if self.asking.begin() {
            self.renew(leases);
        }
    }

    /// An answer came and was dealt with. A renewal that was wanted meanwhile goes first.
    fn ask_next(&mut self, renewal_wanted: bool) {
        if renewal_wanted && !self.asking.is_running() {
            self.renew_soon();
        } else {
            self.ask();
        }
    }

    /// Gives shards back or takes some, if the database is not busy with something.
    pub(super) fn ask(&mut self) {
        let Some(leases) = self.context.leases.clone().filter(|_| !self.asking.is_running()) else { return };
        if self.release_after <= Instant::now() {
            let left = self.context.shards.left(self.context.policy.leaving_max);
            if !left.is_empty() {
                return self.release(leases, left);
            }
        }
        let wanted = std::mem::take(&mut self.wanted);
        if wanted > 0 && !self.context.directory.is_closed() {
            self.claim(leases, wanted);
        }
    }

    fn renew(&mut self, leases: Arc<dyn Leases>) {
        let (life, asked) = (self.context.policy.lease_life, Instant::now());
        let mut replica = self.context.policy.replica.clone();
        // What one that ends gives away is shared by the others alone.
        replica.works &= !self.context.directory.is_closed();
        let work = async move { within(life / 3, leases.renew(&replica, life)).await };
        self.tasks.spawn(&self.post, work, move |result| LeaseKeeperMessage::Renewed(asked, result));
    }

    pub(super) fn on_renewed(&mut self, asked: Instant, result: Result<LeaseStanding, StoreError>) {
        let renewal_wanted = self.asking.end();
        match result {
            Ok(standing) => {
                self.take_standing(asked, &standing);
                self.tell_untold();
            }
            Err(reason) => {
                warn!("the leases of this replica were not prolonged: {reason}");
                self.look_after(AGAIN);
            }
        }
        self.ask_next(renewal_wanted);
    }

    fn take_standing(&mut self, asked: Instant, standing: &LeaseStanding) {
        if !std::mem::replace(&mut self.is_known, true) {
            self.tell_of_shards();
        }
        if let Some(told) = standing.now {
            // It was said somewhere between the question and the answer.
            let half = asked.elapsed() / 2;
            self.context.clock.follow(told, asked + half, half);
        }
        if self.context.shards.shared_by(standing.workers) {
            self.divide();
        }
        let until = self.end_of(asked);
        let changes = self.context.shards.renewed(&standing.held, until);
        self.believe(until, &changes);
        if self.context.directory.is_closed() {
            return;
        }
        // A replica that lives prolongs long before: this one may be dead, and is not waited for longer.
        let third = self.context.policy.lease_life / 3;
        if let Some(wait) = standing.free_in.filter(|wait| *wait < third) {
            self.look_after(wait + LOOK_AFTER);
        }
        let (_, staying) = self.context.shards.held();
        match step(standing, staying, self.context.policy.replica.works) {
            Step::Stay => {}
            Step::Claim(count) => self.wanted = count,
            Step::Release(count) => self.give_away(count),
        }
    }

    fn claim(&mut self, leases: Arc<dyn Leases>, count: usize) {
        self.asking = Coalesced::Running;
        let (policy, asked) = (self.context.policy.clone(), Instant::now());
        let most = policy.lease_life / 3;
        let work =
            async move { within(most, leases.claim(&policy.replica.id, count, policy.lease_life)).await };
        self.tasks.spawn(&self.post, work, move |result| LeaseKeeperMessage::Claimed(asked, result));
    }

    pub(super) fn on_claimed(&mut self, asked: Instant, result: Result<Vec<Fence>, StoreError>) {
        let renewal_wanted = self.asking.end();
        match result {
            Ok(fences) if !fences.is_empty() => {
                info!(count = fences.len(), "this replica took {} shards", fences.len());
                let until = self.end_of(asked);
                let changes = self.context.shards.claimed(&fences, until);
                self.believe(until, &changes);
                if self.context.directory.is_closed() {
                    self.on_end();
                }
            }
            Ok(_) => {}
            Err(reason) => {
                warn!("free shards were not taken: {reason}");
                self.look_after(AGAIN);
            }
        }
        self.ask_next(renewal_wanted);
    }

    fn end_of(&self, asked: Instant) -> Instant {
        asked + trusted_for(self.context.policy.lease_life)
    }

    fn release(&mut self, leases: Arc<dyn Leases>, fences: Vec<Fence>) {
        self.asking = Coalesced::Running;
        let (id, most) = (self.context.policy.replica.id.clone(), self.context.policy.lease_life / 3);
        let work = async move {
            within(most, leases.release(&id, &fences)).await?;
            // Whoever misses it looks at its next renewal.
            drop(within(most, leases.tell(&Signal::Shards)).await);
            Ok(fences)
        };
        self.tasks.spawn(&self.post, work, LeaseKeeperMessage::Released);
    }

    pub(super) fn on_released(&mut self, result: Result<Vec<Fence>, StoreError>) {
        let renewal_wanted = self.asking.end();
        match result {
            Ok(fences) => self.context.shards.gave_back(&fences),
            // What is still its own the next renewal tells, and then it is given back again.
            Err(reason) => {
                warn!("shards were not given back: {reason}");
                self.release_after = Instant::now() + AGAIN;
            }
        }
        self.ask_next(renewal_wanted);
    }
}

/// A verb of leases that took longer counts as failed: what it did the next renewal tells.
async fn within<T>(
    most: Duration,
    verb: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {most:?}"));
    timeout(most, verb).await.map_err(late)?
}
