//! The consequence of an attempt that was not acknowledged: the change waits, is parked, or blocks the
//! cursor.

use tidings_entity::id::DeadLetterId;
use tokio::time::Instant;

use super::{
    Failed, Failure, Lane, Moment,
    slot::{SlotState, Wait},
    streak,
};
use crate::{
    deliverer::retry::{
        Block, Circumstances, Decision, REGISTRATION_GRACE, RetryRules, Tries, Verdict, decide,
    },
    ports::{Park, Random},
    time::Timestamp,
};

impl Lane {
    /// The change was not sent, or the answer was about the app as a whole: the change counts as never
    /// launched.
    pub fn on_recalled(&mut self, position: u64) {
        // Behind a head that waits, a rendered delivery would only hold memory that other lanes need.
        let keep = !self.head_waits_alone();
        let Some(slot) = self.slot(position) else { return };
        slot.state = match std::mem::replace(&mut slot.state, SlotState::New) {
            SlotState::Flying(parcel) if keep => SlotState::Ready(parcel),
            SlotState::Flying(_) | SlotState::Claimed | SlotState::Batched { .. } => SlotState::New,
            other => other,
        };
    }

    /// The attempt failed. An endpoint failure of a change that was tried before the endpoint
    /// acknowledged something else counts as its own.
    pub fn on_failed(
        &mut self,
        position: u64,
        failure: Failure,
        now: Moment,
        rules: &RetryRules,
        random: &dyn Random,
        letter: DeadLetterId,
    ) -> Option<Failed> {
        let Failure { verdict, sent_at, answered_elsewhere, retry_after, status, excerpt } = failure;
        let delivery = self.delivery_id(position)?;
        let slot = self.slot(position)?;
        let poisoned = verdict == Verdict::Endpoint
            && answered_elsewhere.zip(slot.last_try).is_some_and(|(elsewhere, tried)| elsewhere > tried);
        if verdict.is_of_the_item() {
            self.on_noticed();
        }
        let verdict = if poisoned { Verdict::Failing } else { verdict };
        let item = verdict.is_of_the_item();
        let (block, grace_until) = (self.block, self.grace_until.filter(|_| !self.acknowledged));
        let slot = self.slot(position)?;
        slot.last_try = Some(sent_at);
        slot.tries += 1;
        slot.item_tries += u32::from(item);
        let since_first = slot.failing_for(now.wall);
        let tries = Tries { all: slot.tries, item: slot.item_tries, since_first };
        let in_grace = is_in_grace(grace_until, now.wall, tries);
        let number = slot.attempts();
        let circumstances = Circumstances { verdict, tries, status, in_grace, block, retry_after };
        let (wait, block) = match decide(circumstances, rules, random) {
            Decision::Retry(wait) => (wait, false),
            Decision::Block(wait) => (wait, true),
            Decision::Park { reason, counted } => {
                slot.state = SlotState::Parked(Box::new(Park {
                    id: letter,
                    position,
                    delivery,
                    reason,
                    counted,
                    status,
                    excerpt,
                    change: slot.change.clone(),
                }));
                self.widen_batches(1);
                self.advance_prefix();
                return Some(Failed { number, item, retry_in: None });
            }
        };
        slot.state = SlotState::Waiting {
            until: now.instant + wait,
            why: if item { Wait::Item } else { Wait::Endpoint },
        };
        if !item {
            self.begin_batches_anew();
        }
        if block {
            self.block(streak::reason(Block::Endpoint, None));
        }
        if self.head_waits_alone() {
            self.release();
        }
        Some(Failed { number, item, retry_in: Some(wait) })
    }

    /// The endpoint is well again: waits that were the endpoint's fault end now.
    pub fn on_endpoint_recovered(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if let SlotState::Waiting { until, why: Wait::Endpoint } = &mut slot.state {
                *until = now;
            }
        }
    }
}

/// Whether the watch is new. A clock that was set back since the registration does not make the grace
/// longer than it is for one change.
pub(super) fn is_in_grace(until: Option<Timestamp>, now: Timestamp, tries: Tries) -> bool {
    until.is_some_and(|until| now < until) && tries.since_first < REGISTRATION_GRACE
}
