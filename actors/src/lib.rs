//! The actors of Tidings: the supervision tree, the actors and their pure state machines, and the ports to
//! the outside. Nothing here touches SQL, libgit2, HTTP or files; the `tidings` crate implements [`ports`]
//! and starts the tree.

pub mod circuit_breaker;
pub mod context;
pub mod deliverer;
pub mod handle;
pub mod housekeeping;
pub mod limits;
pub mod model;
pub mod ownership;
pub mod ports;
pub mod scanning;
pub mod signals;
pub mod subscriber;
pub mod supervision;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
