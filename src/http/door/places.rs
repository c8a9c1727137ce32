//! Limits on the connections that one caller may keep busy, and on those of requests that only wait: such a
//! request holds its connection until it ends, and that connection cannot make room for another.
//!
//! Long polls and tails together never have more than half of the connections, so that the others are free
//! for short requests: health checks, hooks, operators, other apps.

use http::{HeaderMap, header};
use tidings_entity::id::Sha256Hash;

use super::{
    quota::{Full, Quota, QuotaShare},
    request::Caller,
};
use crate::http::bodies::problem::{Kind, Problem};

/// A caller may use at most one in this number of connections at once.
const CONNECTIONS_PER_REQUEST: usize = 8;
/// A caller may have at least this number of requests at once, however few connections there are.
const REQUESTS_MIN: usize = 16;
/// The long polls of one app may take at most one in this number of connections.
const CONNECTIONS_PER_POLL: usize = 16;
/// The most tails of one caller at once: an app, or a member of the staff.
const TAILS_PER_CALLER: usize = 8;
/// The long polls of all apps, and the tails of all callers, may each use at most one in this number of
/// connections.
const CONNECTIONS_PER_WAIT: usize = 4;
/// Uploads and downloads of artifacts of one app at once. Those of all apps have the connections of a wait.
const TRANSFERS_PER_APP: usize = 16;
/// The most requests of producers and workers at once, waiting claims among them.
const WORK_MAX: usize = 4_096;
/// The most such requests of one app at once.
const WORK_PER_OWNER: usize = 2_048;
/// How many seconds a client should wait that has too many requests under way.
const RETRY_AFTER_SECONDS: u64 = 1;
/// How many seconds a client should wait that has too many tails open.
const RETRY_TAIL_AFTER_SECONDS: u64 = 10;

/// The bounds of one process.
pub struct Places {
    tokens: Quota,
    refusals: Quota,
    requests: Quota,
    polls: Quota,
    tails: Quota,
    work: Quota,
    transfers: Quota,
}

impl Places {
    /// The bounds for a listener with this number of connections.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        let part = |of: usize| (connections_max / of).max(1);
        let of_waits = part(CONNECTIONS_PER_WAIT);
        let of_requests = part(CONNECTIONS_PER_REQUEST).max(REQUESTS_MIN);
        Self {
            tokens: Quota::new(of_requests, usize::MAX),
            refusals: Quota::new(usize::MAX, of_waits),
            requests: Quota::new(of_requests, usize::MAX),
            polls: Quota::new(part(CONNECTIONS_PER_POLL), of_waits),
            tails: Quota::new(TAILS_PER_CALLER, of_waits),
            work: Quota::new(WORK_PER_OWNER, WORK_MAX),
            transfers: Quota::new(TRANSFERS_PER_APP, of_waits),
        }
    }

    /// Counts one more request of a known caller, until it is answered.
    ///
    /// # Errors
    /// 429 when the limit of its running requests is reached.
    pub(crate) fn request(&self, caller: &Caller) -> Result<Option<QuotaShare>, Problem> {
        let owner = match caller {
            Caller::App(app) => app.id.as_str(),
            Caller::Staff(staff) => &staff.id,
            Caller::Anyone | Caller::Hook(_) => return Ok(None),
        };
        self.requests.take(owner).map(Some).map_err(|_full| too_many_requests())
    }

    /// Counts one more request of a producer or a worker, until it is answered: such requests may wait, or be
    /// many.
    ///
    /// # Errors
    /// 429 when the limit of its app, or of all apps together, is reached.
    pub(crate) fn work(&self, caller: &Caller) -> Result<Option<QuotaShare>, Problem> {
        let owner = match caller {
            Caller::App(app) => app.id.as_str(),
            Caller::Staff(staff) => &staff.id,
            Caller::Anyone | Caller::Hook(_) => return Ok(None),
        };
        self.work.take(owner).map(Some).map_err(|_full| too_many_requests())
    }

    /// Counts one more request with this token or cookie, until it is answered. It is counted before the
    /// caller is read, so that a flood of requests with one token causes no reads.
    ///
    /// # Errors
    /// 429 when the limit of running requests of a caller is reached for this token.
    pub(crate) fn token(&self, headers: &HeaderMap) -> Result<Option<QuotaShare>, Problem> {
        let sent = headers.get(header::AUTHORIZATION).or_else(|| headers.get(header::COOKIE));
        let Some(token) = sent else { return Ok(None) };
        let owner = Sha256Hash::of(token.as_bytes()).to_string();
        self.tokens.take(&owner).map(Some).map_err(|_full| too_many_requests())
    }

    /// Counts one more refusal that is held back; `None`: the limit is reached.
    pub(crate) fn refusal(&self) -> Option<QuotaShare> {
        self.refusals.take("").ok()
    }

    /// Counts one more request of an app that waits for a change; `None`: the limit is reached, so the
    /// request should not wait.
    pub(crate) fn poll(&self, app: &str) -> Option<QuotaShare> {
        self.polls.take(app).ok()
    }

    /// Counts one more upload or download of an artifact of an app, until its last byte.
    ///
    /// # Errors
    /// 429 when the limit of the app, or of all apps together, is reached.
    pub(crate) fn transfer(&self, app: &str) -> Result<QuotaShare, Problem> {
        self.transfers.take(app).map_err(|full| {
            let detail = match full {
                Full::Owner => {
                    format!(
                        "an app has at most {TRANSFERS_PER_APP} uploads and downloads of artifacts at once"
                    )
                }
                Full::All => "this server has as many uploads and downloads as it may have".to_owned(),
            };
            Problem::new(Kind::TOO_MANY).with_detail(detail).retry_after(RETRY_TAIL_AFTER_SECONDS)
        })
    }

    /// Counts one more tail of an app or, by its id, of a member of the staff.
    ///
    /// # Errors
    /// 429 when the limit of the caller, or of all callers together, is reached.
    pub(crate) fn tail(&self, owner: &str) -> Result<QuotaShare, Problem> {
        self.tails.take(owner).map_err(|full| {
            let detail = match full {
                Full::Owner => format!("a caller has at most {TAILS_PER_CALLER} event streams at once"),
                Full::All => "this server has reached its limit of event streams".to_owned(),
            };
            Problem::new(Kind::TOO_MANY).with_detail(detail).retry_after(RETRY_TAIL_AFTER_SECONDS)
        })
    }
}

fn too_many_requests() -> Problem {
    Problem::new(Kind::TOO_MANY)
        .with_detail("the owner of this token has reached its limit of requests at once")
        .retry_after(RETRY_AFTER_SECONDS)
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::{super::request::Staff, *};

    #[test]
    fn what_only_waits_has_half_of_the_connections_at_most() {
        for (connections, of_each) in [(1, 1), (3, 1), (8, 2), (24, 6), (1_024, 256)] {
            let places = Places::new(connections);
            let mut held = Vec::new();
            for caller in 0..1_000 {
                held.extend(places.poll(&caller.to_string()));
                held.extend(places.tail(&caller.to_string()));
            }
            assert_eq!(held.len(), 2 * of_each, "of {connections}");
            let refused = places.tail("another").err().expect("one too many");
            assert_eq!(refused.code(), "too-many-requests");
            drop(held);
            assert!(places.polls.is_unused() && places.tails.is_unused());
        }
    }

    #[test]
    fn one_app_has_a_part_of_what_may_wait() {
        let places = Places::new(1_024);
        let polls: Vec<_> = (0..1_100).filter_map(|_| places.poll("greedy")).collect();
        assert_eq!(polls.len(), 64);
        assert!(places.poll("modest").is_some());
        let tails: Vec<_> = (0..100).filter_map(|_| places.tail("greedy").ok()).collect();
        assert_eq!(tails.len(), 8);
        assert!(places.tail("modest").is_ok());
    }

    #[test]
    fn a_token_has_so_many_requests_at_once_whoever_it_belongs_to() {
        let places = Places::new(1_024);
        let with = |token: &'static str| {
            HeaderMap::from_iter([(header::AUTHORIZATION, token.parse().expect("text"))])
        };
        let held: Vec<_> = (0..128).map(|_| places.token(&with("Bearer one")).expect("room")).collect();
        let refused = places.token(&with("Bearer one")).err().expect("one too many");
        assert_eq!(refused.status().as_u16(), 429);
        assert!(places.token(&with("Bearer other")).is_ok());
        assert!(places.token(&HeaderMap::new()).expect("not counted").is_none());
        drop(held);
        assert!(places.token(&with("Bearer one")).is_ok() && places.tokens.is_unused());
    }

    #[test]
    fn a_caller_has_so_many_requests_at_once_and_who_is_not_known_is_not_counted() {
        let staff = |id: &str| Caller::Staff(Staff { id: id.into(), roles: Vec::new(), keys: Ulid::nil() });
        for (connections, most) in [(1, 16), (1_024, 128)] {
            let places = Places::new(connections);
            let held: Vec<_> = (0..most).map(|_| places.request(&staff("one")).expect("room")).collect();
            let refused = places.request(&staff("one")).err().expect("one too many");
            assert_eq!(refused.status().as_u16(), 429);
            assert!(places.request(&staff("other")).is_ok());
            assert!(places.request(&Caller::Anyone).expect("not counted").is_none());
            drop(held);
            assert!(places.request(&staff("one")).is_ok() && places.requests.is_unused());
        }
    }
}
