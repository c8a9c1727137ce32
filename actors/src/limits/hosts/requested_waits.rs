//! How long a host asked one credential to wait, pure. A wait that the host named is kept. If the host named
//! no time, the wait is a minute and doubles until an answer comes.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// The first wait if the host named no time.
const UNNAMED_FIRST: Duration = Duration::from_secs(60);
/// The longest such wait.
const UNNAMED_LAST: Duration = Duration::from_secs(3_600);
/// The number of credentials that are stored for one host. Beyond it, credentials whose wait is over are
/// forgotten.
const CREDENTIALS_KEPT: usize = 1_024;

/// A credential, or no credential, as a number that reveals nothing of it.
pub(super) type CredentialNumber = u64;

/// The waits of one host.
#[derive(Debug, Default)]
pub(super) struct RequestedWaits(HashMap<CredentialNumber, Wait>);

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Instant,
    unnamed: u32,
}

impl RequestedWaits {
    /// The host asks for `asked`; until when nothing may be asked of it.
    pub(super) fn grant(&mut self, key: CredentialNumber, asked: Option<Duration>, now: Instant) -> Instant {
        if self.0.len() >= CREDENTIALS_KEPT {
            self.0.retain(|_, wait| wait.until > now);
        }
        let wait = self.0.entry(key).or_insert(Wait { until: now, unnamed: 0 });
        let span = asked.unwrap_or_else(|| {
            let doubled = UNNAMED_FIRST.saturating_mul(2_u32.saturating_pow(wait.unnamed.min(16)));
            wait.unnamed += 1;
            doubled.min(UNNAMED_LAST)
        });
        wait.until = wait.until.max(now + span);
        wait.until
    }

    /// The moment until which this credential may send no request; `None`: it may.
    pub(super) fn until(&self, key: CredentialNumber, now: Instant) -> Option<Instant> {
        self.0.get(&key).map(|wait| wait.until).filter(|until| *until > now)
    }

    /// The host answered without asking for more.
    pub(super) fn answered(&mut self, key: CredentialNumber, now: Instant) {
        if self.until(key, now).is_none() {
            self.0.remove(&key);
        }
    }

    /// The end of the longest wait of all credentials; `None`: no credential waits.
    pub(super) fn longest(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|wait| wait.until).filter(|until| *until > now).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_is_granted_and_never_shortened() {
        let (mut requested, now) = (RequestedWaits::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        requested.grant(1, Some(Duration::from_secs(900)), now);
        requested.grant(1, Some(Duration::from_secs(10)), now);
        assert_eq!((requested.until(1, now), requested.until(2, now)), (Some(after(900)), None));
        requested.answered(1, now);
        assert_eq!(requested.until(1, after(899)), Some(after(900)), "an answer under way shortens nothing");
        assert_eq!(requested.until(1, after(900)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_without_a_time_doubles_until_an_answer_comes() {
        let (mut requested, mut now) = (RequestedWaits::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            let until = requested.grant(1, None, now);
            waits.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        requested.answered(1, now);
        assert_eq!((requested.grant(1, None, now) - now).as_secs(), 60);
    }
}
