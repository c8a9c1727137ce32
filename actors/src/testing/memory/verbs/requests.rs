//! Requests with an idempotency key, and their answers.

use async_trait::async_trait;
use tidings_entity::id::ReplicaId;

use crate::{
    ports::{Begun, KeyedRequest, RequestStore, StoreError, StoredAnswer},
    testing::memory::MemoryStore,
    time::Timestamp,
};

#[async_trait]
impl RequestStore for MemoryStore {
    async fn begin_request(
        &self,
        request: &KeyedRequest,
        at: Timestamp,
        runner: &ReplicaId,
    ) -> Result<Begun, StoreError> {
        let lives = |other: &ReplicaId| self.leases().lives(other);
        self.write(|state| Ok(state.begin_request(request, at, runner, lives)))
    }

    async fn end_request(
        &self,
        request: &KeyedRequest,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError> {
        self.meet("end_request").await?;
        self.write(|state| {
            state.end_request(request, answer);
            Ok(())
        })
    }
}
