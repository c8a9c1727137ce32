//! What genuine hooks change about looking at a repository, pure: it is polled soon, and otherwise
//! more rarely. They are never believed: a hook that is lost, late, repeated or forged by somebody
//! who knows the secret costs latency or one poll each [`GAP`], and nothing else.
//!
//! Hooks can be relied on from one of them until [`TRUSTED_FOR`] has passed without another, or a
//! poll has found a change that no hook told of: then hooks get lost, and the repository is polled as
//! if it had none until the next one comes. A hook of a clock that was set back since says nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::DEBOUNCE;
use crate::time::Timestamp;

/// Hooks lead to polls at least this far apart, however many come; short enough that the last of
/// them is delivered within three seconds.
const GAP: Duration = Duration::from_secs(2);
/// How long one hook speaks for the next: repositories that are busy send more than one a day.
const TRUSTED_FOR: Duration = Duration::from_secs(86_400);
/// A change that is found so long after a hook was told of by it.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Hooks of one repository.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    last: Option<Timestamp>,
    /// When a change was found that none told of.
    missed: Option<Timestamp>,
    /// When the last poke by a hook was, and whether another one waits for the gap.
    poked: Option<Instant>,
    is_waiting: bool,
    /// Whether the scan that runs began soon after a hook.
    told: bool,
}

impl Hooks {
    /// A hook came then, now or in an earlier process.
    pub(super) fn arrived(&mut self, at: Option<Timestamp>) {
        self.last = self.last.max(at);
    }

    /// After which wait a hook that came just now is a poke; `None`: the poke that is on its way
    /// already does for it.
    pub(super) fn poke_after(&mut self, now: Instant) -> Option<Duration> {
        let since = self.poked.map(|poked| now.saturating_duration_since(poked));
        match since {
            _ if self.is_waiting => None,
            Some(since) if since < DEBOUNCE => None,
            Some(since) if since < GAP => {
                self.is_waiting = true;
                Some(GAP - since)
            }
            _ => {
                self.poked = Some(now);
                Some(Duration::ZERO)
            }
        }
    }

    /// The poke that waited is made now.
    pub(super) fn waited(&mut self, now: Instant) {
        self.is_waiting = false;
        self.poked = Some(now);
    }

    /// A scan begins.
    pub(super) fn scan_began(&mut self, now: Timestamp) {
        self.told = self.told_of(now);
    }

    /// The scan that began last found a change.
    pub(super) fn change_found(&mut self, now: Timestamp) {
        if !self.told && !self.told_of(now) {
            self.missed = Some(now);
        }
    }

    /// The longest interval between two polls.
    pub(super) fn ceiling(&self, now: Timestamp, plain: Duration, hooked: Duration) -> Duration {
        let trusted = self.last.filter(|last| Some(*last) > self.missed && last.is_within(TRUSTED_FOR, now));
        if trusted.is_some() { hooked.max(plain) } else { plain }
    }

    fn told_of(&self, now: Timestamp) -> bool {
        self.last.is_some_and(|last| last.is_within(TOLD_WITHIN, now))
    }
}

#[cfg(test)]
mod tests;
