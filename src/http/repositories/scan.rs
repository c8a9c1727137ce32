//! The result of scans of the Git host, as shown to the app that watches.

use serde::Serialize;
use tidings_actors::{
    ports::{BreakerRow, CursorStatus, Watch},
    signals::polls::Polled,
    time::Timestamp,
};
use utoipa::ToSchema;

use crate::http::bodies::moment::iso;

/// The last look at the Git host and the next one. A look that finds nothing new writes nothing down, so most
/// of it is missing until the first look since the start of the server, and in lists where another replica
/// works on the repository.
#[derive(Serialize, ToSchema)]
pub(super) struct Scan {
    /// When the last look ended, whatever came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_at: Option<String>,
    /// When the next one is due; while the host fails, when it is probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<String>,
    /// How long the last look took, from its turn at the host to its effect on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    /// Bytes of the objects that the last look fetched, for all who share it: 0 where nothing had moved.
    /// Missing where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// `ok`, or the code of the error: `unreachable`, `timeout`, `rate_limited` (the host asked for
    /// patience), `auth_failed`, `repository_not_found`, `database_failed`, `crashed` and others.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// Why the last look failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Looks that failed in a row.
    failures: u32,
    /// What of this watch was left out, although the look went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<Unseen>,
}

/// Refs that were not listed, because those that the app follows in this repository are too many for one
/// listing. Nothing is concluded from it: they stay where they were until they are listed again.
#[derive(Serialize, ToSchema)]
struct Unseen {
    /// Full names, or what the names begin with (`refs/tags/`).
    refs: Vec<String>,
    /// Why the refs were left out.
    reason: String,
}

/// Why the commit that the Git host names cannot be taken.
#[derive(Serialize, ToSchema)]
pub(super) struct HeadFaultShown {
    reason: String,
    /// When the branch came to this commit, or the reason last changed.
    since: String,
    /// The first scan after this moment requests the commit again; missing where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_at: Option<String>,
}

impl Scan {
    /// `breaker`: that of the source, where it has failures.
    pub(super) fn of(watch: &Watch, polled: &Polled, breaker: Option<&BreakerRow>) -> Self {
        let last = polled.last.as_deref();
        let probe = breaker.filter(|row| row.opened_at.is_some()).and_then(|row| row.probe_at);
        let unseen = polled.unseen_of(watch);
        Self {
            last_at: last.map(|scanned| iso(scanned.at)),
            next_at: polled.next.or(probe).map(iso),
            took_ms: last.map(|scanned| u64::try_from(scanned.took.as_millis()).unwrap_or(u64::MAX)),
            bytes: last.and_then(|scanned| scanned.bytes),
            outcome: last.map(|scanned| scanned.outcome),
            reason: last.map_or_else(|| watch.last_error.clone(), |scanned| scanned.reason.clone()),
            failures: polled.failures.max(breaker.map_or(0, |row| row.failures)),
            unseen: unseen.map(|(refs, reason)| Unseen { refs, reason: reason.to_owned() }),
        }
    }

    /// When the last look ended.
    pub(super) fn last_at(&self) -> Option<String> {
        self.last_at.clone()
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<String> {
        self.next_at.clone()
    }
}

impl HeadFaultShown {
    /// `not_before`: when the commit may be asked for again.
    pub(super) fn of(cursor: &CursorStatus, not_before: Option<Timestamp>) -> Option<Self> {
        cursor.fault.as_ref().map(|fault| Self {
            reason: fault.reason.clone(),
            since: iso(fault.since),
            next_try_at: not_before.map(iso),
        })
    }
}

#[cfg(test)]
mod tests;
