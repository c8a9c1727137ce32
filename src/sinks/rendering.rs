//! The rendering of deliveries for every sink: bodies, CloudEvents, notices, payloads of rounds, and the
//! content in them with its hashes. Nothing here sends anything.

pub mod body;
pub(super) mod cloud_event;
mod codeq;
pub(super) mod entry;
pub(super) mod hashes;
pub(super) mod material;
pub(super) mod notice;
pub(super) mod round;
