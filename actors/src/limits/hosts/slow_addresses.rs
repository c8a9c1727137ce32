//! The addresses at one host whose short answers took long (a listing that hangs or drips), pure. An address
//! counts as slow for an hour, also if other requests to it are quick meanwhile. An hour is longer than the
//! usual wait between two polls.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// A request for a short answer that keeps its place for this long makes its address a slow one.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(10);
/// How long an address counts as slow.
const SLOW_FOR: Duration = Duration::from_secs(3_600);
/// The number of slow addresses that are stored for one host. Beyond it, the address that was slow longest
/// ago is forgotten.
const ADDRESSES_KEPT: usize = 1_024;

/// A port and a path of a host, as a number.
pub(super) type AddressNumber = u64;

/// The slow addresses of one host, each with the moment until which it counts as slow.
#[derive(Debug, Default)]
pub(super) struct SlowAddresses(HashMap<AddressNumber, Instant>);

impl SlowAddresses {
    /// A request to this address was slow.
    pub(super) fn note(&mut self, address: AddressNumber, now: Instant) {
        if self.0.len() >= ADDRESSES_KEPT && !self.0.contains_key(&address) {
            let oldest = self.0.iter().min_by_key(|(_, until)| **until).map(|(oldest, _)| *oldest);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(address, now + SLOW_FOR);
    }

    /// Whether this address counts as slow.
    pub(super) fn contains(&self, address: AddressNumber, now: Instant) -> bool {
        self.0.get(&address).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_counts_as_slow_for_an_hour_after_the_last_slow_request() {
        let (mut slow, now) = (SlowAddresses::default(), Instant::now());
        slow.note(1, now);
        slow.note(1, now + SLOW_FOR / 2);
        let last = now + SLOW_FOR / 2 + SLOW_FOR;
        assert!(slow.contains(1, last - Duration::from_secs(1)) && !slow.contains(1, last));
        assert!(!slow.contains(2, now));
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_addresses_the_one_that_was_slow_longest_ago_is_forgotten() {
        let (mut slow, now) = (SlowAddresses::default(), Instant::now());
        let mut later = now;
        for address in 0..=ADDRESSES_KEPT as u64 {
            later += Duration::from_secs(1);
            slow.note(address, later);
        }
        assert_eq!(slow.0.len(), ADDRESSES_KEPT);
        assert!(!slow.contains(0, later) && slow.contains(1, later));
    }
}
