//! Signals between actors outside of mailboxes: causes of traces, repeated wake-ups, failures that no breaker
//! has counted yet, mirrors that grew, polls, and hints that other replicas did not get yet.

pub mod causes;
pub(crate) mod coalesced;
pub mod failure_counts;
pub mod growth;
pub mod polls;
pub mod untold;
