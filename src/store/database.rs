//! The database itself, of either kind: its address, connections, schema and partitions, the proof of the
//! keyring, and operations on a whole database (examine, copy, transfer).

pub(crate) mod address;
pub(crate) mod canary;
pub(crate) mod connect;
pub mod copy;
pub mod examine;
pub(crate) mod partitions;
pub mod schema;
pub mod transfer;
