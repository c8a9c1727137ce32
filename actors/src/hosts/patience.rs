//! How long a host asked one credential to wait, pure. What it asks for is granted; where it asks
//! without a time the wait begins at a minute and doubles until an answer comes.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// The first wait where a host named none.
const UNNAMED_FIRST: Duration = Duration::from_secs(60);
/// The longest such wait.
const UNNAMED_LAST: Duration = Duration::from_secs(3_600);
/// So many credentials are remembered of one host; beyond, those whose wait is over are forgotten.
const CREDENTIALS_KEPT: usize = 1_024;

/// A credential, or none, as a number that tells nothing of it.
pub(super) type Key = u64;

/// The waits of one host.
#[derive(Debug, Default)]
pub(super) struct Patience(HashMap<Key, Wait>);

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Instant,
    unnamed: u32,
}

impl Patience {
    /// The host asks for `asked`; until when nothing may be asked of it.
    pub(super) fn grant(&mut self, key: Key, asked: Option<Duration>, now: Instant) -> Instant {
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

    /// Until when nothing may be asked.
    pub(super) fn until(&self, key: Key, now: Instant) -> Option<Instant> {
        self.0.get(&key).map(|wait| wait.until).filter(|until| *until > now)
    }

    /// The host answered without asking for more.
    pub(super) fn answered(&mut self, key: Key, now: Instant) {
        if self.until(key, now).is_none() {
            self.0.remove(&key);
        }
    }

    /// The longest wait that goes on.
    pub(super) fn longest(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|wait| wait.until).filter(|until| *until > now).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_is_granted_and_never_shortened() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        patience.grant(1, Some(Duration::from_secs(900)), now);
        patience.grant(1, Some(Duration::from_secs(10)), now);
        assert_eq!((patience.until(1, now), patience.until(2, now)), (Some(after(900)), None));
        patience.answered(1, now);
        assert_eq!(patience.until(1, after(899)), Some(after(900)), "an answer under way shortens nothing");
        assert_eq!(patience.until(1, after(900)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_without_a_time_doubles_until_an_answer_comes() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            let until = patience.grant(1, None, now);
            waits.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        patience.answered(1, now);
        assert_eq!((patience.grant(1, None, now) - now).as_secs(), 60);
    }
}
