//! Who calls, as far as it must be remembered between requests: when tokens were used last, how often
//! the staff's door stayed shut, and what each app did of late. All cost few writes, however many
//! requests come.

pub mod issuer;
mod keys;
mod signature;

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tidings_actors::{ports::AccessToken, time::Timestamp};
use tidings_entity::id::TokenId;

use self::issuer::Issuer;
use crate::{egress::Egress, settings::IdentitySettings};

/// The last use of a token is written at most this often.
const USE_WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// Tokens whose last use is remembered here; beyond that it is forgotten and written once more.
const TOKENS_REMEMBERED: usize = 100_000;
/// What comes again and again is written at most this often after the first times: refusals at the
/// staff's door, and what an app does.
pub const WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// So many of a kind are written one by one before they are counted together.
const AT_ONCE: u32 = 10;
/// Kinds of deeds that are remembered; beyond that those that rest are forgotten.
const DEEDS_REMEMBERED: usize = 10_000;

/// What is remembered between requests.
#[derive(Default)]
pub struct Identity {
    /// Whose tokens open the staff's door beside ours.
    pub issuer: Option<Issuer>,
    uses: Mutex<HashMap<TokenId, Timestamp>>,
    refusals: Mutex<Series>,
    /// By app and action.
    deeds: Mutex<HashMap<(String, String), Series>>,
}

/// What comes again and again.
#[derive(Default)]
struct Series {
    /// How many may still be written one by one.
    left: Option<u32>,
    /// When one was written last.
    written_at: Option<Timestamp>,
    /// How many were not written since.
    unwritten: u64,
}

impl Series {
    fn has_rested(&self, now: Timestamp) -> bool {
        // A clock that was set back begins anew, or nothing would be written until it is where it was.
        !self.written_at.is_some_and(|at| at.is_within(WRITTEN_EVERY, now))
    }

    /// Whether the next one may be written by itself, and is counted as such.
    fn take(&mut self, now: Timestamp) -> bool {
        let left = if self.has_rested(now) { AT_ONCE } else { self.left.unwrap_or(0) };
        if left > 0 {
            (self.left, self.written_at) = (Some(left - 1), Some(now));
        }
        left > 0
    }
}

impl Identity {
    /// What is remembered, with the issuer of the settings.
    #[must_use]
    pub fn of(settings: &IdentitySettings, egress: &Egress) -> Self {
        Self { issuer: Issuer::of(settings, egress), ..Self::default() }
    }

    /// Whether this use of a token is to be written: a minute after the last one that was, and by one
    /// of many requests at once.
    pub fn is_use_written(&self, token: &AccessToken, now: Timestamp) -> bool {
        let is_fresh = |at: &Timestamp| at.is_within(USE_WRITTEN_EVERY, now);
        if token.last_used_at.as_ref().is_some_and(is_fresh) {
            return false;
        }
        let mut uses = self.uses.lock();
        if uses.get(&token.id).is_some_and(is_fresh) {
            return false;
        }
        if uses.len() >= TOKENS_REMEMBERED {
            uses.clear();
        }
        uses.insert(token.id.clone(), now);
        true
    }

    /// For how many refusals a row of the audit log is to stand that is written now; `None`: none is.
    pub fn refused(&self, now: Timestamp) -> Option<u64> {
        let mut refusals = self.refusals.lock();
        if !refusals.take(now) {
            refusals.unwritten += 1;
            return None;
        }
        Some(std::mem::take(&mut refusals.unwritten) + 1)
    }

    /// Whether what an app is about to do is written by itself; otherwise it is to be counted.
    pub fn is_deed_written(&self, app: &str, action: &str, now: Timestamp) -> bool {
        let mut deeds = self.deeds.lock();
        if deeds.len() >= DEEDS_REMEMBERED {
            deeds.retain(|_, series| series.unwritten > 0 || !series.has_rested(now));
        }
        deeds.entry((app.to_owned(), action.to_owned())).or_default().take(now)
    }

    /// It failed, and needs no row.
    pub fn deed_failed(&self, app: &str, action: &str) {
        if let Some(series) = self.deeds.lock().get_mut(&(app.to_owned(), action.to_owned())) {
            series.left = series.left.map(|left| (left + 1).min(AT_ONCE));
        }
    }

    /// Counts a deed; whether it is the first since they were written.
    pub fn count_deed(&self, app: &str, action: &str) -> bool {
        let mut deeds = self.deeds.lock();
        let series = deeds.entry((app.to_owned(), action.to_owned())).or_default();
        series.unwritten += 1;
        series.unwritten == 1
    }

    /// How many were counted that are written now, together.
    pub fn counted_deeds(&self, app: &str, action: &str) -> u64 {
        let mut deeds = self.deeds.lock();
        let series = deeds.get_mut(&(app.to_owned(), action.to_owned()));
        series.map_or(0, |series| std::mem::take(&mut series.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use tidings_actors::ports::TokenOwner;
    use tidings_entity::{id::Sha256Hash, kind::Role};
    use ulid::Ulid;

    use super::*;

    fn token(last_used_at: Option<Timestamp>) -> AccessToken {
        AccessToken {
            id: TokenId::new(Ulid::nil()),
            owner: TokenOwner::Staff(Role::Viewer),
            name: String::new(),
            public_id: String::new(),
            hash: Sha256Hash::of(b""),
            expires_at: None,
            last_used_at,
            revoked_at: None,
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn a_use_is_written_once_a_minute() {
        let identity = Identity::default();
        let written = |at, seen| identity.is_use_written(&token(seen), Timestamp(at));
        assert!(written(100_000, None));
        assert!(!written(100_000, None) && !written(159_999, None), "many at once, and soon after");
        assert!(written(160_000, None));
        assert!(!written(230_000, Some(Timestamp(200_000))), "another process wrote one");
        assert!(written(20_000, Some(Timestamp(90_000))), "the clock was set back");
    }

    #[test]
    fn a_flood_of_refusals_writes_a_row_a_minute_that_counts_them() {
        let identity = Identity::default();
        let burst: u64 = (0..1_000).filter_map(|_| identity.refused(Timestamp(0))).sum();
        assert_eq!(burst, 10);
        assert_eq!(identity.refused(Timestamp(59_999)), None);
        assert_eq!(identity.refused(Timestamp(60_000)), Some(992));
        assert_eq!(identity.refused(Timestamp(60_001)), Some(1));
    }

    #[test]
    fn of_what_an_app_does_again_and_again_a_few_are_written_one_by_one() {
        let identity = Identity::default();
        let written = |app, action, at| identity.is_deed_written(app, action, Timestamp(at));
        assert_eq!((0..100).filter(|_| written("a", "scan", 100_000)).count(), 10);
        assert!(written("b", "scan", 100_000) && written("a", "pause", 100_000), "each for itself");
        identity.deed_failed("a", "scan");
        assert!(written("a", "scan", 100_000) && !written("a", "scan", 100_000), "one failed");
        assert!(identity.count_deed("a", "scan") && !identity.count_deed("a", "scan"));
        assert_eq!(identity.counted_deeds("a", "scan"), 2);
        assert_eq!(identity.counted_deeds("a", "scan"), 0);
        assert!(identity.count_deed("a", "scan"));
        assert!(!written("a", "scan", 159_999) && written("a", "scan", 160_000));
        assert!(written("a", "scan", 0), "the clock was set back");
    }
}
