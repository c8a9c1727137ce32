//! Ledgers, for people and for readers that follow them.

use async_trait::async_trait;
use tidings_actors::ports::{
    EntryPlace, LedgerEnds, LedgerEntry, LedgerFilter, Ledgers, Searched, StoreError,
};
use tidings_entity::id::AppId;

use crate::{SqlStore, ledger};

#[async_trait]
impl Ledgers for SqlStore {
    async fn ledger_ends(&self, app: &AppId) -> Result<Option<LedgerEnds>, StoreError> {
        ledger::ends(&self.readers, app).await
    }

    async fn entries(
        &self,
        app: &AppId,
        filter: &LedgerFilter,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Searched<LedgerEntry, i64>, StoreError> {
        let _turn = self.searches.turn(Some(app)).await;
        ledger::list(&self.readers, app, filter, before, limit).await
    }

    async fn entries_between(
        &self,
        app: &AppId,
        filter: &LedgerFilter,
        after: i64,
        to: i64,
        limit: u64,
    ) -> Result<Searched<LedgerEntry, i64>, StoreError> {
        let _turn = self.searches.turn(Some(app)).await;
        ledger::between(&self.readers, app, filter, (after, to), 0, limit).await
    }

    async fn entries_of_all(
        &self,
        filter: &LedgerFilter,
        before: Option<&EntryPlace>,
        limit: u64,
    ) -> Result<Searched<LedgerEntry, EntryPlace>, StoreError> {
        let _turn = self.searches.turn(None).await;
        ledger::of_all(&self.readers, filter, before, limit).await
    }
}
