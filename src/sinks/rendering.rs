//! What deliveries look like, whatever sink they go to: bodies, CloudEvents, notices, the content that they
//! carry and its hashes. Nothing here sends anything.

pub mod body;
pub(super) mod cloud_event;
pub(super) mod entry;
pub(super) mod hashes;
pub(super) mod material;
pub(super) mod notice;
