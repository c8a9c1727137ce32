//! Verbs that need no server: watch a repository, receive deliveries, and describe this program.

pub(crate) mod completions;
pub mod listen;
pub(crate) mod man;
pub(crate) mod openapi;
pub mod verify;
pub mod watch;
