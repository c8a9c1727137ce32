//! [`ReceiptStore`]: receipts of the hooks that Git hosts sent.

use async_trait::async_trait;
use tidings_entity::{id::ReceiptId, kind::ReceiptVerdict};

use crate::{
    ports::{Hook, Reading, Receipt, RequestToKeep, StoreError},
    time::Timestamp,
};

/// Receipts of received hooks.
#[async_trait]
pub trait ReceiptStore: Send + Sync + 'static {
    /// Receives a genuine hook: judges it by the watches and writes its receipt, or finds that its delivery
    /// id was received before ([`ReceiptVerdict::Duplicate`], which writes nothing). Records at the named
    /// repositories that their hooks arrive. Receipts beyond [`RECEIPTS_MAX`](crate::ports::RECEIPTS_MAX) are
    /// removed, the oldest first; so are receipts of one app's hooks beyond
    /// [`APP_RECEIPTS_MAX`](crate::ports::APP_RECEIPTS_MAX). A hook of an app is judged by the watches of
    /// that app alone, and never makes polls rarer. If the hook was deleted meanwhile, the result is
    /// [`StoreError::NotFound`].
    async fn receive(&self, hook: &Hook, kept: Option<&RequestToKeep>) -> Result<Receipt, StoreError>;
    /// Records that a hook was refused or repeated. The request of a genuine hook that could not be read is
    /// stored. Receipts of this kind beyond [`NOTED_RECEIPTS_MAX`](crate::ports::NOTED_RECEIPTS_MAX) are
    /// removed, the oldest first.
    async fn note_receipt(&self, receipt: &Receipt, kept: Option<&RequestToKeep>) -> Result<(), StoreError>;
    /// Receipts, newest first, before `before`, at most `limit`.
    async fn receipts(
        &self,
        verdict: Option<ReceiptVerdict>,
        before: Option<&ReceiptId>,
        limit: u64,
    ) -> Result<Vec<Receipt>, StoreError>;
    /// Judges a received hook again, by the present watches, and by its body if the body was read again. A
    /// refused hook is a [`StoreError::Conflict`], because its sender is unknown; so is a repeated one.
    async fn replay(
        &self,
        id: &ReceiptId,
        reading: Option<&Reading>,
        at: Timestamp,
    ) -> Result<Receipt, StoreError>;
}
