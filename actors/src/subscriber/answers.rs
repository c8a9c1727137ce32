//! The consequences of an answer: the changes of the row, and the report to the breaker of the sink.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{
    Answered, Content, Mode, SubscriberMessage, SubscriberState,
    course::{self, Consequence, Standing},
    mails,
};
use crate::{
    circuit_breaker::{self, CircuitBreakerMessage},
    deliverer::describe,
    ports::{
        AttemptOutcome, RefusedRecipient, SentFrom, SinkKey, SubscriptionAttempt, SubscriptionEvent, sink_of,
    },
    supervision::tasks::in_time,
    time::Timestamp,
};

impl SubscriberState {
    pub(super) fn on_answered(&mut self, answered: Answered) {
        self.mode = Mode::Still;
        self.gate.leave(answered.pass);
        let Answered { pass, is_probe, content, message, at, outcome, refused, is_in_doubt } = answered;
        let Some(outcome) = outcome else {
            if is_probe && self.gate.is_of(pass) {
                self.tell_breaker(CircuitBreakerMessage::ProbeUnused);
            }
            self.is_stale = true;
            return;
        };
        let Some(work) = &self.work else { return };
        let row = &work.rows.subscription;
        let standing = Standing {
            tries: row.tries,
            refusals: self.refusals,
            skips: row.skips,
            threshold: self.context.policy.endpoint_breaker.threshold.max(1),
            is_last_chance: self.suspicion.is_last_chance(),
        };
        let consequence = course::consequence(&outcome, standing, &work.rules, self.context.random.as_ref());
        let consequence = mails::spaced(consequence, is_in_doubt, self.context.policy.mail_interval);
        let cap = work.rules.cap;
        let consequence = self.divided(consequence, content, &refused);
        let is_of_endpoint =
            course::is_endpoint_failure(&outcome) && !matches!(consequence, Consequence::Skip(_));
        if self.gate.is_of(pass) {
            self.report(&outcome, is_of_endpoint, cap);
        }
        let is_behind = matches!(content, Content::Entry { is_behind: true, .. });
        let next_in = match &consequence {
            Consequence::Retry(wait, _) if !is_behind => Some(*wait),
            _ => None,
        };
        let (entry, entry_at) = match content {
            Content::Entry { number, at, .. } => (number, at),
            Content::Gap(gap) => (gap.last, Timestamp(0)),
            Content::Mail { range, at, .. } => (range.last, at),
        };
        let attempt = Box::new(SubscriptionAttempt {
            message,
            entry,
            entry_at,
            number: 0,
            is_of_message: !is_of_endpoint && !outcome.is_success(),
            at,
            next_at: next_in.map(|wait| at.after(wait)),
            outcome,
        });
        self.count_callback(&consequence, is_behind);
        match consequence {
            Consequence::Sent | Consequence::Skip(_) | Consequence::Retry(..) if is_behind => {
                self.note_behind(attempt);
            }
            consequence => self.follow((content, refused, is_in_doubt), attempt, consequence),
        }
    }

    /// A mail of several entries whose content is refused for good is divided, also after a try in doubt: the
    /// mail server says now that it has no such mail. If it is wrong, some entries come twice, and none is
    /// lost. Where recipients are refused, a shorter mail would be refused as well.
    fn divided(
        &mut self,
        consequence: Consequence,
        content: Content,
        refused: &[RefusedRecipient],
    ) -> Consequence {
        let Content::Mail { range, entries, .. } = content else { return consequence };
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        let is_refused = matches!(consequence, Consequence::Skip(_));
        let consequence = self.halves.after(consequence, entries, refused.is_empty());
        if is_refused && matches!(consequence, Consequence::Retry(..)) {
            self.untaken.chosen(range);
        }
        consequence
    }

    /// An entry was tried ahead of its turn. The position stays.
    fn note_behind(&mut self, attempt: Box<SubscriptionAttempt>) {
        let entry = attempt.entry;
        info!(
            subscription.id = %self.id, entry.number = entry,
            "entry {entry} was tried ahead of its turn: {}", describe(&attempt.outcome)
        );
        self.suspicion.behind_answered(entry, &attempt.outcome);
        self.note(SubscriptionEvent::TriedBehind { attempt });
    }

    fn count_callback(&self, consequence: &Consequence, is_behind: bool) {
        if self.work.as_ref().is_some_and(|work| work.rows.subscription.callback.is_some()) {
            self.context.meter.called_back(match consequence {
                Consequence::Sent => "taken",
                // An entry that was tried ahead of its turn comes again.
                Consequence::Skip(_) if !is_behind => "refused",
                Consequence::Skip(_) | Consequence::Retry(..) => "not_taken",
                Consequence::Gone => "gone",
            });
        }
    }

    /// Applies the consequence of an answer.
    fn follow(
        &mut self,
        (content, refused, is_in_doubt): (Content, Vec<RefusedRecipient>, bool),
        attempt: Box<SubscriptionAttempt>,
        consequence: Consequence,
    ) {
        let (id, entry, said) = (self.id.clone(), attempt.entry, describe(&attempt.outcome));
        match consequence {
            Consequence::Sent => self.note(self.done(content, refused, attempt, None)),
            Consequence::Skip(reason) => {
                warn!(subscription.id = %id, entry.number = entry, "entry {entry} is passed over: {reason}");
                self.note(self.done(content, refused, attempt, Some(reason)));
            }
            Consequence::Retry(wait, blocked) => {
                warn!(
                    subscription.id = %id, entry.number = entry,
                    "entry {entry} was not sent to {id} ({said}), next in {wait:?}"
                );
                self.refusals += u32::from(attempt.is_of_message);
                let tries = self.work.as_ref().map_or(0, |work| work.rows.subscription.tries);
                if !matches!(content, Content::Mail { .. }) {
                    self.suspicion.head_failed(&attempt.outcome, tries.saturating_add(1));
                    self.let_restart(&attempt.outcome);
                }
                // Of a mail the status is a class only: the words of the mail server say more.
                let blocked = blocked.map(|reason| match content {
                    Content::Mail { .. } => attempt.outcome.excerpt.clone(),
                    _ => reason,
                });
                let thaws = match content {
                    Content::Mail { range, .. } => self.untaken.fails(range, is_in_doubt),
                    Content::Entry { .. } | Content::Gap(_) => false,
                };
                self.note(SubscriptionEvent::Failed { blocked, thaws, attempt });
                self.is_stale = true;
            }
            Consequence::Gone => {
                warn!(subscription.id = %id, "the endpoint of {id} answered 410: its sink is disabled");
                self.close(SubscriptionEvent::Failed { blocked: None, thaws: false, attempt });
            }
        }
    }

    /// The event to write for a message that was accepted or, for this reason, refused for good.
    fn done(
        &self,
        content: Content,
        refused: Vec<RefusedRecipient>,
        attempt: Box<SubscriptionAttempt>,
        reason: Option<String>,
    ) -> SubscriptionEvent {
        let (range, entries, gap) = match (content, reason) {
            (Content::Entry { number, .. }, None) => return SubscriptionEvent::Sent { number, attempt },
            (Content::Gap(gap), refused) => return SubscriptionEvent::GapTold { gap, refused, attempt },
            (Content::Entry { .. }, Some(reason)) => {
                return SubscriptionEvent::Skipped { number: attempt.entry, reason, attempt };
            }
            (Content::Mail { range, entries, gap, .. }, _) => (range, entries, gap),
        };
        let quiet_until = attempt.at.after(self.context.policy.mail_interval);
        let to = self.work.as_ref().map(|work| work.rows.subscription.sink.address.recipients());
        let is_left_out = |to: &&str| refused.iter().any(|refused| refused.to == **to);
        let taken_by = match attempt.outcome.is_success() {
            true => to.into_iter().flatten().filter(|to| !is_left_out(to)).map(str::to_owned).collect(),
            false => Vec::new(),
        };
        SubscriptionEvent::Mailed { range, entries, gap, refused, taken_by, quiet_until, attempt }
    }

    /// Reports the result of an attempt to the breaker of the sink.
    fn report(&mut self, outcome: &AttemptOutcome, is_of_endpoint: bool, cap: Duration) {
        let word = if is_of_endpoint {
            Err((describe(outcome), outcome.retry_after.map(|asked| asked.min(cap))))
        } else {
            Ok(())
        };
        circuit_breaker::report(&self.context, &self.breaker, word);
    }

    /// The sink is not served any more.
    fn close(&mut self, event: SubscriptionEvent) {
        let Some(work) = &self.work else { return };
        let since = work.rows.app.endpoint_since;
        let from = SentFrom { position: work.rows.subscription.position, since };
        let key = SinkKey { app: work.rows.app.id.clone(), sink: Some(sink_of(&self.id)) };
        let (id, store) = (self.id.clone(), Arc::clone(&work.store));
        (self.mode, self.is_stale) = (Mode::Writing, true);
        let write = async move {
            in_time(store.disable_gone(&key, since)).await?;
            in_time(store.note_subscription(&id, from, &event)).await
        };
        self.tasks.spawn(&self.mailbox, write, SubscriberMessage::Noted);
    }
}
