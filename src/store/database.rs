//! The database itself, of either kind: its address, connections, schema and partitions, the proof that the
//! keyring is the right one, and what is done with a whole database (examined, copied, transferred).

pub(crate) mod address;
pub(crate) mod canary;
pub(crate) mod connect;
pub mod copy;
pub mod examine;
pub(crate) mod partitions;
pub mod schema;
pub mod transfer;
