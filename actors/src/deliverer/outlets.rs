//! The ways by which changes leave: attempts to an endpoint, claims of a consumer, and tasks of a queue.

pub(super) mod attempts;
pub(super) mod handed;
pub(super) mod handing;
pub mod pulling;
