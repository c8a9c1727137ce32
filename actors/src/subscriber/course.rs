//! The next step of a subscription, and the meaning of an answer for it. Pure.
//!
//! A refusal is about one entry: the entry is passed over and recorded as skipped. A failure of the endpoint
//! keeps the entry: after some attempts the subscription is blocked and goes on probing. The same holds for a
//! receiver that does not know the caller or the address (401, 403, 404, 405), because a changed password or
//! a moved receiver looks like that, and for a receiver that refuses [`SKIPS_MAX`] entries in a row.
//! The module `poison` says when a failure is about one entry after all.

use std::time::Duration;

use tidings_entity::kind::{SinkKind, SubscriptionState};

use super::mails;
use crate::{
    deliverer::{
        describe,
        retry::{PROBE_WAIT_LAST, QUICK_TRIES, QUICK_WAIT, RetryRules, Verdict, verdict},
    },
    ports::{
        AttemptOutcome, Digest, Gap, LedgerEnds, LedgerEntry, MailRange, Random, SendFailure,
        SubscriptionWork,
    },
    time::Timestamp,
};

/// Entries in a row that a receiver may refuse. At the next one the subscription is blocked.
pub const SKIPS_MAX: u32 = 10;

/// The next step of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing is left to do until the subscription is changed.
    End,
    /// Nothing is left to do until an entry is written.
    Rest,
    /// Tell the sink that these entries are missing.
    TellGap(Gap),
    /// The sink is sent this entry.
    Send(Box<LedgerEntry>),
    /// The sink is sent this entry ahead of its turn, because it fails on the message before.
    TryBehind(Box<LedgerEntry>),
    /// The subscription gets none of the entries up to this number.
    Pass(i64),
    /// All entries that were read are done, and the ledger has more: read again.
    Read,
    /// The next mail reports these entries; the range is written before the mail is sent.
    Freeze(MailRange),
    /// Send the mail that reports these entries.
    Mail(Box<Digest>),
    /// Entries wait, but the last mail was sent too recently.
    Quiet,
}

impl Next {
    /// Whether there is something to send.
    #[must_use]
    pub fn is_to_send(&self) -> bool {
        use Next::{Freeze, Mail, Send, TellGap, TryBehind};
        matches!(self, Send(_) | TryBehind(_) | TellGap(_) | Freeze(_) | Mail(_))
    }
}

/// Decides the next step of a subscription.
#[must_use]
pub fn next(work: &SubscriptionWork, now: Timestamp) -> Next {
    let SubscriptionWork { subscription, app, ends, entries, to } = work;
    let is_served =
        matches!(subscription.state_at(now), SubscriptionState::Active | SubscriptionState::Blocked);
    if !is_served || app.disabled.is_some() {
        return Next::End;
    }
    if subscription.sink.address.kind() == SinkKind::Mail {
        return mails::next(work, now);
    }
    let position = subscription.position;
    match (ends, entries.iter().find(|entry| entry.id.number > position)) {
        (None, _) => Next::Rest,
        (Some(ends), _) if position < ends.first - 1 => {
            Next::TellGap(Gap { first: position + 1, last: ends.first - 1 })
        }
        (_, Some(entry)) => Next::Send(Box::new(entry.clone())),
        (_, None) if position < *to => Next::Pass(*to),
        (Some(ends), None) => after_all(*to, ends),
    }
}

/// The step when no entry up to `to` is left to send.
pub(super) fn after_all(to: i64, ends: &LedgerEnds) -> Next {
    if to < ends.last { Next::Read } else { Next::Rest }
}

/// The facts about the message that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Earlier failed attempts of the message.
    pub tries: u32,
    /// The number of failed attempts that were answers about the message, as far as this process saw them.
    pub refusals: u32,
    /// Entries that were skipped in a row before it.
    pub skips: u32,
    /// The number of failed attempts at which the subscription is blocked.
    pub threshold: u32,
    /// Whether the sink took an entry behind the message, and failed on the message at all attempts since but
    /// this one.
    pub is_last_chance: bool,
}

/// The consequence of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The message is settled.
    Sent,
    /// The entry is passed over, for this reason.
    Skip(String),
    /// The message is tried again after this wait; the text is the reason if the subscription is blocked
    /// meanwhile.
    Retry(Duration, Option<String>),
    /// The sink wants nothing any more.
    Gone,
}

/// Decides the consequence of an answer.
#[must_use]
pub fn consequence(
    outcome: &AttemptOutcome,
    standing: Standing,
    rules: &RetryRules,
    random: &dyn Random,
) -> Consequence {
    if standing.is_last_chance && may_be_of_message(outcome) {
        return Consequence::Skip(format!("{}, while a later entry was accepted", describe(outcome)));
    }
    let tries = standing.tries.saturating_add(1);
    let asked = outcome.retry_after;
    let quick = || {
        let wait = QUICK_WAIT.max(asked.unwrap_or_default().min(rules.cap));
        (standing.refusals + 1 < QUICK_TRIES).then_some(Consequence::Retry(wait, None))
    };
    let probe = |why: &str| {
        let wait = rules.wait_within(Duration::ZERO..=PROBE_WAIT_LAST, tries, asked, random);
        Consequence::Retry(wait, Some(format!("{}{why}", describe(outcome))))
    };
    let refused = || match standing.skips < SKIPS_MAX {
        true => Consequence::Skip(describe(outcome)),
        false => probe(&format!(", after {SKIPS_MAX} entries in a row that were refused")),
    };
    match verdict(outcome.result) {
        Verdict::Acknowledged => Consequence::Sent,
        Verdict::Gone => Consequence::Gone,
        Verdict::Refused => refused(),
        Verdict::Contested => quick().unwrap_or_else(refused),
        Verdict::Doubtful => quick().unwrap_or_else(|| probe("")),
        Verdict::Endpoint | Verdict::Failing if tries >= standing.threshold => probe(""),
        Verdict::Endpoint | Verdict::Failing => Consequence::Retry(rules.wait(tries, asked, random), None),
    }
}

/// Whether an answer says that the endpoint as a whole is not well.
#[must_use]
pub fn is_endpoint_failure(outcome: &AttemptOutcome) -> bool {
    matches!(verdict(outcome.result), Verdict::Endpoint | Verdict::Failing)
}

/// Whether a failure may be about the message alone: the receiver got the message and answered with a
/// failure, or not at all, and did not ask to wait. 408, 425 and 429 are about the moment, 410 is about the
/// sink.
#[must_use]
pub fn may_be_of_message(outcome: &AttemptOutcome) -> bool {
    let is_failure = matches!(outcome.result, Ok(400..=599) | Err(SendFailure::Timeout | SendFailure::Cut));
    let is_of_moment = matches!(outcome.result, Ok(408 | 410 | 425 | 429)) || outcome.retry_after.is_some();
    is_failure && !is_of_moment
}

#[cfg(test)]
pub(super) mod tests;
