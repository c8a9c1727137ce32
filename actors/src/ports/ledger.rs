//! The ledger of an app: one entry for each change of state, numbered in the order of commits. Entries are
//! written by the store, in the transaction of what they tell of.

use std::{fmt, str::FromStr};

use async_trait::async_trait;
use tidings_entity::{
    id::{AppId, LedgerId, WatchId},
    kind::{EntryType, OriginKind},
};

use super::StoreError;
use crate::{filter::Filter, time::Timestamp};

/// Changes of one state that come faster than this are told together.
pub const FOLD_MS: i64 = 60_000;

/// The id of an entry: `ent_`, what follows `lgr_` in the name of its ledger, `_`, its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryId {
    /// The ledger that it stands in.
    pub ledger: LedgerId,
    /// Its number there.
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

/// What an entry comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What kind of thing.
    pub kind: OriginKind,
    /// Which one: `<cursor>/<round>` of a commit, the token of a person, a short name of what is outside.
    pub name: String,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its id.
    pub id: EntryId,
    /// Whose ledger it stands in.
    pub app: AppId,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    pub entry_type: EntryType,
    /// The watch that it happened to.
    pub watch: Option<WatchId>,
    /// The id of what changed: a source, a cursor, a watch, a sink or the app.
    pub subject: String,
    /// What it comes from.
    pub origin: Origin,
    /// The number of the entry before it about the same state of the same subject.
    pub cause: Option<i64>,
    /// More about it: a JSON object.
    pub data: String,
}

/// Which entries are asked for; what is empty is not asked.
#[derive(Clone, Debug, Default)]
pub struct LedgerFilter {
    /// Of one of these types.
    pub types: Vec<EntryType>,
    /// About this watch.
    pub watch: Option<WatchId>,
    /// About this subject.
    pub subject: Option<String>,
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// Meant by this filter as well.
    pub query: Option<Filter>,
    /// Only what subscriptions are sent: no entries about sending, so that none leads to another.
    pub is_for_sending: bool,
}

/// Where the ledger of an app begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEnds {
    /// Its name.
    pub name: LedgerId,
    /// The number of the oldest entry that is kept; `last + 1` where none is.
    pub first: i64,
    /// The number of the newest entry.
    pub last: i64,
}

/// Reading ledgers.
#[async_trait]
pub trait Ledgers: Send + Sync + 'static {
    /// Where the ledger of an app begins and ends; `None`: nothing was ever written there.
    async fn ledger_ends(&self, app: &AppId) -> Result<Option<LedgerEnds>, StoreError>;
    /// Entries of an app that a filter means, newest first, with numbers below `before`, at most `limit`.
    async fn entries(
        &self,
        app: &AppId,
        filter: &LedgerFilter,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<LedgerEntry>, StoreError>;
    /// Entries of an app that a filter means, in their order, behind `after` and not behind `to`, at most
    /// `limit`.
    async fn entries_between(
        &self,
        app: &AppId,
        filter: &LedgerFilter,
        after: i64,
        to: i64,
        limit: u64,
    ) -> Result<Vec<LedgerEntry>, StoreError>;
    /// Entries of all apps that a filter means, newest first by their moments, behind `before` in that
    /// order, at most `limit`.
    async fn entries_of_all(
        &self,
        filter: &LedgerFilter,
        before: Option<&EntryPlace>,
        limit: u64,
    ) -> Result<Vec<LedgerEntry>, StoreError>;
}

/// The place of an entry in the list of all apps: `<unix milliseconds>.<app>.<number>` as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPlace {
    /// Its moment.
    pub at: Timestamp,
    /// Its app.
    pub app: AppId,
    /// Its number.
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
