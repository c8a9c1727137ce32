//! Hooks: what Git hosts send when something moved. A hook is a hint that a repository should be
//! polled soon and never the truth, so all that is taken from one is which repository and which ref
//! it names. Nothing here keeps a state, asks the network or knows the store.
//!
//! [`envelope`] reads the headers, [`proof`] says whether the body is genuine, [`payload`] reads it.

pub mod envelope;
pub mod payload;
pub mod proof;

#[cfg(test)]
mod tests;
