//! The steps of a subscription, one after another: rows are read, a message is sent, its outcome is written.
//! `answers` decides the effect of an answer on the row.

use std::{pin::pin, sync::Arc, time::Duration};

use ractor::ActorRef;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, info_span};

use super::{
    Answered, Content, IDLE_END, Mode, PIECE, SubscriberMessage, SubscriberState, Work,
    course::{self, Next},
    mails::RECIPIENT_TRIES,
    poison::Suspicion,
};
use crate::{
    circuit_breaker::CircuitBreakerMessage,
    deliverer::{gate::Gate, retry::RetryRules, take_turn_under},
    ports::{
        AttemptOutcome, Digest, Endpoint, Gap, LedgerEntry, Notice, SendFailure, SentFrom, SubscriptionEvent,
        SubscriptionMessage, SubscriptionWork,
    },
    supervision::tasks::in_time,
    time::Timestamp,
};

/// A message without an answer within this time gives its place among the attempts of the app to another
/// subscription. An app has at most a hundred subscriptions, each with one message in flight. Behind a
/// message on which the receiver was silent, the attempt ends then, or after half of its own time: otherwise
/// many outages would end during this attempt, and the receiver would get the entry behind before the head.
const QUICK: Duration = Duration::from_secs(5);

impl SubscriberState {
    /// Does the next step, unless a task runs or the actor waits.
    pub(super) fn drive(&mut self, myself: &ActorRef<SubscriberMessage>) {
        if self.mode != Mode::Still || self.is_draining {
            return;
        }
        // Changed rows are read even during a wait, unless the wait is the one before reading rows again.
        let is_waiting = self.wait_until.is_some_and(|until| until > Instant::now());
        if self.is_stale && !(is_waiting && self.work.is_none()) {
            return self.read();
        }
        let Some(work) = &self.work else { return };
        let next = course::next(&work.rows, self.context.now());
        match self.suspicion.instead(next, &work.rows.entries) {
            Next::End => myself.stop(None),
            Next::Read => self.read(),
            // Entries were written while a message was on its way.
            Next::Rest if self.is_behind => self.read(),
            Next::Rest => self.rest(),
            Next::Pass(to) => self.note(SubscriptionEvent::Passed { to }),
            Next::TellGap(gap) => self.tell_gap(gap),
            Next::Send(entry) => self.send_entry(*entry, false),
            Next::TryBehind(entry) => self.send_entry(*entry, true),
            Next::Freeze(range) if self.may_begin() => {
                let range = self.halves.of(range, &work.rows);
                self.note(SubscriptionEvent::Frozen { range });
            }
            // Entries were written while rows were read: the later mail reports them as well.
            Next::Freeze(_) if self.is_behind => self.read(),
            Next::Freeze(_) => {}
            // The mail server may have this mail, so the probe of the breaker waits as well.
            Next::Mail(digest) if is_waiting && !self.untaken.is(digest.range) => {}
            Next::Mail(digest) => self.send_mail(*digest),
            // The subscription keeper starts the actor again when the next mail may be sent.
            Next::Quiet => myself.stop(None),
        }
    }

    fn read(&mut self) {
        (self.mode, self.is_stale, self.is_behind, self.idle_since) = (Mode::Reading, false, false, None);
        let (context, id) = (self.context.clone(), self.id.clone());
        let work = async move {
            let now = context.now();
            Ok(in_time(context.store.subscription_work(&id, now, PIECE)).await?.map(Box::new))
        };
        self.tasks.spawn(&self.mailbox, work, SubscriberMessage::Read);
    }

    /// Applies rows that were just read.
    pub(super) fn take(&mut self, myself: &ActorRef<SubscriberMessage>, rows: Box<SubscriptionWork>) {
        let app = &rows.app;
        let Some((context, hold)) = self.context.of_app(&app.id) else {
            // Another replica works on it.
            return myself.stop(None);
        };
        let since = app.endpoint_since;
        if since != self.gate.since() {
            let is_first = self.gate.since() == Timestamp(0);
            self.gate = Gate::new(since, 1);
            self.suspicion = Suspicion::default();
            // The breaker may have been running before this actor: ask for its state. For another sink its
            // state does not count.
            match is_first {
                true => self.tell_breaker(CircuitBreakerMessage::Subscribed),
                false => self.reset_breaker(),
            }
        }
        let in_flight = context.in_flight.of_subscriptions(&app.id, context.in_flight_of(app));
        let endpoint = Endpoint::of(app, context.policy.attempt_timeout, context.pace_of(app));
        let endpoint = endpoint.map(|endpoint| Arc::new(Endpoint { in_flight: Some(in_flight), ..endpoint }));
        let (row, now) = (&rows.subscription, context.now());
        self.wait_until = None;
        if let Some(next_at) = row.next_at.filter(|at| *at > now) {
            self.wait(next_at.since(now));
        }
        let is_same = self.work.as_ref().is_some_and(|old| old.rows.subscription.position == row.position);
        if !is_same || row.tries == 0 {
            self.refusals = 0;
        }
        self.suspicion.read_at(row.position);
        let rules = RetryRules::of(&app.delivery, &context.policy);
        self.work = Some(Work { rows, endpoint, rules, hold: Arc::new(hold), store: context.store });
    }

    /// Gives back the right to work on the subscription, because no message waits.
    fn rest(&mut self) {
        self.work = None;
        self.idle_since = Some(Instant::now());
        self.mailbox.send_after(IDLE_END, || SubscriberMessage::EndIfIdle);
    }

    /// Sends an entry: the one at the head, or one behind it ahead of its turn.
    fn send_entry(&mut self, entry: LedgerEntry, is_behind: bool) {
        let Some(work) = &self.work else { return };
        let content = Content::Entry { number: entry.id.number, at: entry.at, is_behind };
        let message = SubscriptionMessage::of_entry(&work.rows.subscription, entry);
        self.send(content, message);
    }

    fn tell_gap(&mut self, gap: Gap) {
        let now = self.context.now();
        let Some(SubscriptionWork { subscription, ends: Some(ends), .. }) =
            self.work.as_ref().map(|work| &*work.rows)
        else {
            return;
        };
        let message = SubscriptionMessage::of_gap(subscription, &ends.name, gap, now);
        self.send(Content::Gap(gap), message);
    }

    fn send_mail(&mut self, digest: Digest) {
        let now = self.context.now();
        let Some(SubscriptionWork { subscription, ends: Some(ends), .. }) =
            self.work.as_ref().map(|work| &*work.rows)
        else {
            return;
        };
        let (range, gap, entries) = (digest.range, digest.gap, digest.entries.len() as u64);
        let at = digest.entries.last().map_or(Timestamp(0), |entry| entry.at);
        let message = SubscriptionMessage::of_digest(subscription, &ends.name, digest, now);
        self.send(Content::Mail { range, entries, gap, at }, message);
    }

    /// Whether a message may go now.
    fn may_begin(&self) -> bool {
        let now = Instant::now();
        if self.suspicion.is_under_way() {
            return self.restart_until.is_none_or(|until| until <= now);
        }
        match self.gate.is_open() {
            true => self.gate.permits_probe(),
            false => self.wait_until.is_none_or(|until| until <= now) && self.gate.admits(now),
        }
    }

    fn send(&mut self, content: Content, message: SubscriptionMessage) {
        if !self.may_begin() {
            return;
        }
        let is_probe = self.gate.take_probe();
        let Some(work) = &self.work else { return };
        let Some(endpoint) = work.endpoint.clone() else { return };
        let (hold, context) = (Arc::clone(&work.hold), self.context.clone());
        let pass = self.gate.enter();
        self.mode = Mode::Sending;
        let span = info_span!(
            "delivery.notice",
            app.id = %message.app,
            subscription.id = %self.id,
            delivery.id = %message.id
        );
        let id = message.id.as_str().to_owned();
        let is_last = work.rows.subscription.tries + 1 >= RECIPIENT_TRIES;
        let is_hurried =
            matches!(content, Content::Entry { is_behind: true, .. }) && self.suspicion.is_silent();
        let work = async move {
            let (mut refused, mut is_in_doubt) = (Vec::new(), false);
            let outcome = match take_turn_under(&hold, &endpoint, &context.outbound).await {
                Some(place) if matches!(content, Content::Mail { .. }) => {
                    // Mails have turns of their own: a slow mail server occupies no place of a delivery.
                    drop(place);
                    let mail = context.transport.mail(&endpoint, &message, is_last, &hold);
                    mail.instrument(span).await.map(|sent| {
                        (refused, is_in_doubt) = (sent.refused, sent.is_in_doubt);
                        sent.attempt
                    })
                }
                Some(mut place) => {
                    let notice = Notice::OfSubscription(Arc::new(message));
                    let mut sent = pin!(context.transport.notify(&endpoint, &notice).instrument(span));
                    let quick = if is_hurried { QUICK.min(endpoint.timeout / 2) } else { QUICK };
                    Some(match timeout(quick, &mut sent).await {
                        Ok(outcome) => outcome,
                        Err(_) if is_hurried => silence(quick),
                        Err(_) => {
                            place.leave_app();
                            sent.await
                        }
                    })
                }
                None => None,
            };
            let at = context.now();
            Answered { pass, is_probe, content, message: id, at, outcome, refused, is_in_doubt }
        };
        self.tasks.spawn(&self.mailbox, work, SubscriberMessage::Answered);
    }

    /// Writes the outcome of the next message.
    pub(super) fn note(&mut self, event: SubscriptionEvent) {
        let Some(work) = &mut self.work else { return };
        let row = &mut work.rows.subscription;
        let from = SentFrom { position: row.position, since: work.rows.app.endpoint_since };
        let (id, store) = (self.id.clone(), Arc::clone(&work.store));
        // The row after this write; if the write fails, the row is read again.
        match &event {
            SubscriptionEvent::Passed { to } => {
                (row.position, row.mail) = (*to, None);
                self.suspicion.moved_to(*to);
            }
            SubscriptionEvent::Frozen { range } => {
                row.mail = Some(*range);
                self.untaken.chosen(*range);
            }
            SubscriptionEvent::Sent { number, .. } => {
                (row.position, row.tries, row.skips, row.next_at) = (*number, 0, 0, None);
                self.refusals = 0;
                self.suspicion.moved_to(*number);
            }
            SubscriptionEvent::Skipped { number: to, .. }
            | SubscriptionEvent::GapTold { gap: Gap { last: to, .. }, .. } => {
                self.is_stale = true;
                self.suspicion.moved_to(*to);
            }
            SubscriptionEvent::Mailed { .. } => (self.refusals, self.is_stale) = (0, true),
            _ => self.is_stale = true,
        }
        self.mode = Mode::Writing;
        let write = async move { in_time(store.note_subscription(&id, from, &event)).await };
        self.tasks.spawn(&self.mailbox, write, SubscriberMessage::Noted);
    }
}

/// The outcome of an attempt that was ended early.
fn silence(took: Duration) -> AttemptOutcome {
    let excerpt = format!("no answer within {} s", took.as_secs_f32());
    AttemptOutcome { result: Err(SendFailure::Timeout), retry_after: None, excerpt, took, answer: None }
}
