//! Verbs of the machine that runs a server: they read its settings, its data directory or its database.

pub(crate) mod backup;
pub(crate) mod check_config;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod migrate;
pub mod serve;
pub(crate) mod service;
