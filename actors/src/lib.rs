//! What lives and decides in Tidings: the supervision tree, the actors and their pure state
//! machines, and the ports through which they see the world. Nothing here touches SQL, libgit2,
//! HTTP or files; the `tidings` crate implements [`ports`] and starts the tree.

pub mod budget;
pub mod causes;
pub mod circuit_breaker;
mod coalesced;
pub mod context;
pub mod crowds;
pub mod deliverer;
pub mod directory;
pub mod failure_notes;
pub mod filter;
pub mod follow;
pub mod growth;
pub mod handle;
mod hints;
pub mod hosts;
pub mod housekeeping;
pub mod leases;
pub mod pace;
pub mod policy;
pub mod polls;
pub mod ports;
pub mod receipt;
pub mod repository_watcher;
mod roll;
pub mod round;
pub mod scan_slots;
pub mod scan_worker;
pub mod secret;
pub mod selector;
pub mod shards;
pub mod shares;
pub mod sink;
mod start;
pub mod subscriber;
pub mod supervisor;
pub mod tasks;
pub mod terms;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod tree;
pub mod turns;
pub mod untold;
pub mod view;
