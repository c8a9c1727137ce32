//! Hooks: requests that Git hosts send when a ref moved. A hook is only a hint that a repository should be
//! polled soon, so only the repository and the ref are taken from it. This module keeps no state, sends no
//! request and does not know the store.
//!
//! [`envelope`] reads the headers, [`proof`] decides whether the body is genuine, [`payload`] reads the body,
//! [`kept`] decides which parts are stored.

pub mod envelope;
pub mod kept;
pub mod payload;
pub mod proof;

#[cfg(test)]
mod tests;
