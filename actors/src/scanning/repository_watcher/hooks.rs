//! The effect of genuine hooks on the polls of a repository, pure: it is polled soon, and otherwise less
//! often. Hooks are only hints: a hook that is lost, late, repeated or forged with the secret costs latency
//! or one poll each [`GAP`], and nothing else.
//!
//! Hooks are relied on from the first one until [`TRUSTED_FOR`] has passed without another, or a poll has
//! found a change that no hook reported. In the second case hooks get lost, and the repository is polled as
//! if it had none until the next one comes. A hook whose time lies in the future, after a clock was set back,
//! does not count.
//!
//! Hooks that came to an address of an app wake only sources of that app and never make polls less frequent:
//! the app knows the secret, and could delay changes for other apps that watch the same repository.

use std::time::Duration;

use tokio::time::Instant;

use super::DEBOUNCE;
use crate::time::Timestamp;

/// Polls after hooks are at least this far apart, however many hooks come; short enough that the change of
/// the last hook is delivered within three seconds.
const GAP: Duration = Duration::from_secs(2);
/// How long hooks are relied on after the last one: busy repositories send more than one a day.
const TRUSTED_FOR: Duration = Duration::from_secs(86_400);
/// A change that is found at most this long after a hook counts as reported by the hook.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Keeps the pokes that hooks lead to apart.
#[derive(Debug, Default)]
pub(super) struct Gap {
    /// When the last poke by a hook was, and whether another one waits for the gap.
    poked: Option<Instant>,
    is_waiting: bool,
}

impl Gap {
    /// The wait before a hook that came just now becomes a poke; `None`: a poke that is already waiting
    /// covers it.
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

    /// The waiting poke is made now.
    pub(super) fn waited(&mut self, now: Instant) {
        self.is_waiting = false;
        self.poked = Some(now);
    }
}

/// Hooks of one repository.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    last: Option<Timestamp>,
    /// When a change was found that no hook had reported.
    missed: Option<Timestamp>,
    /// Whether the scan that runs began soon after a hook.
    told: bool,
}

impl Hooks {
    /// Records a hook that came at this moment, in this process or an earlier one.
    pub(super) fn arrived(&mut self, at: Option<Timestamp>) {
        self.last = self.last.max(at);
    }

    /// Records that a scan began, which covers the hooks before `now`.
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
