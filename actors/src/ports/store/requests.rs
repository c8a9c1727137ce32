//! Requests with an idempotency key, and their answers.

use async_trait::async_trait;
use tidings_entity::id::ReplicaId;

use crate::{
    ports::{Begun, KeyedRequest, StoreError, StoredAnswer},
    time::Timestamp,
};

/// What is kept of keyed requests.
#[async_trait]
pub trait RequestStore: Send + Sync + 'static {
    /// Begins a keyed request in the process `runner`, or says what became of the one that had its key
    /// before. One without an answer runs as long as its process lives: that is `runner` itself, or a
    /// replica that said lately that it lives. Otherwise it was cut off and begins again. Of an
    /// owner with more than [`ANSWERS_MAX`](crate::ports::ANSWERS_MAX) the oldest answers are forgotten,
    /// never a request that runs.
    async fn begin_request(
        &self,
        request: &KeyedRequest,
        at: Timestamp,
        runner: &ReplicaId,
    ) -> Result<Begun, StoreError>;
    /// Remembers what a running request was answered, or with `None` frees its key. One that is
    /// answered, or gone, stays as it is.
    async fn end_request(
        &self,
        request: &KeyedRequest,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError>;
}
