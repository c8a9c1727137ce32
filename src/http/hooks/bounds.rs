//! Limits on the cost of hooks. Anyone can send a hook, and anyone who saw one may send it again under
//! another delivery id (GitHub signs only the body), so each cost has its own limit: memory for large bodies,
//! rows of refused and repeated hooks, rows of genuine hooks. Beyond a limit hooks are answered but not
//! stored; polls find their changes.
//!
//! Genuine hooks are limited per address and secret, those of an app per app: a flood uses up only the
//! sender's own part. A body that is repeated soon leaves no receipt, under any delivery id: a captured hook
//! that is sent again causes only another poll, and watchers combine polls that are requested together.

use std::{collections::VecDeque, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidings_actors::ports::HookOwner;
use tidings_entity::{
    id::{AppId, RepositoryId, Sha256Hash},
    kind::HookProvider,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::http::{
    bodies::problem::{Kind, Problem},
    door::edge::{Limiter, counted},
};

/// The bytes of a body that need no memory from the budget: most hooks are smaller (256 KiB).
const FREE_BYTES: usize = 256 << 10;
/// All that is beyond it, of all bodies together (64 MiB, in KiB).
const SHARED_KIB: usize = 64 << 10;
/// Refused and repeated hooks that are stored: one per second, after this burst.
const NOTES: (f64, f64) = (1.0, 50.0);
/// Genuine hooks of one address with one secret that are accepted: one in each interval (200 a second).
const RECEIPT_EVERY: Duration = Duration::from_millis(5);
/// Genuine hooks that are accepted at once, before that interval applies.
const RECEIPTS_AT_ONCE: NonZeroU32 = NonZeroU32::new(1_000).expect("it is not zero");
/// Genuine hooks of one app that are accepted: one in each interval (50 a second).
const OF_APP_EVERY: Duration = Duration::from_millis(20);
/// Genuine hooks of one app that are accepted at once, before that interval applies.
const OF_APP_AT_ONCE: NonZeroU32 = NonZeroU32::new(500).expect("it is not zero");
/// For how long a body that was taken in is not taken in again.
const SAME_BODY_WITHIN: Duration = Duration::from_secs(10);
/// Most bodies that are remembered for that.
const BODIES_REMEMBERED: usize = 4_096;
/// How many seconds a host should wait beyond a bound.
const RETRY_AFTER_SECONDS: u64 = 10;

/// The limits of one process.
pub struct Bounds {
    bodies: Arc<Semaphore>,
    notes: Mutex<Bucket>,
    /// The limits by address and number of the secret.
    receipts: Limiter<(IpAddr, usize)>,
    /// Hooks of apps, wherever they come from.
    of_apps: Limiter<AppId>,
    taken: Mutex<VecDeque<TakenBody>>,
}

/// The owner of the secret that proved a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prover {
    /// The secret of this number of the settings.
    Server(usize),
    /// The secret of an app's hook.
    App(HookOwner),
}

/// Identifies a body by its content and the owner of its secret. Not every host signs the header fields.
pub(super) type BodyMark = (HookProvider, Prover, Sha256Hash);

/// A body that was taken in: when, which, and the repositories that it named.
type TakenBody = (Instant, BodyMark, Arc<[RepositoryId]>);

impl Default for Bounds {
    fn default() -> Self {
        let (rate, burst) = NOTES;
        Self {
            bodies: Arc::new(Semaphore::new(SHARED_KIB)),
            notes: Mutex::new(Bucket::full(rate, burst, Instant::now())),
            receipts: Limiter::of(RECEIPT_EVERY, RECEIPTS_AT_ONCE),
            of_apps: Limiter::of(OF_APP_EVERY, OF_APP_AT_ONCE),
            taken: Mutex::default(),
        }
    }
}

impl Bounds {
    /// Limits that are already reached for this address with the first secret.
    #[cfg(test)]
    pub(in crate::http) fn spent(address: IpAddr) -> Self {
        let receipts = Limiter::of(Duration::from_hours(1), NonZeroU32::MIN);
        receipts.admit(&(address, 0)).expect("the first one");
        let notes = Mutex::new(Bucket { tokens: 0.0, ..Bucket::full(0.0, 1.0, Instant::now()) });
        Self { bodies: Arc::new(Semaphore::new(0)), notes, receipts, ..Self::default() }
    }

    /// The memory for one body, taken as it arrives.
    pub(in crate::http) fn room(&self) -> Room {
        Room { bodies: self.bodies.clone(), held: None, bytes: 0 }
    }

    /// The number of refused or repeated hooks that the next row stands for; `None`: no row is written now.
    pub(super) fn note(&self) -> Option<u64> {
        let mut notes = self.notes.lock();
        notes.take(Instant::now())
    }

    /// Whether a genuine hook of this address, proved by this secret, is taken in.
    pub(super) fn admit(&self, client: IpAddr, prover: &Prover) -> Result<(), Problem> {
        let admitted = match prover {
            Prover::Server(secret) => self.receipts.admit(&(counted(client), *secret)),
            Prover::App(owner) => self.of_apps.admit(&owner.app),
        };
        admitted.map_err(|_wait| Problem::new(Kind::TOO_MANY).retry_after(RETRY_AFTER_SECONDS))
    }

    /// The repositories that the same body named a moment ago, where it was taken in.
    pub(super) fn repeated(&self, mark: &BodyMark) -> Option<Arc<[RepositoryId]>> {
        let (mut taken, now) = (self.taken.lock(), Instant::now());
        while taken.front().is_some_and(|(at, ..)| now.duration_since(*at) >= SAME_BODY_WITHIN) {
            taken.pop_front();
        }
        let known = taken.iter().find(|(_, known, _)| known == mark)?;
        Some(Arc::clone(&known.2))
    }

    /// Records that a body was accepted, and that its receipt is on disk.
    pub(super) fn took(&self, mark: BodyMark, repositories: &[RepositoryId]) {
        let mut taken = self.taken.lock();
        if taken.len() == BODIES_REMEMBERED {
            taken.pop_front();
        }
        taken.push_back((Instant::now(), mark, repositories.into()));
    }
}

/// The memory that one body holds; given back when dropped.
pub(in crate::http) struct Room {
    bodies: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Room {
    /// Takes memory for this many more bytes.
    ///
    /// # Errors
    /// 503 when other bodies hold all memory: waiting would hold the bytes that have arrived.
    pub(in crate::http) fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bytes += bytes;
        let needed = self.bytes.saturating_sub(FREE_BYTES).div_ceil(1024);
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(needed.saturating_sub(held)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let Ok(permit) = self.bodies.clone().try_acquire_many_owned(more) else {
            return Err(Problem::new(Kind::UNAVAILABLE)
                .with_detail("other hooks take all memory for hooks just now")
                .retry_after(RETRY_AFTER_SECONDS));
        };
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }
}

/// A bucket of tokens, pure.
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
    missed: u64,
}

impl Bucket {
    fn full(rate: f64, burst: f64, now: Instant) -> Self {
        Self { rate, burst, tokens: burst, at: now, missed: 0 }
    }

    /// Takes a token. Returns the number of requests since the last token, including this one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * self.rate).min(self.burst);
        self.at = now;
        if self.tokens < 1.0 {
            self.missed += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.missed) + 1)
    }
}

#[cfg(test)]
mod tests {
    use tidings_entity::id::HookId;

    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate_and_counts_who_got_nothing() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut bucket = Bucket::full(1.0, 3.0, start);
        let got: Vec<_> = (0..10).map(|_| bucket.take(at(0))).collect();
        assert_eq!(got.iter().filter(|got| **got == Some(1)).count(), 3);
        assert_eq!(bucket.take(at(999)), None);
        assert_eq!(bucket.take(at(1_001)), Some(9), "eight before it and itself");
        assert_eq!(bucket.take(at(1_002)), None);
        assert_eq!((0..10).filter_map(|_| bucket.take(at(60_000))).count(), 3, "no more than the burst");
    }

    #[test]
    fn who_floods_spends_the_part_of_its_address_and_secret_only() {
        let bounds = Bounds::default();
        let [flood, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let admitted = (0..3_000).filter(|_| bounds.admit(flood, &Prover::Server(0)).is_ok()).count();
        assert!((1_000..3_000).contains(&admitted), "{admitted}");
        assert!(
            bounds.admit(other, &Prover::Server(0)).is_ok()
                && bounds.admit(flood, &Prover::Server(1)).is_ok()
        );
    }

    #[test]
    fn an_app_that_floods_spends_its_own_part_from_wherever_it_sends() {
        let bounds = Bounds::default();
        let of = |number: u128| {
            let id = ulid::Ulid::from_parts(1, number);
            Prover::App(HookOwner { hook: HookId::new(id), app: AppId::new(id) })
        };
        let from = |last: u8| IpAddr::from([192, 0, 2, last]);
        let admitted = (0..=255).chain(0..=255).chain(0..=255);
        let admitted = admitted.filter(|last| bounds.admit(from(*last), &of(1)).is_ok()).count();
        assert!((500..768).contains(&admitted), "{admitted}");
        assert!(bounds.admit(from(1), &of(2)).is_ok() && bounds.admit(from(1), &Prover::Server(0)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_counts_once_in_a_while_and_so_many_are_remembered() {
        let bounds = Bounds::default();
        let mark =
            |number: usize| (HookProvider::Github, Prover::Server(0), Sha256Hash::of(&number.to_be_bytes()));
        assert!(bounds.repeated(&mark(0)).is_none());
        bounds.took(mark(0), &[]);
        assert!(bounds.repeated(&mark(0)).is_some() && bounds.repeated(&mark(1)).is_none());
        let (host, secret, digest) = mark(0);
        assert!(bounds.repeated(&(HookProvider::Gitea, secret, digest)).is_none(), "another kind of host");
        assert!(
            bounds.repeated(&(host, Prover::Server(1), digest)).is_none(),
            "who knows one secret silences no other"
        );
        tokio::time::advance(SAME_BODY_WITHIN).await;
        assert!(bounds.repeated(&mark(0)).is_none(), "it may be true again");
        (0..=BODIES_REMEMBERED).for_each(|number| bounds.took(mark(number), &[]));
        assert!(bounds.repeated(&mark(0)).is_none() && bounds.repeated(&mark(BODIES_REMEMBERED)).is_some());
    }

    #[test]
    fn large_bodies_share_one_room_and_small_ones_always_fit() {
        let bounds = Bounds::default();
        let mut first = bounds.room();
        assert!(first.take(FREE_BYTES).is_ok());
        assert_eq!(bounds.bodies.available_permits(), SHARED_KIB);
        assert!(first.take(SHARED_KIB * 1024).is_ok(), "all of it");
        let mut second = bounds.room();
        assert!(second.take(FREE_BYTES).is_ok());
        assert_eq!(second.take(1).map_err(|problem| problem.status().as_u16()), Err(503));
        drop(first);
        assert!(second.take(1).is_ok());
        drop(second);
        assert_eq!(bounds.bodies.available_permits(), SHARED_KIB);
    }
}
