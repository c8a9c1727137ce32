//! What a subscription does next, and what an answer means for it. Pure.
//!
//! A refusal is the receiver's word about one entry: the entry is passed over, and written down as skipped. A
//! failure of the endpoint keeps the entry: the subscription is blocked after some tries and goes on probing.
//! So does a receiver that does not know the caller or the address (401, 403, 404, 405), because that is how
//! a changed password or a moved receiver looks, and one that refuses [`SKIPS_MAX`] entries in a row.

use std::time::Duration;

use tidings_entity::kind::SubscriptionState;

use crate::{
    deliverer::{
        describe,
        retry::{PROBE_WAIT_LAST, QUICK_TRIES, QUICK_WAIT, RetryRules, Verdict, verdict},
    },
    ports::{AttemptOutcome, Gap, LedgerEntry, Random, SubscriptionWork},
    time::Timestamp,
};

/// Entries in a row that a receiver may refuse. At the next one the subscription is blocked.
pub const SKIPS_MAX: u32 = 10;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing, until somebody changes the subscription.
    End,
    /// Nothing, until an entry is written.
    Rest,
    /// The sink is told that these entries are gone.
    TellGap(Gap),
    /// The sink is sent this entry.
    Send(Box<LedgerEntry>),
    /// There is nothing for it up to this number.
    Pass(i64),
}

/// What a subscription does next.
#[must_use]
pub fn next(work: &SubscriptionWork, now: Timestamp) -> Next {
    let SubscriptionWork { subscription, app, ends, entries, to } = work;
    let is_served =
        matches!(subscription.state_at(now), SubscriptionState::Active | SubscriptionState::Blocked);
    if !is_served || app.disabled.is_some() {
        return Next::End;
    }
    let position = subscription.position;
    match (ends, entries.iter().find(|entry| entry.id.number > position)) {
        (None, _) => Next::Rest,
        (Some(ends), _) if position < ends.first - 1 => {
            Next::TellGap(Gap { first: position + 1, last: ends.first - 1 })
        }
        (_, Some(entry)) => Next::Send(Box::new(entry.clone())),
        (_, None) if position < *to => Next::Pass(*to),
        (_, None) => Next::Rest,
    }
}

/// What is known of the message that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Failed tries of it before this one.
    pub tries: u32,
    /// Those of them that were answers to the message, as far as this process saw them.
    pub refusals: u32,
    /// Entries that were skipped in a row before it.
    pub skips: u32,
    /// From so many failed tries on the subscription is blocked.
    pub threshold: u32,
}

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The message is done with.
    Sent,
    /// The entry is passed over, for this reason.
    Skip(String),
    /// It is tried again after this wait; blocked meanwhile, for this reason.
    Retry(Duration, Option<String>),
    /// The sink wants nothing any more.
    Gone,
}

/// Decides what follows from an answer.
#[must_use]
pub fn consequence(
    outcome: &AttemptOutcome,
    standing: Standing,
    rules: &RetryRules,
    random: &dyn Random,
) -> Consequence {
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

#[cfg(test)]
mod tests;
