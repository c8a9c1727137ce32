//! What lives and decides in Tidings: the supervision tree, the actors and their pure state
//! machines, and the ports through which they see the world. Nothing here touches SQL, libgit2,
//! HTTP or files; the `tidings` crate implements [`ports`] and starts the tree.

pub mod follow;
pub mod handle;
pub mod ports;
pub mod round;
pub mod secret;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod view;
