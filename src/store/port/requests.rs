//! Requests with an idempotency key, and their answers.

use async_trait::async_trait;
use tidings_actors::{
    ports::{Begun, KeyedRequest, RequestStore, StoreError, StoredAnswer},
    time::Timestamp,
};
use tidings_entity::id::ReplicaId;

use super::transact;
use crate::{SqlStore, apps::requests};

#[async_trait]
impl RequestStore for SqlStore {
    async fn begin_request(
        &self,
        request: &KeyedRequest,
        at: Timestamp,
        runner: &ReplicaId,
    ) -> Result<Begun, StoreError> {
        let (request, runner) = (request.clone(), runner.clone());
        transact!(self, |transaction, context| {
            requests::begin(transaction, context, &request, at, &runner).await
        })
    }

    async fn end_request(
        &self,
        request: &KeyedRequest,
        answer: Option<&StoredAnswer>,
    ) -> Result<(), StoreError> {
        let (request, answer) = (request.clone(), answer.cloned());
        transact!(self, |transaction, context| {
            requests::end(transaction, context, &request, answer.as_ref()).await
        })
    }
}
