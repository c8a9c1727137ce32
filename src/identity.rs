//! The memory about callers between requests: when tokens were last used, how many requests to routes of the
//! staff were refused, and recent acts of each app. It limits the number of writes, however many requests
//! come.

pub mod issuer;
mod keys;
pub mod login;
pub(crate) mod pem;
pub mod refusal;
mod signature;

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tidings_actors::{ports::AccessToken, time::Timestamp};
use tidings_entity::id::TokenId;

use self::issuer::Issuers;
use crate::{egress::Egress, settings::IdentitySettings};

/// The last use of a token is written at most this often.
const USE_WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// The number of tokens whose last use is remembered; beyond that, a use is forgotten and written once more.
const TOKENS_REMEMBERED: usize = 100_000;
/// After the first ones, repeated events are written at most this often: refusals at routes of the staff, and
/// acts of an app.
pub const WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// The number of events of a kind that are written one by one before they are counted together.
const AT_ONCE: u32 = 10;
/// Kinds of actions that are counted at once; beyond that, those without recent actions are forgotten.
const ACTIONS_COUNTED: usize = 10_000;

/// The memory between requests.
#[derive(Default)]
pub struct Identity {
    /// The issuers whose tokens open the API as well.
    pub issuers: Issuers,
    uses: Mutex<HashMap<TokenId, Timestamp>>,
    /// The repeated acts of apps and refusals of callers, by app or caller and action.
    actions: Mutex<HashMap<(String, String), Series>>,
}

/// Repeated events of one kind.
#[derive(Default)]
struct Series {
    /// How many may still be written one by one.
    left: Option<u32>,
    /// When an event was last written.
    written_at: Option<Timestamp>,
    /// How many were not written since.
    unwritten: u64,
}

impl Series {
    fn has_rested(&self, now: Timestamp) -> bool {
        // After a clock was set back the series begins again; otherwise nothing would be written until the
        // clock has caught up.
        !self.written_at.is_some_and(|at| at.is_within(WRITTEN_EVERY, now))
    }

    /// Whether the next event may be written by itself; if so, it is counted.
    fn take(&mut self, now: Timestamp) -> bool {
        let left = if self.has_rested(now) { AT_ONCE } else { self.left.unwrap_or(0) };
        if left > 0 {
            (self.left, self.written_at) = (Some(left - 1), Some(now));
        }
        left > 0
    }
}

impl Identity {
    /// An empty memory, with the issuers of the settings.
    #[must_use]
    pub fn of(settings: &IdentitySettings, egress: &Egress) -> Self {
        Self { issuers: Issuers::of(settings, egress), ..Self::default() }
    }

    /// Whether this use of a token is to be written: at most once a minute, and by one of several concurrent
    /// requests.
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

    /// Whether an act of an app gets a row of its own; otherwise it is counted.
    pub fn is_action_written(&self, app: &str, action: &str, now: Timestamp) -> bool {
        let mut actions = self.actions.lock();
        if actions.len() >= ACTIONS_COUNTED {
            actions.retain(|_, series| series.unwritten > 0 || !series.has_rested(now));
        }
        actions.entry((app.to_owned(), action.to_owned())).or_default().take(now)
    }

    /// Takes an act that failed back out of the count of its kind.
    pub fn deed_failed(&self, app: &str, action: &str) {
        if let Some(series) = self.actions.lock().get_mut(&(app.to_owned(), action.to_owned())) {
            series.left = series.left.map(|left| (left + 1).min(AT_ONCE));
        }
    }

    /// Counts an action; whether it is the first since the count was written.
    pub fn count_deed(&self, app: &str, action: &str) -> bool {
        let mut actions = self.actions.lock();
        let series = actions.entry((app.to_owned(), action.to_owned())).or_default();
        series.unwritten += 1;
        series.unwritten == 1
    }

    /// How many were counted that are written now, together.
    pub fn counted_deeds(&self, app: &str, action: &str) -> u64 {
        let mut actions = self.actions.lock();
        let series = actions.get_mut(&(app.to_owned(), action.to_owned()));
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
            owner: TokenOwner::Staff(Some(Role::Viewer)),
            narrowing: None,
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
    fn of_what_an_app_does_again_and_again_a_few_are_written_one_by_one() {
        let identity = Identity::default();
        let written = |app, action, at| identity.is_action_written(app, action, Timestamp(at));
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
