//! What a lane does with an attempt that was not acknowledged: wait, give the change up, or block.

use std::time::Duration;

use tidings_entity::{id::DeadLetterId, kind::ParkReason};
use tokio::time::Instant;

use super::{Failed, Lane, Moment, before, slot::SlotState};
use crate::{
    deliverer::retry::{Circumstances, Decision, RetryRules, Tries, Verdict, decide},
    ports::{Park, Random},
    round::LetterState,
};

impl Lane {
    /// The attempt was answered for the app as a whole: the change is as if it was never sent.
    pub fn on_recalled(&mut self, position: u64) {
        let Some(slot) = self.slot(position) else { return };
        slot.state = match std::mem::replace(&mut slot.state, SlotState::New) {
            SlotState::Flying(parcel) => SlotState::Ready(parcel),
            other => other,
        };
    }

    /// The attempt failed. `answered_elsewhere`: when the endpoint last acknowledged something
    /// else; an endpoint failure of a change that was tried before that counts as its own.
    #[expect(clippy::too_many_arguments, reason = "all that a decision depends on, each by its name")]
    pub fn on_failed(
        &mut self,
        position: u64,
        verdict: Verdict,
        retry_after: Option<Duration>,
        answer: (Option<u16>, String),
        answered_elsewhere: Option<Instant>,
        now: Moment,
        rules: &RetryRules,
        random: &dyn Random,
        letter: DeadLetterId,
    ) -> Option<Failed> {
        let (acknowledged, blocked) = (self.acknowledged, self.blocked);
        let delivery = self.delivery_id(position)?;
        let slot = self.slot(position)?;
        let poisoned = verdict == Verdict::Endpoint
            && answered_elsewhere.zip(slot.previous_try).is_some_and(|(elsewhere, tried)| elsewhere > tried);
        let verdict = if poisoned { Verdict::Failing } else { verdict };
        let item = matches!(verdict, Verdict::Refused | Verdict::Failing);
        slot.tries += 1;
        slot.item_tries += u32::from(item);
        let first = *slot.first_failure.get_or_insert(now.wall);
        let tries = Tries { all: slot.tries, item: slot.item_tries, since_first: now.wall.since(first) };
        let decision =
            decide(Circumstances { verdict, tries, acknowledged, blocked, retry_after }, rules, random);
        let number = slot.tries;
        let (wait, block) = match decision {
            Decision::Retry(wait) => (wait, false),
            Decision::Block(wait) => (wait, true),
            Decision::Park(reason) => {
                let state = match reason {
                    ParkReason::Failing => LetterState::Unknown { before: slot.change.old },
                    _ => before(&slot.change),
                };
                slot.state = SlotState::Parked(Box::new(Park {
                    id: letter,
                    position,
                    delivery,
                    reason,
                    state,
                    status: answer.0,
                    excerpt: answer.1,
                    change: slot.change.clone(),
                }));
                self.advance_prefix();
                return Some(Failed { number, item, retry_in: None });
            }
        };
        let parcel = match std::mem::replace(&mut slot.state, SlotState::New) {
            SlotState::Flying(parcel) => Some(parcel),
            _ => None,
        };
        slot.state = SlotState::Waiting { parcel, until: now.instant + wait, endpoint: !item };
        if block {
            self.block("the endpoint has failed for the whole retry window".to_owned());
        }
        Some(Failed { number, item, retry_in: Some(wait) })
    }

    /// The endpoint is well again: waits that were the endpoint's fault end now.
    pub fn on_endpoint_recovered(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if let SlotState::Waiting { until, endpoint: true, .. } = &mut slot.state {
                *until = now;
            }
        }
    }
}
