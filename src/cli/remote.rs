//! Verbs that ask a running server through its API.

pub(crate) mod admin;
pub(crate) mod app;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod dead_letter;
pub(crate) mod delivery;
pub(crate) mod healthcheck;
pub(crate) mod hook;
pub(crate) mod ledger;
pub(crate) mod mail;
pub(crate) mod receipt;
pub(crate) mod repository;
pub(crate) mod subscription;
pub(crate) mod tasks;
pub(crate) mod token;
