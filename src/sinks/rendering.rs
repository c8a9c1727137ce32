//! The rendering of deliveries for every sink: bodies, CloudEvents, notices, and the content in them with its
//! hashes. Nothing here sends anything.

pub mod body;
pub(super) mod cloud_event;
pub(super) mod entry;
pub(super) mod hashes;
pub(super) mod material;
pub(super) mod notice;
