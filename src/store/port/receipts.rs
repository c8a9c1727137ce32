//! Receipts of hooks.

use async_trait::async_trait;
use tidings_actors::{
    ports::{Hook, Receipt, ReceiptStore, StoreError},
    time::Timestamp,
};
use tidings_entity::{id::ReceiptId, kind::ReceiptVerdict};

use super::transact;
use crate::{SqlStore, sources::receipts};

#[async_trait]
impl ReceiptStore for SqlStore {
    async fn receive(&self, hook: &Hook) -> Result<Receipt, StoreError> {
        let hook = hook.clone();
        transact!(self, |transaction, context| receipts::receive(transaction, context, hook).await)
    }

    async fn note_receipt(&self, receipt: &Receipt) -> Result<(), StoreError> {
        let receipt = receipt.clone();
        transact!(self, |transaction, _context| receipts::write(transaction, receipt).await.map(drop))
    }

    async fn receipts(
        &self,
        verdict: Option<ReceiptVerdict>,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError> {
        receipts::list(&self.readers, verdict, before, limit).await
    }

    async fn replay(&self, id: &ReceiptId, at: Timestamp) -> Result<Receipt, StoreError> {
        let id = id.clone();
        transact!(self, |transaction, _context| receipts::replay(transaction, id, at).await)
    }
}
