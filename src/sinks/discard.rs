//! The sink `discard`: each change is acknowledged, and nothing is sent. It shows what a sink needs.

use tidings_actors::ports::{AttemptOutcome, ItemOutcome, Parcel};

use super::print;

/// Acknowledges all of these changes.
pub(super) fn acknowledge(parcels: &[Parcel]) -> (AttemptOutcome, Vec<ItemOutcome>) {
    (print::outcome(Ok(204), ""), vec![ItemOutcome::Accepted; parcels.len()])
}
