//! [`ReceiptStore`] on SQL; the statements are in `sources/receipts.rs`.

use async_trait::async_trait;
use tidings_actors::{
    ports::{Hook, Reading, Receipt, ReceiptFilter, ReceiptStore, RequestToKeep, StoreError},
    time::Timestamp,
};
use tidings_entity::{id::ReceiptId, kind::ReceiptVerdict};

use super::transact;
use crate::{SqlStore, watching::sources::receipts};

#[async_trait]
impl ReceiptStore for SqlStore {
    async fn receive(&self, hook: &Hook, kept: Option<&RequestToKeep>) -> Result<Receipt, StoreError> {
        let (hook, kept) = (hook.clone(), kept.cloned());
        transact!(self, |transaction, context| {
            receipts::receive(transaction, context, hook, kept.as_ref()).await
        })
    }

    async fn note_receipt(&self, receipt: &Receipt, kept: Option<&RequestToKeep>) -> Result<(), StoreError> {
        let (receipt, kept) = (receipt.clone(), kept.cloned());
        transact!(self, |transaction, context| {
            receipts::write(transaction, context, receipt, kept.as_ref()).await.map(drop)
        })
    }

    async fn receipts(
        &self,
        verdict: Option<ReceiptVerdict>,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError> {
        let filter = ReceiptFilter { hook: None, verdict };
        receipts::list(&self.readers, None, &filter, before, limit).await
    }

    async fn replay(
        &self,
        id: &ReceiptId,
        reading: Option<&Reading>,
        at: Timestamp,
    ) -> Result<Receipt, StoreError> {
        let (id, reading) = (id.clone(), reading.cloned());
        transact!(self, |transaction, _context| {
            receipts::replay(transaction, id, reading.as_ref(), at).await
        })
    }
}
