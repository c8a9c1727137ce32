//! The result of scans of the Git host, as shown to the app that watches.

use serde::Serialize;
use tidings_actors::{
    ports::{BreakerRow, CursorStatus, Watch},
    signals::polls::Polled,
    time::Timestamp,
};
use utoipa::ToSchema;

use crate::http::bodies::moment::iso;

/// The last scan of the Git host, and the next one. A scan that finds nothing new is not stored. So most
/// fields are missing until the first scan after a start of the server, and in lists if another replica scans
/// the repository.
#[derive(Serialize, ToSchema)]
pub(super) struct Scan {
    /// When the last scan ended, successful or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_at: Option<String>,
    /// When the next scan is due. While the Git host fails: when the next probe is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<String>,
    /// Duration of the last scan in milliseconds, from its turn at the Git host until its results were on
    /// disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
    /// Bytes of the objects that the last scan fetched, for all watches that share the scan. 0: no ref had
    /// moved. Missing: the scan failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// `ok`, or the code of the error: `unreachable`, `timeout`, `rate_limited` (the Git host asked for a
    /// pause), `auth_failed`, `repository_not_found`, `database_failed`, `crashed` and others.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// Why the last scan failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Number of failed scans in a row.
    failures: u32,
    /// Refs of this watch that the last successful scan left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<Unseen>,
}

/// Refs that a scan did not learn: the app follows more refs of this repository than one listing can hold, or
/// the files of these refs cannot be read. Branches of these refs keep their state until a scan lists them.
#[derive(Serialize, ToSchema)]
struct Unseen {
    /// Full names of refs, or prefixes of names (`refs/tags/`).
    refs: Vec<String>,
    /// Why nothing is known of the refs.
    reason: String,
}

/// Why the commit that the Git host named cannot be fetched.
#[derive(Serialize, ToSchema)]
pub(super) struct HeadFaultShown {
    reason: String,
    /// When the branch came to this commit, or when the reason last changed.
    since: String,
    /// The first scan after this moment fetches the commit again. Missing: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_at: Option<String>,
}

impl Scan {
    /// `breaker`: the breaker of the source, if the source has failures.
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

    /// When the last scan ended.
    pub(super) fn last_at(&self) -> Option<String> {
        self.last_at.clone()
    }

    /// When the next scan is due.
    pub(super) fn next_at(&self) -> Option<String> {
        self.next_at.clone()
    }
}

impl HeadFaultShown {
    /// `not_before`: the earliest time to fetch the commit again.
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
