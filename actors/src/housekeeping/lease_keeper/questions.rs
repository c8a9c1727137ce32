//! The requests of the lease keeper to the database, one at a time: first a renewal, then shards are given
//! back, then free shards are taken. A renewal that becomes due during another request follows it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{AGAIN, LeaseKeeperMessage, LeaseKeeperState};
use crate::{
    ownership::leases::{Step, step, trusted_for},
    ports::{Fence, LeaseStanding, Leases, Signal, StoreError},
    signals::coalesced::Coalesced,
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

    /// Sends the next request after an answer was handled. A renewal that is due comes first.
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
        // The shards of a replica that ends are divided among the others.
        replica.works &= !self.context.directory.is_closed();
        let work = async move { within(life / 3, leases.renew(&replica, life)).await };
        self.tasks.spawn(&self.mailbox, work, move |result| LeaseKeeperMessage::Renewed(asked, result));
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
            // The clock was read at some moment between the request and the answer.
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
        // A live replica renews long before this: the owner may be dead, and its lease is taken as soon as it
        // ends.
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
        self.tasks.spawn(&self.mailbox, work, move |result| LeaseKeeperMessage::Claimed(asked, result));
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
            // A replica that misses the signal looks at its next renewal.
            drop(within(most, leases.tell(&Signal::Shards)).await);
            Ok(fences)
        };
        self.tasks.spawn(&self.mailbox, work, LeaseKeeperMessage::Released);
    }

    pub(super) fn on_released(&mut self, result: Result<Vec<Fence>, StoreError>) {
        let renewal_wanted = self.asking.end();
        match result {
            Ok(fences) => self.context.shards.gave_back(&fences),
            // The next renewal shows which shards are still held, and then they are given back again.
            Err(reason) => {
                warn!("shards were not given back: {reason}");
                self.release_after = Instant::now() + AGAIN;
            }
        }
        self.ask_next(renewal_wanted);
    }
}

/// A call about leases that took longer counts as failed; the next renewal shows its effect.
async fn within<T>(
    most: Duration,
    verb: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {most:?}"));
    timeout(most, verb).await.map_err(late)?
}
