//! What verbs share: the client of a server, how results are printed, and how failures are told.

pub(crate) mod client;
pub(crate) mod failure;
pub(crate) mod folder;
pub(crate) mod follow;
pub(crate) mod listing;
pub(crate) mod needless;
pub mod output;
pub(crate) mod passphrase;
pub(crate) mod profile;
pub(crate) mod progress;
pub(crate) mod query;
pub(crate) mod secret_file;
pub(crate) mod usage;
pub(crate) mod variables;
pub(crate) mod words;
