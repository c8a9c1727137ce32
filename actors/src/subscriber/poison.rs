//! The rule for a message that the receiver fails on for ever, although it takes others. Pure.
//!
//! The message at the head is suspect after [`FAILING_TRIES`] failed tries, of which the last [`QUICK_TRIES`]
//! may be about the message alone: an answer, none in time, or a connection that broke. From then on each
//! failed try of the head goes on at once with one of the [`BEHIND_MAX`] entries behind the head. If the
//! receiver takes that entry, the receiver is well, and the head is tried [`HEADS_AGAIN`] times at once. Only
//! if each of these tries fails in such a way again is the head skipped. In every other case the head waits
//! for its next try.
//!
//! So an endpoint that is down loses nothing: it does not take the entry behind, or it takes the head
//! afterwards. A probe begins with the head, so an endpoint that is well again gets the entries in their
//! order, unless it recovers in the moment between the head and the entry behind, or after it broke the
//! connection at the head and then took none. Of up to [`HEADS_AGAIN`] processes that answer in turn, one
//! that is well gets the head.
//!
//! An entry may bring the receiver down for longer than a probe waits. If the receiver broke the connection
//! at the head, and then takes no connection, the next probe begins with an entry behind the head. If the
//! receiver takes that entry, the tries of the head go on where they ended; each of them is counted only
//! directly after an entry was taken, or after another counted one. If the receiver does not take that entry,
//! the probe after it begins with the head again.
//!
//! The database knows nothing of these findings. A crash costs some more tries of the head, and an entry that
//! was taken ahead of its turn comes again.
//!
//! Mails do not follow this rule. A mail server says "never" (5xx) and "not now" (4xx) by different answers,
//! and a mail ahead of its turn would be one mail too many.

use std::collections::BTreeSet;

use super::course::{Next, may_be_of_message};
use crate::{
    deliverer::retry::{FAILING_TRIES, QUICK_TRIES},
    ports::{AttemptOutcome, LedgerEntry, SendFailure},
};

/// Entries behind a suspect that are tried in turn: so many entries in a row may be poisoned.
pub const BEHIND_MAX: usize = 10;
/// Tries of the head, one after another, that must fail after the receiver took an entry behind the head.
pub const HEADS_AGAIN: u32 = 3;

/// The requests that follow a failed try of a suspect at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// None: the head is tried when its next try is due.
    #[default]
    Wait,
    /// An entry behind the head.
    Behind,
    /// The head once more, because the receiver took the entry behind. So many of these tries failed.
    HeadAgain { failed: u32 },
}

/// The findings about the message at the head of a subscription, as far as this process made them.
#[derive(Debug, Default)]
pub struct Suspicion {
    /// The position whose next message the findings are about.
    position: i64,
    /// The number of the entry at the head; of a gap that of its last entry.
    head: i64,
    /// Failed tries in a row that may be about the message.
    failures: u32,
    /// Whether the last try of the head got no answer in time.
    is_silent: bool,
    /// Whether the last try of the head ended with a broken connection.
    is_cut: bool,
    step: Step,
    /// Whether the next probe begins with an entry behind the head.
    begins_behind: bool,
    /// The failed tries of the head that count if the receiver takes the next entry behind the head.
    counted: u32,
    /// The entry behind the head that was tried last.
    tried: i64,
    /// Entries behind the head that the receiver took.
    taken: BTreeSet<i64>,
}

impl Suspicion {
    /// The rows were read with this position. If the position was moved by a person, or by another process,
    /// nothing is known of the next message.
    pub fn read_at(&mut self, position: i64) {
        if self.position != position {
            *self = Self { position, ..Self::default() };
        }
    }

    /// The subscription is done with the entries up to this number.
    pub fn moved_to(&mut self, position: i64) {
        let taken = self.taken.split_off(&position.saturating_add(1));
        *self = Self { position, taken, ..Self::default() };
    }

    /// The head was tried for the `tries`-th time, and is tried again.
    pub fn head_failed(&mut self, outcome: &AttemptOutcome, tries: u32) {
        let is_of_message = may_be_of_message(outcome);
        self.failures = if is_of_message { self.failures.saturating_add(1) } else { 0 };
        self.is_silent = outcome.result == Err(SendFailure::Timeout);
        // The try of the head before this one may have brought the receiver down.
        let is_down = self.is_cut && outcome.result == Err(SendFailure::Connection);
        self.is_cut = outcome.result == Err(SendFailure::Cut);
        (self.counted, self.begins_behind) = match self.step {
            Step::HeadAgain { failed } if failed > 0 && is_down => (failed, true),
            _ => (0, false),
        };
        self.step = match self.step {
            Step::HeadAgain { failed } if is_of_message => Step::HeadAgain { failed: failed + 1 },
            _ if tries >= FAILING_TRIES && self.failures >= QUICK_TRIES => Step::Behind,
            _ => Step::Wait,
        };
    }

    /// An entry behind the head was answered.
    pub fn behind_answered(&mut self, number: i64, outcome: &AttemptOutcome) {
        let is_down = self.is_cut && outcome.result == Err(SendFailure::Connection);
        // Only once after each try of the head.
        self.begins_behind = self.step == Step::Behind && is_down;
        self.tried = number;
        let failed = std::mem::take(&mut self.counted);
        self.step = Step::Wait;
        if outcome.is_success() {
            self.step = Step::HeadAgain { failed };
            self.taken.insert(number);
        }
    }

    /// Time passed since the last answer, so the next request is no part of that try any more.
    pub fn interrupted(&mut self) {
        self.step = Step::Wait;
    }

    /// Whether the next request belongs to the try before it, so it waits for no moment and no permit.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.step != Step::Wait
    }

    /// Whether the head is skipped if its next try fails as well: the receiver took an entry behind the head,
    /// and failed on the head at all tries since.
    #[must_use]
    pub fn is_last_chance(&self) -> bool {
        matches!(self.step, Step::HeadAgain { failed } if failed + 1 >= HEADS_AGAIN)
    }

    /// Whether the receiver was silent on the head.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// The step to do in place of the one that follows from the rows, whose entries these are.
    #[must_use]
    pub fn instead(&mut self, next: Next, entries: &[LedgerEntry]) -> Next {
        let head = match &next {
            // The receiver took this entry ahead of its turn.
            Next::Send(entry) if self.taken.contains(&entry.id.number) => return Next::Pass(entry.id.number),
            Next::Send(entry) => entry.id.number,
            Next::TellGap(gap) => gap.last,
            _ => {
                self.step = Step::Wait;
                return next;
            }
        };
        if self.head != head {
            (self.head, self.failures, self.step, self.tried) = (head, 0, Step::Wait, 0);
            (self.is_cut, self.begins_behind, self.counted) = (false, false, 0);
        }
        let is_behind = self.step == Step::Behind || (self.step == Step::Wait && self.begins_behind);
        if !is_behind {
            return next;
        }
        match self.behind(head, entries) {
            Some(entry) => Next::TryBehind(Box::new(entry.clone())),
            None => {
                (self.step, self.begins_behind, self.counted) = (Step::Wait, false, 0);
                next
            }
        }
    }

    /// The entry behind the head that comes after the one that was tried last.
    fn behind<'e>(&self, head: i64, entries: &'e [LedgerEntry]) -> Option<&'e LedgerEntry> {
        let numbered = entries.iter().map(|entry| (entry.id.number, entry));
        let left = numbered.filter(|(number, _)| *number > head && !self.taken.contains(number));
        let in_turn = left.take(BEHIND_MAX).min_by_key(|(number, _)| (*number <= self.tried, *number));
        in_turn.map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests;
