//! The memory about sign-ins between requests: how often an address tried, which tries went from here to an
//! issuer, and which tries failed.
//!
//! Failed tries are in the audit log (`sign_in.failed`), folded: the first of an address gets a row, and
//! the others of its minute share one that holds their number (`times:n`). Beyond [`ADDRESSES_MAX`]
//! addresses in a minute the tries of all others share one row without an address. So guesses write at most
//! 41 rows a minute, however many there are, and from however many addresses.

use std::{collections::HashMap, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidings_actors::ports::AuditEntry;
use tidings_entity::id::Sha256Hash;
use tokio::time::{Instant, sleep};

use crate::http::{
    bodies::problem::{Kind, Problem},
    door::{
        audit_layer::write,
        edge::{Limiter, counted},
        lifecycle::Lifecycle,
        request::{ANYONE, Request},
    },
    front::Front,
};

/// Attempts to sign in from one address that are allowed at once.
const ATTEMPTS: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
/// The interval in which one further attempt is allowed.
const ATTEMPT_EVERY: Duration = Duration::from_secs(6);
/// How long a sign-in may take at an issuer.
pub(super) const SIGN_IN_LASTS: Duration = Duration::from_mins(10);
/// Sign-ins that are remembered as counted; the return of any other is counted once more.
const BEGUN_MAX: usize = 10_000;
/// The action of a failed try in the audit log.
const FAILED: &str = "sign_in.failed";
/// Failed tries of one address share a row for this long.
const FOLDED_FOR: Duration = Duration::from_mins(1);
/// Addresses whose failed tries have rows of their own at the same time.
const ADDRESSES_MAX: usize = 20;

/// The limit of sign-in attempts per address, in one process, and the failed ones.
pub struct SignIns {
    attempts: Limiter<IpAddr>,
    /// The sign-ins that went to an issuer from here, by their state: they are counted already.
    begun: Mutex<HashMap<Sha256Hash, Instant>>,
    failed: Mutex<Failed>,
    lifecycle: Lifecycle,
}

impl SignIns {
    /// The limit, with nothing counted yet; what is counted is written before the process stops.
    #[must_use]
    pub fn new(lifecycle: Lifecycle) -> Self {
        Self {
            attempts: Limiter::of(ATTEMPT_EVERY, ATTEMPTS),
            begun: Mutex::default(),
            failed: Mutex::default(),
            lifecycle,
        }
    }

    /// Counts an attempt of an address; the wait until the next one, if there were too many.
    pub(super) fn admit(&self, client: IpAddr) -> Result<(), Duration> {
        self.attempts.admit(&counted(client))
    }

    /// Remembers a counted attempt that goes to an issuer.
    pub(super) fn goes(&self, state: Sha256Hash, now: Instant) {
        let mut begun = self.begun.lock();
        if begun.len() >= BEGUN_MAX {
            begun.retain(|_, at| now.duration_since(*at) < SIGN_IN_LASTS);
        }
        if begun.len() < BEGUN_MAX {
            begun.insert(state, now);
        }
    }

    /// Whether an attempt that comes back from an issuer was counted when it went there; true once.
    pub(super) fn comes_back(&self, state: &Sha256Hash, now: Instant) -> bool {
        let begun = self.begun.lock().remove(state);
        begun.is_some_and(|at| now.duration_since(at) < SIGN_IN_LASTS)
    }

    /// Writes a failed attempt to the audit log, or counts it.
    pub(super) fn failed(self: &Arc<Self>, front: &Arc<Front>, request: &Request, code: &'static str) {
        let (place, is_first) = self.failed.lock().count(counted(request.client));
        if !is_first {
            return;
        }
        let entry = AuditEntry {
            at: front.clock.now(),
            actor: ANYONE.to_owned(),
            app: String::new(),
            action: FAILED.to_owned(),
            target: String::new(),
            result: code.to_owned(),
            request: request.request_id.clone(),
            address: Some(request.client.to_string()),
        };
        let (front, sign_ins) = (front.clone(), self.clone());
        let work = async move {
            if place.is_some() {
                write(&front, &entry).await;
            }
            tokio::select! {
                () = sleep(FOLDED_FOR) => {}
                () = sign_ins.lifecycle.drained() => {}
            }
            let times = sign_ins.failed.lock().take(place);
            if times > 0 {
                let (at, target) = (front.clock.now(), format!("times:{times}"));
                let address = place.and(entry.address.clone());
                write(&front, &AuditEntry { at, target, address, request: String::new(), ..entry }).await;
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "at most one for each of a few addresses, and it ends after a minute"
        )]
        tokio::spawn(work);
    }
}

/// The refusal of an attempt beyond the limit.
pub(super) fn too_many(wait: Duration) -> Problem {
    Problem::new(Kind::TOO_MANY)
        .with_detail("this address tried to sign in too often")
        .retry_after(wait.as_secs() + 1)
}

/// The failed attempts that have no row yet, by address; `None`: of all further addresses.
#[derive(Default)]
struct Failed(HashMap<Option<IpAddr>, u64>);

impl Failed {
    /// Counts an attempt: the place that it is counted at, and whether it is the first there. The first of an
    /// address gets its own row, so it is not counted.
    fn count(&mut self, address: IpAddr) -> (Option<IpAddr>, bool) {
        let is_known = self.0.contains_key(&Some(address));
        let has_room = self.0.keys().flatten().count() < ADDRESSES_MAX;
        let place = (is_known || has_room).then_some(address);
        let is_first = !self.0.contains_key(&place);
        let own_row = u64::from(is_first && place.is_some());
        *self.0.entry(place).or_default() += 1 - own_row;
        (place, is_first)
    }

    /// How many were counted at this place, which is free from then on.
    fn take(&mut self, place: Option<IpAddr>) -> u64 {
        self.0.remove(&place).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_of_many_addresses_share_a_row_and_those_of_one_too() {
        let mut failed = Failed::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let firsts = (0..1_000).filter(|number| failed.count(address(*number)).1).count();
        assert_eq!(firsts, ADDRESSES_MAX + 1, "one for each address, and one for all others");
        for _ in 0..5 {
            assert_eq!(failed.count(address(3)), (Some(address(3)), false));
        }
        assert_eq!(failed.take(Some(address(3))), 5, "the first has a row of its own");
        assert_eq!(failed.take(None), 1_000 - 20, "none of these has one");
        assert_eq!(failed.count(address(500)), (Some(address(500)), true), "there is room again");
        assert_eq!(failed.take(Some(address(500))), 0);
    }

    #[test]
    fn a_sign_in_that_comes_back_was_counted_once() {
        let (sign_ins, now) = (SignIns::new(Lifecycle::default()), Instant::now());
        let state = |number: u32| Sha256Hash::of(&number.to_be_bytes());
        sign_ins.goes(state(1), now);
        assert!(!sign_ins.comes_back(&state(2), now), "nobody went there");
        assert!(sign_ins.comes_back(&state(1), now) && !sign_ins.comes_back(&state(1), now));
        sign_ins.goes(state(3), now);
        assert!(!sign_ins.comes_back(&state(3), now + SIGN_IN_LASTS), "it took too long");
        (0..2 * 10_000).for_each(|number| sign_ins.goes(state(number), now));
        assert_eq!(sign_ins.begun.lock().len(), BEGUN_MAX);
        sign_ins.goes(state(99_999), now + SIGN_IN_LASTS);
        assert_eq!(sign_ins.begun.lock().len(), 1, "the earlier sign-ins have ended");
    }
}
