//! One step after another: rows are read, a message is sent, what became of it is written.

use std::{sync::Arc, time::Duration};

use ractor::ActorRef;
use tokio::time::Instant;
use tracing::{Instrument, info_span, warn};

use super::{
    Answered, Content, IDLE_END, Mode, PIECE, SubscriberMessage, SubscriberState, Work,
    course::{self, Consequence, Next, Standing},
};
use crate::{
    circuit_breaker::{self, CircuitBreakerMessage},
    deliverer::{describe, gate::Gate, retry::RetryRules, take_turn_under},
    ports::{
        AttemptOutcome, Endpoint, Notice, SinkKey, SubscriptionAttempt, SubscriptionEvent,
        SubscriptionMessage, SubscriptionWork, sink_of,
    },
    tasks::in_time,
    time::Timestamp,
};

impl SubscriberState {
    /// Does what is to be done next, unless something is under way or is waited for.
    pub(super) fn drive(&mut self, myself: &ActorRef<SubscriberMessage>) {
        if self.mode != Mode::Still || self.is_draining {
            return;
        }
        // A word of the rows comes before every wait but that for the rows themselves.
        let is_waiting = self.wait_until.is_some_and(|until| until > Instant::now());
        if self.is_stale && !(is_waiting && self.work.is_none()) {
            return self.read();
        }
        let Some(work) = &self.work else { return };
        match course::next(&work.rows, self.context.now()) {
            Next::End => myself.stop(None),
            Next::Rest => self.rest(),
            Next::Pass(to) => self.note(SubscriptionEvent::Passed { to }),
            Next::TellGap(gap) => {
                let now = self.context.now();
                let message = SubscriptionMessage::of_gap(&work.rows.subscription, gap, now);
                self.send(Content::Gap(gap), message);
            }
            Next::Send(entry) => {
                let content = Content::Entry { number: entry.id.number, at: entry.at };
                let message = SubscriptionMessage::of_entry(&work.rows.subscription, *entry);
                self.send(content, message);
            }
        }
    }

    fn read(&mut self) {
        (self.mode, self.is_stale, self.idle_since) = (Mode::Reading, false, None);
        let (context, id) = (self.context.clone(), self.id.clone());
        let work = async move {
            let now = context.now();
            Ok(in_time(context.store.subscription_work(&id, now, PIECE)).await?.map(Box::new))
        };
        self.tasks.spawn(&self.post, work, SubscriberMessage::Read);
    }

    /// Works on what the rows say now.
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
            // A breaker outlives the actor and says where it stands; of another sink it says nothing.
            match is_first {
                true => self.tell_breaker(CircuitBreakerMessage::Subscribed),
                false => self.reset_breaker(),
            }
        }
        let crowd = context.crowds.of(&app.id, context.in_flight_of(app));
        let endpoint = Endpoint::of(app, context.policy.attempt_timeout, context.pace_of(app));
        let endpoint = endpoint.map(|endpoint| Arc::new(Endpoint { crowd: Some(crowd), ..endpoint }));
        let (row, now) = (&rows.subscription, context.now());
        self.wait_until = None;
        if let Some(next_at) = row.next_at.filter(|at| *at > now) {
            self.wait(next_at.since(now));
        }
        let is_same = self.work.as_ref().is_some_and(|old| old.rows.subscription.position == row.position);
        if !is_same || row.tries == 0 {
            self.refusals = 0;
        }
        let rules = RetryRules::of(&app.delivery, &context.policy);
        self.work = Some(Work { rows, endpoint, rules, hold: Arc::new(hold), store: context.store });
    }

    /// Nothing waits: the right to work on it is given back meanwhile.
    fn rest(&mut self) {
        self.work = None;
        self.idle_since = Some(Instant::now());
        self.post.send_after(IDLE_END, || SubscriberMessage::EndIfIdle);
    }

    fn send(&mut self, content: Content, message: SubscriptionMessage) {
        let now = Instant::now();
        let is_probe = self.gate.is_open();
        if is_probe {
            if !self.gate.take_probe() {
                return;
            }
        } else if self.wait_until.is_some_and(|until| until > now) || !self.gate.admits(now) {
            return;
        }
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
        let work = async move {
            let outcome = match take_turn_under(&hold, &endpoint, &context.outbound).await {
                Some(_place) => {
                    let notice = Notice::OfSubscription(Arc::new(message));
                    Some(context.transport.notify(&endpoint, &notice).instrument(span).await)
                }
                None => None,
            };
            Answered { pass, is_probe, content, message: id, at: context.now(), outcome }
        };
        self.tasks.spawn(&self.post, work, SubscriberMessage::Answered);
    }

    pub(super) fn on_answered(&mut self, answered: Answered) {
        self.mode = Mode::Still;
        self.gate.leave(answered.pass);
        let Answered { pass, is_probe, content, message, at, outcome } = answered;
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
        };
        let consequence = course::consequence(&outcome, standing, &work.rules, self.context.random.as_ref());
        let cap = work.rules.cap;
        if self.gate.is_of(pass) {
            self.report(&outcome, cap);
        }
        let next_in = match &consequence {
            Consequence::Retry(wait, _) => Some(*wait),
            _ => None,
        };
        let (entry, entry_at) = match content {
            Content::Entry { number, at } => (number, at),
            Content::Gap(gap) => (gap.last, Timestamp(0)),
        };
        let attempt = Box::new(SubscriptionAttempt {
            message,
            entry,
            entry_at,
            number: 0,
            is_of_message: !course::is_endpoint_failure(&outcome) && !outcome.is_success(),
            at,
            next_at: next_in.map(|wait| at.after(wait)),
            outcome,
        });
        self.follow(content, attempt, consequence);
    }

    /// Writes what follows from an answer.
    fn follow(&mut self, content: Content, attempt: Box<SubscriptionAttempt>, consequence: Consequence) {
        let (id, entry, said) = (self.id.clone(), attempt.entry, describe(&attempt.outcome));
        match consequence {
            Consequence::Sent => self.note(match content {
                Content::Entry { number, .. } => SubscriptionEvent::Sent { number, attempt },
                Content::Gap(gap) => SubscriptionEvent::GapTold { gap, attempt },
            }),
            Consequence::Skip(reason) => {
                warn!(subscription.id = %id, entry.number = entry, "entry {entry} is refused: {said}");
                self.note(SubscriptionEvent::Skipped { number: entry, reason, attempt });
            }
            Consequence::Retry(wait, blocked) => {
                warn!(
                    subscription.id = %id, entry.number = entry,
                    "entry {entry} was not sent to {id} ({said}), next in {wait:?}"
                );
                self.refusals += u32::from(attempt.is_of_message);
                self.note(SubscriptionEvent::Failed { blocked, attempt });
                self.is_stale = true;
            }
            Consequence::Gone => {
                warn!(subscription.id = %id, "the endpoint of {id} answered 410: its sink is disabled");
                self.close(SubscriptionEvent::Failed { blocked: None, attempt });
            }
        }
    }

    /// Tells the breaker of the sink how a try went.
    fn report(&mut self, outcome: &AttemptOutcome, cap: Duration) {
        let word = if course::is_endpoint_failure(outcome) {
            Err((describe(outcome), outcome.retry_after.map(|asked| asked.min(cap))))
        } else {
            Ok(())
        };
        circuit_breaker::report(&self.context, &self.breaker, word);
    }

    /// Writes what became of the next message.
    fn note(&mut self, event: SubscriptionEvent) {
        let Some(work) = &mut self.work else { return };
        let row = &mut work.rows.subscription;
        let (from, id, store) = (row.position, self.id.clone(), Arc::clone(&work.store));
        // The row as it is once this is written; where it is not, the row is read again.
        match &event {
            SubscriptionEvent::Passed { to } => row.position = *to,
            SubscriptionEvent::Sent { number, .. } => {
                (row.position, row.tries, row.skips, row.next_at) = (*number, 0, 0, None);
                self.refusals = 0;
            }
            _ => self.is_stale = true,
        }
        self.mode = Mode::Writing;
        let write = async move { in_time(store.note_subscription(&id, from, &event)).await };
        self.tasks.spawn(&self.post, write, SubscriberMessage::Noted);
    }

    /// The sink is not served any more.
    fn close(&mut self, event: SubscriptionEvent) {
        let Some(work) = &self.work else { return };
        let (from, since) = (work.rows.subscription.position, work.rows.app.endpoint_since);
        let key = SinkKey { app: work.rows.app.id.clone(), sink: Some(sink_of(&self.id)) };
        let (id, store) = (self.id.clone(), Arc::clone(&work.store));
        (self.mode, self.is_stale) = (Mode::Writing, true);
        let write = async move {
            in_time(store.disable_gone(&key, since)).await?;
            in_time(store.note_subscription(&id, from, &event)).await
        };
        self.tasks.spawn(&self.post, write, SubscriberMessage::Noted);
    }
}
