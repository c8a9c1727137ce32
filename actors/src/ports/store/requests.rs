//! Requests with an idempotency key, and their answers.

use async_trait::async_trait;
use tidings_entity::id::ReplicaId;

use crate::{
    ports::{Begun, KeyedRequest, StoreError, StoredAnswer},
    time::Timestamp,
};

/// Keyed requests and their answers.
#[async_trait]
pub trait RequestStore: Send + Sync + 'static {
    /// Begins a keyed request in the process `runner`, or returns the state of the earlier request with the
    /// same key. A request without an answer counts as running as long as its process lives: `runner` itself,
    /// or a replica that recently renewed its row. Otherwise the request was cut off and begins again. For an
    /// owner with more than [`ANSWERS_MAX`](crate::ports::ANSWERS_MAX) answers the oldest are removed, never
    /// a request that is running.
    async fn begin_request(
        &self,
        request: &KeyedRequest,
        at: Timestamp,
        runner: &ReplicaId,
    ) -> Result<Begun, StoreError>;
    /// Stores the answer of a running request, or with `None` frees its key. A request that is already
    /// answered, or was removed, stays as it is.
    async fn end_request(
        &self,
        request: &KeyedRequest,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError>;
}
