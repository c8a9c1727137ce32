//! What a lane does with an attempt that was not acknowledged: wait, give the change up, or block.

use tidings_entity::{
    id::DeadLetterId,
    kind::{ParkReason, RoundKind},
};
use tokio::time::Instant;

use super::{
    Failed, Failure, Lane, Moment,
    slot::{SlotState, Wait},
};
use crate::{
    deliverer::retry::{Circumstances, Decision, RetryRules, Tries, Verdict, decide},
    ports::{Park, Random},
    round::{Change, LetterState, Round},
};

impl Lane {
    /// The change was not sent, or its attempt was answered for the app as a whole: it is as if it
    /// was never launched.
    pub fn on_recalled(&mut self, position: u64) {
        // Behind a head that waits it would only hold bytes that others need.
        let keep = !self.head_waits_alone();
        let Some(slot) = self.slot(position) else { return };
        slot.state = match std::mem::replace(&mut slot.state, SlotState::New) {
            SlotState::Flying(parcel) if keep => SlotState::Ready(parcel),
            SlotState::Flying(_) | SlotState::Batched { .. } => SlotState::New,
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
        let (acknowledged, blocked, round) = (self.acknowledged, self.blocked, self.round.clone());
        let delivery = self.delivery_id(position)?;
        let slot = self.slot(position)?;
        let poisoned = verdict == Verdict::Endpoint
            && answered_elsewhere.zip(slot.last_try).is_some_and(|(elsewhere, tried)| elsewhere > tried);
        let verdict = if poisoned { Verdict::Failing } else { verdict };
        let item = matches!(verdict, Verdict::Refused | Verdict::Failing);
        slot.last_try = Some(sent_at);
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
                let state = given_up(&round, reason, &slot.change);
                slot.state = SlotState::Parked(Box::new(Park {
                    id: letter,
                    position,
                    delivery,
                    reason,
                    state,
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
            self.block("the endpoint has failed for the whole retry window".to_owned());
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

/// What the app has of a path whose change was given up for this reason. What failed it may have
/// done without saying so; what it had before a replay or a resync, it alone knows; and a refusal says
/// nothing of a change before, of which nobody knew whether it was done.
pub(super) fn given_up(round: &Round, reason: ParkReason, change: &Change) -> LetterState {
    let state = change.old.map_or(LetterState::Nothing, LetterState::Has);
    let letters = &round.spec.letters;
    let bound = letters.binary_search_by(|letter| letter.path.as_slice().cmp(&change.path));
    let was_doubtful = bound.is_ok_and(|at| matches!(letters[at].state, LetterState::Unknown { .. }));
    let is_doubtful = was_doubtful
        || matches!(round.spec.kind, RoundKind::Replay | RoundKind::Resync)
        || matches!(reason, ParkReason::Failing | ParkReason::Skipped);
    if is_doubtful { state.doubted() } else { state }
}
