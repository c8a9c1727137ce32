//! The ledger of an app: one entry for each change of state, numbered in the order of commits. The store
//! writes an entry in the same transaction as the change that it reports.

pub(super) mod mail;
pub(super) mod subscription;
pub(super) mod subscription_message;

use std::{fmt, str::FromStr};

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, LedgerId, SubscriptionId, WatchId},
    kind::{EntryType, OriginKind},
};

use super::{Searched, StoreError};
use crate::{model::filter::Filter, time::Timestamp};

/// Changes of one state that follow each other faster than this share one entry, in milliseconds.
pub const FOLD_MS: i64 = 60_000;

/// The id of an entry: `ent_`, the part of its ledger's name after `lgr_`, `_`, its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryId {
    /// The ledger that holds the entry.
    pub ledger: LedgerId,
    /// The number of the entry in that ledger.
    pub number: i64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ent_{}_{}", self.ledger.ulid(), self.number)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ledger, number) = text.strip_prefix("ent_").and_then(|rest| rest.split_once('_')).ok_or(())?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let ledger = format!("{}{ledger}", LedgerId::PREFIX).parse().map_err(drop)?;
        let number = number.parse().map_err(drop)?;
        if is_number { Ok(Self { ledger, number }) } else { Err(()) }
    }
}

/// The origin of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The kind of the origin.
    pub kind: OriginKind,
    /// The name of the origin: `<cursor>/<round>` of a commit, the token of a person, a short name of a cause
    /// outside.
    pub name: String,
}

/// An entry of a ledger: one change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Id of the entry, which is unique over all ledgers.
    pub id: EntryId,
    /// The app whose ledger holds the entry.
    pub app: AppId,
    /// When the entry was written.
    pub at: Timestamp,
    /// The type of the entry, such as `watch.blocked`.
    pub entry_type: EntryType,
    /// The watch that the entry concerns; `None`: no single watch.
    pub watch: Option<WatchId>,
    /// The id of what changed: a source, a cursor, a watch, a sink or the app.
    pub subject: String,
    /// The cause of the change of state: a round, a person, or something outside.
    pub origin: Origin,
    /// The number of the entry before it about the same state of the same subject.
    pub cause: Option<i64>,
    /// More about it: a JSON object.
    pub data: String,
}

/// A filter for entries. A field that is empty or `None` restricts nothing.
#[derive(Clone, Debug, Default)]
pub struct LedgerFilter {
    /// Only entries of one of these types.
    pub types: Vec<EntryType>,
    /// Only entries about this watch.
    pub watch: Option<WatchId>,
    /// Only entries about the source, cursor, watch, sink or app of this id.
    pub subject: Option<String>,
    /// Only entries at this moment or later.
    pub since: Option<Timestamp>,
    /// Only entries before this moment.
    pub until: Option<Timestamp>,
    /// Only entries that match this filter.
    pub query: Option<Filter>,
    /// Whether entries about sending are left out. Subscriptions leave them out, so that no entry leads to
    /// another entry.
    pub is_for_sending: bool,
    /// Only entries that are addressed to this callback.
    pub recipient: Option<SubscriptionId>,
}

/// The name of an app's ledger, and the numbers of its first and last entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEnds {
    /// The name of the ledger, part of the id of each entry.
    pub name: LedgerId,
    /// The number of the oldest entry that is stored; `last + 1` where none is.
    pub first: i64,
    /// The number of the newest entry.
    pub last: i64,
}

/// The calls by which the API and subscriptions read ledgers.
#[async_trait]
pub trait Ledgers: Send + Sync + 'static {
    /// The first and the last number of an app's ledger; `None`: the ledger never had an entry.
    async fn ledger_ends(&self, app: &AppId) -> Result<Option<LedgerEnds>, StoreError>;
    /// Entries of an app that a filter means, newest first, with numbers below `before`, at most `limit`.
    async fn entries(
        &self,
        app: &AppId,
        filter: &LedgerFilter,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Searched<LedgerEntry, i64>, StoreError>;
    /// Entries of an app that match a filter, in their order, behind `after` and not behind `to`, at most
    /// `limit`. `next` is missing where the search reached `to`.
    async fn entries_between(
        &self,
        app: &AppId,
        filter: &LedgerFilter,
        after: i64,
        to: i64,
        limit: u64,
    ) -> Result<Searched<LedgerEntry, i64>, StoreError>;
    /// Entries of all apps that match a filter, newest first by their moments, behind `before` in that order,
    /// at most `limit`.
    async fn entries_of_all(
        &self,
        filter: &LedgerFilter,
        before: Option<&EntryPlace>,
        limit: u64,
    ) -> Result<Searched<LedgerEntry, EntryPlace>, StoreError>;
}

/// The place of an entry in the list of all apps: `<unix milliseconds>.<app>.<number>` as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPlace {
    /// When the entry was written.
    pub at: Timestamp,
    /// The app whose ledger holds the entry.
    pub app: AppId,
    /// The number of the entry in that ledger.
    pub number: i64,
}

impl EntryPlace {
    /// The place of an entry.
    #[must_use]
    pub fn of(entry: &LedgerEntry) -> Self {
        Self { at: entry.at, app: entry.app.clone(), number: entry.id.number }
    }
}

impl fmt::Display for EntryPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.at.0, self.app, self.number)
    }
}

impl FromStr for EntryPlace {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '.');
        let (at, app, number) = (parts.next(), parts.next(), parts.next());
        Ok(Self {
            at: Timestamp(at.and_then(|at| at.parse().ok()).ok_or(())?),
            app: app.and_then(|app| app.parse().ok()).ok_or(())?,
            number: number.and_then(|number| number.parse().ok()).ok_or(())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    #[test]
    fn the_id_of_an_entry_is_read_again_and_nothing_else_is_one() {
        let id = EntryId { ledger: LedgerId::new(Ulid::from_parts(1, 2)), number: 17 };
        assert_eq!(id.to_string(), "ent_00000000010000000000000002_17");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "ent_", "ent_00000000010000000000000002", "ent_00000000010000000000000002_"] {
            assert_eq!(text.parse::<EntryId>(), Err(()), "{text}");
        }
        for text in ["ent_00000000010000000000000002_-1", "ent_00000000010000000000000002_+1", "ent_x_1"] {
            assert_eq!(text.parse::<EntryId>(), Err(()), "{text}");
        }
    }
}
