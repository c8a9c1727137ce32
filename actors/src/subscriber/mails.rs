//! The next step of a subscription that sends mails. Pure.
//!
//! The first entry is mailed at once. Later entries wait until [`Subscription::quiet_until`] and then go in
//! one mail. The range of a mail's entries is written to the row before the mail is sent ([`Next::Freeze`]),
//! so a mail that is sent again after a crash or a doubtful answer is the same mail, with the same id. After
//! a doubtful answer it waits as long as another mail would ([`spaced`]). A mail of several entries that the
//! mail server refuses for good is divided ([`Halves`]), so that one entry costs no other.
//!
//! [`Subscription::quiet_until`]: crate::ports::Subscription::quiet_until

use std::time::Duration;

use super::course::{Consequence, Next, after_all};
use crate::{
    deliverer::retry::QUICK_WAIT,
    ports::{Digest, Gap, LedgerEntry, MAIL_ENTRIES_MAX, MailRange, SubscriptionWork},
    time::Timestamp,
};

/// From this attempt on, a recipient that the mail server does not accept now is left out.
pub const RECIPIENT_TRIES: u32 = 5;

/// Decides the next step of a subscription that is served.
#[must_use]
pub fn next(work: &SubscriptionWork, now: Timestamp) -> Next {
    let SubscriptionWork { subscription, ends, entries, to, .. } = work;
    let position = subscription.position;
    let Some(ends) = ends else { return Next::Rest };
    let gap = (position < ends.first - 1).then(|| Gap { first: position + 1, last: ends.first - 1 });
    let waiting = entries.iter().filter(|entry| entry.id.number > position);
    if let Some(range) = subscription.mail.filter(|range| range.last > position) {
        let told: Vec<LedgerEntry> =
            waiting.filter(|entry| entry.id.number <= range.last).take(most()).cloned().collect();
        let gap = gap.map(|gap| Gap { last: gap.last.min(range.last), ..gap });
        if told.is_empty() && gap.is_none() {
            // The filter may have changed since, and match none of these entries any more.
            return Next::Pass(range.last);
        }
        let is_full = told.len() == most();
        return Next::Mail(Box::new(Digest { range, entries: told, gap, is_full }));
    }
    let (first, last) = ends_of(waiting.take(most()), gap);
    match first.zip(last) {
        None if position < *to => Next::Pass(*to),
        None => after_all(*to, ends),
        Some(_) if subscription.quiet_until.is_some_and(|until| until > now) => Next::Quiet,
        Some((first, last)) => Next::Freeze(MailRange { first, last }),
    }
}

/// A mail that the mail server may have counts as sent: the same mail goes no earlier than another one would.
#[must_use]
pub fn spaced(consequence: Consequence, is_in_doubt: bool, interval: Duration) -> Consequence {
    match consequence {
        Consequence::Retry(wait, blocked) if is_in_doubt => Consequence::Retry(wait.max(interval), blocked),
        other => other,
    }
}

/// The range of the mail that was chosen last, if the mail server surely does not have that mail. A process
/// that starts with a chosen range cannot know.
#[derive(Debug, Default)]
pub struct Untaken(Option<MailRange>);

impl Untaken {
    /// The entries of a mail were chosen, and the mail was not sent yet.
    pub fn chosen(&mut self, range: MailRange) {
        self.0 = Some(range);
    }

    /// Whether the mail server surely does not have the mail of this range.
    #[must_use]
    pub fn is(&self, range: MailRange) -> bool {
        self.0 == Some(range)
    }

    /// The mail failed. Returns whether the entries of the next mail may be chosen again: the mail server may
    /// have a mail whose answer got lost, and that it cannot take a mail now says nothing of that.
    pub fn fails(&mut self, range: MailRange, is_in_doubt: bool) -> bool {
        self.0 = self.0.filter(|untaken| *untaken == range && !is_in_doubt);
        self.0.is_some()
    }
}

/// The most entries of the next mail, if the mail server refused the content of the mail before. The database
/// knows nothing of this: after a crash the first mail has all entries again.
#[derive(Debug, Default)]
pub struct Halves(Option<usize>);

impl Halves {
    /// The consequence of an answer to a mail of so many entries. `is_of_content`: no recipient was refused.
    /// After a mail whose content is refused, the next one has the first half of the entries, until one entry
    /// is refused alone.
    pub fn after(&mut self, consequence: Consequence, entries: usize, is_of_content: bool) -> Consequence {
        match consequence {
            Consequence::Skip(_) if is_of_content && entries > 1 => {
                self.0 = Some(entries / 2);
                Consequence::Retry(QUICK_WAIT, None)
            }
            Consequence::Sent | Consequence::Skip(_) => {
                self.0 = None;
                consequence
            }
            Consequence::Retry(..) | Consequence::Gone => consequence,
        }
    }

    /// The range of the next mail: this one, or its beginning.
    #[must_use]
    pub fn of(&self, range: MailRange, work: &SubscriptionWork) -> MailRange {
        let waiting = work.entries.iter().map(|entry| entry.id.number);
        let mut waiting = waiting.filter(|number| *number > work.subscription.position);
        let last = self.0.and_then(|most| waiting.nth(most.saturating_sub(1)));
        MailRange { last: last.map_or(range.last, |last| last.min(range.last)), ..range }
    }
}

fn ends_of<'e>(
    entries: impl Iterator<Item = &'e LedgerEntry>,
    gap: Option<Gap>,
) -> (Option<i64>, Option<i64>) {
    let gone = gap.into_iter().flat_map(|gap| [gap.first, gap.last]);
    gone.chain(entries.map(|entry| entry.id.number))
        .fold((None, None), |(first, _), number| (first.or(Some(number)), Some(number)))
}

fn most() -> usize {
    usize::try_from(MAIL_ENTRIES_MAX).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
