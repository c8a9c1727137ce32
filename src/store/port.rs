//! The port, a file for each noun. Calls that write take their turn in the writer; calls that read see one
//! snapshot.

mod apps;
mod artifacts;
mod history;
mod hooks;
mod lanes;
mod ledgers;
mod letters;
mod receipts;
mod requests;
mod sources;
mod statuses;
mod subscriptions;
mod tasks;
mod upkeep;
mod watches;
mod workers;

use std::sync::Arc;

use tidings_actors::ports::{Fence, Store};

use super::SqlStore;

/// Runs a block in the writer's transaction, with owned copies of its arguments.
macro_rules! transact {
    ($store:expr, |$transaction:ident| $body:expr) => {
        transact!($store, |$transaction, _context| $body)
    };
    ($store:expr, |$transaction:ident, $context:ident| $body:expr) => {
        $store.writer.verb(move |$transaction, $context| Box::pin(async move { $body })).await
    };
}
pub(super) use transact;

impl Store for SqlStore {
    fn under(&self, fence: Fence) -> Arc<dyn Store> {
        Arc::new(Self { writer: self.writer.under(fence), ..self.clone() })
    }
}
