//! Receipts of hooks. This store keeps no bodies: nobody reads them.

use async_trait::async_trait;
use tidings_entity::{id::ReceiptId, kind::ReceiptVerdict};

use crate::{
    ports::{Hook, Reading, Receipt, ReceiptStore, RequestToKeep, StoreError},
    testing::memory::MemoryStore,
    time::Timestamp,
};

#[async_trait]
impl ReceiptStore for MemoryStore {
    async fn receive(&self, hook: &Hook, _kept: Option<&RequestToKeep>) -> Result<Receipt, StoreError> {
        self.meet("receive").await?;
        self.write(|state| Ok(state.receive(&*self.random, hook)))
    }

    async fn note_receipt(&self, receipt: &Receipt, _kept: Option<&RequestToKeep>) -> Result<(), StoreError> {
        self.write(|state| {
            state.write_receipt(receipt.clone());
            Ok(())
        })
    }

    async fn receipts(
        &self,
        verdict: Option<ReceiptVerdict>,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError> {
        Ok(self.state().shown_receipts(verdict, before, limit))
    }

    async fn replay(
        &self,
        id: &ReceiptId,
        reading: Option<&Reading>,
        at: Timestamp,
    ) -> Result<Receipt, StoreError> {
        self.write(|state| state.replay(id, reading, at))
    }
}
