//! Receipts of hooks.

use async_trait::async_trait;
use tidings_entity::{id::ReceiptId, kind::ReceiptVerdict};

use crate::{
    ports::{Hook, Receipt, StoreError},
    time::Timestamp,
};

/// What is kept of received hooks.
#[async_trait]
pub trait ReceiptStore: Send + Sync + 'static {
    /// Takes a genuine hook in: judges it by what is watched and writes its receipt, or finds that
    /// its delivery id was received before ([`ReceiptVerdict::Duplicate`], which writes nothing).
    /// Remembers at the repositories it names that hooks of theirs arrive. Receipts beyond
    /// [`RECEIPTS_MAX`](crate::ports::RECEIPTS_MAX) go, the oldest first.
    async fn receive(&self, hook: &Hook) -> Result<Receipt, StoreError>;
    /// Writes that a hook was refused or repeated. Such receipts beyond
    /// [`NOTED_RECEIPTS_MAX`](crate::ports::NOTED_RECEIPTS_MAX) go, the oldest first.
    async fn note_receipt(&self, receipt: &Receipt) -> Result<(), StoreError>;
    /// Receipts, newest first, before `before`, at most `limit`.
    async fn receipts(
        &self,
        verdict: Option<ReceiptVerdict>,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError>;
    /// Judges a received hook again, by what is watched now. A refused one is a
    /// [`StoreError::Conflict`]: nobody knows who sent it; so is a repetition.
    async fn replay(&self, id: &ReceiptId, at: Timestamp) -> Result<Receipt, StoreError>;
}
