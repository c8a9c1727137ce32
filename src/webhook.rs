//! Deliveries as webhooks: implements [`Transport`].
//!
//! Preparing reads content through [`GitSource`], hashes what was never hashed and renders the
//! body; sending signs it anew for each attempt and brings it out through the one guarded client.
//! A body's bytes never change over retries, but for the id of chunks.

mod answer;
mod attempt;
pub mod body;
mod hashes;
mod material;
mod notice;
pub mod redaction;
pub mod signature;

use std::sync::Arc;

use async_trait::async_trait;
use tidings_actors::{
    ports::{
        Action, AttemptOutcome, Clock, DeliveryOrder, Endpoint, GitSource, Notice, Parcel, PrepareError,
        Random, Store, Transport,
    },
    round::Change,
};

use crate::egress::Egress;
pub(crate) use answer::excerpt;
use attempt::Sender;
use hashes::Hashes;

/// Gives the `traceparent` of the running span, where there is one.
pub type Traceparent = fn() -> Option<String>;

/// Signed webhooks through the guarded client.
pub struct Webhooks {
    egress: Egress,
    git: Arc<dyn GitSource>,
    hashes: Hashes,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    traceparent: Traceparent,
}

impl Webhooks {
    /// Joins the parts.
    #[must_use]
    pub fn new(
        egress: Egress,
        git: Arc<dyn GitSource>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let hashes = Hashes::new(store, Arc::clone(&clock));
        Self { egress, git, hashes, clock, random, traceparent: || None }
    }

    /// Sends what `traceparent` gives with every request.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: Traceparent) -> Self {
        self.traceparent = traceparent;
        self
    }

    fn sender<'a>(&'a self, endpoint: &'a Endpoint) -> Sender<'a> {
        Sender {
            egress: &self.egress,
            clock: &*self.clock,
            random: &*self.random,
            endpoint,
            traceparent: (self.traceparent)(),
        }
    }
}

#[async_trait]
impl Transport for Webhooks {
    async fn foresee(&self, changes: &[Change]) {
        let entries = changes.iter().flat_map(|change| change.old.into_iter().chain(change.new));
        self.hashes.foresee(entries.map(|entry| entry.blob)).await;
    }

    async fn prepare(&self, order: &DeliveryOrder) -> Result<Parcel, PrepareError> {
        let material = material::gather(&*self.git, &self.hashes, order).await?;
        let size = match &material.new {
            body::NewContent::Inline { bytes, .. } => bytes.len(),
            body::NewContent::Unseen | body::NewContent::TooLarge { .. } => 0,
        };
        let rendered = {
            let order = order.clone();
            material::off_thread(size, move || body::render(&order, &material)).await
        };
        Ok(Parcel { id: order.id.clone(), action: Action::from(order.change.operation), body: rendered })
    }

    async fn send(&self, endpoint: &Endpoint, parcel: &Parcel) -> AttemptOutcome {
        self.sender(endpoint).deliver(parcel).await
    }

    async fn notify(&self, endpoint: &Endpoint, notice: &Notice) -> AttemptOutcome {
        let letter = notice::render(notice);
        self.sender(endpoint).notify(&letter.id, letter.action, letter.body, letter.timeout).await
    }
}
