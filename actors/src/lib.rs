//! The actors of Tidings: the supervision tree, the actors and their pure state machines, and the ports to
//! the outside. Nothing here touches SQL, libgit2, HTTP or files; the `tidings` crate implements [`ports`]
//! and starts the tree.

pub mod circuit_breaker;
pub mod claims;
pub mod context;
pub mod deliverer;
pub mod handle;
pub mod housekeeping;
pub mod limits;
pub mod model;
pub mod ownership;
pub mod policy;
pub mod ports;
pub mod repository_watcher;
pub mod scan_worker;
pub mod signals;
pub mod subscriber;
pub mod supervision;
pub mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod tree;
pub mod work_caller;
