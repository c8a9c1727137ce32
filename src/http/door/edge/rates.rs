//! Rates of requests per key (an address, an owner of tokens), by the generic cell rate algorithm. The state
//! of idle keys is removed.

use std::{
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};

use super::counted;
use crate::http::bodies::problem::{Kind, Problem};
use crate::settings::Rate;

/// The number of requests after which callers with a full rate are forgotten.
const SWEEP_EVERY: u64 = 4_096;

/// The limits of addresses and owners.
pub(super) struct Rates {
    addresses: Limiter<IpAddr>,
    owners: Limiter<String>,
}

impl Rates {
    pub(super) fn new(address: Rate, owner: Rate) -> Self {
        Self { addresses: Limiter::new(address), owners: Limiter::new(owner) }
    }

    pub(super) fn admit(&self, client: IpAddr) -> Result<(), Problem> {
        self.addresses.admit(&counted(client)).map_err(|wait| too_many("this address", wait))
    }

    pub(super) fn admit_owner(&self, owner: &str) -> Result<(), Problem> {
        self.owners.admit(&owner.to_owned()).map_err(|wait| too_many("the owner of this token", wait))
    }
}

/// A rate for each key.
pub(crate) struct Limiter<K: Clone + Eq + Hash> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    asked: AtomicU64,
}

impl<K: Clone + Eq + Hash> Limiter<K> {
    fn new(rate: Rate) -> Self {
        let burst = rate.burst().try_into().expect("a rate lets one through at least");
        Self::of(rate.interval(), burst)
    }

    /// Allows one request in each interval, which must not be zero, and a burst of this size.
    pub(crate) fn of(interval: Duration, burst: NonZeroU32) -> Self {
        let quota = Quota::with_period(interval).expect("no interval is zero").allow_burst(burst);
        Self {
            limiter: DefaultKeyedRateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            asked: AtomicU64::new(0),
        }
    }

    /// Admits a request of this key, or returns the wait until one is admitted.
    pub(crate) fn admit(&self, key: &K) -> Result<(), Duration> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        self.limiter.check_key(key).map_err(|later| later.wait_time_from(self.clock.now()))
    }
}

fn too_many(whose: &str, wait: Duration) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(Kind::TOO_MANY)
        .with_detail(format!("{whose} sends more requests than this server allows"))
        .retry_after(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().expect("a rate")
    }

    #[test]
    fn each_address_has_a_rate_of_its_own_and_a_network_of_ipv6_is_one() {
        let rates = Rates::new(rate("7200/h"), rate("1/h"));
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        assert!(rates.admit(one).is_ok() && rates.admit(one).is_ok());
        assert_eq!(rates.admit(one).expect_err("too many").code(), "too-many-requests");
        assert!(rates.admit(other).is_ok());

        let six = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, last]);
        assert!(rates.admit(six(1)).is_ok() && rates.admit(six(2)).is_ok());
        assert!(rates.admit(six(3)).is_err());
        assert!(rates.admit(IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1])).is_ok());
    }

    #[test]
    fn each_owner_has_a_rate_of_its_own() {
        let rates = Rates::new(rate("1000000/s"), rate("1/h"));
        assert!(rates.admit_owner("one").is_ok());
        let refused = rates.admit_owner("one").expect_err("too many").into_response("req_x");
        let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
        assert!((3_590..=3_600).contains(&wait), "{wait}");
        assert!(rates.admit_owner("other").is_ok());
    }

    #[test]
    fn who_asks_no_more_is_forgotten() {
        let rates = Rates::new(rate("1000000/s"), rate("1/s"));
        for number in 0..3 * u32::try_from(SWEEP_EVERY).expect("small") {
            assert!(rates.admit(IpAddr::from(number.to_be_bytes())).is_ok());
        }
        let remembered = rates.addresses.limiter.len() as u64;
        assert!(remembered <= SWEEP_EVERY + 1, "{remembered}");
    }
}
