//! The database itself, of either kind: its address, connections, schema and partitions, the proof of the
//! keyring, operations on a whole database (examine, copy, transfer), statements and rows, and errors.

pub(crate) mod address;
pub(crate) mod canary;
pub(crate) mod connect;
pub mod copy;
pub(crate) mod error;
pub mod examine;
pub(crate) mod partitions;
pub(crate) mod rows;
pub mod schema;
pub mod transfer;
pub(crate) mod turns;
