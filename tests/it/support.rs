//! What stories are told with: real peers that can be told to misbehave, and small stand-ins.

pub(crate) mod blob_store;
pub(crate) mod content;
pub(crate) mod git_host;
pub(crate) mod receiver;
pub(crate) mod repository;
pub(crate) mod sender;
