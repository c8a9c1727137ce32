//! The door: connections, and the path of a request to its handler: the caller, the limits of a caller, the
//! route, and the audit log.

pub mod access;
pub mod audit_layer;
pub mod auth;
pub mod edge;
pub(crate) mod elsewhere;
pub mod idempotency;
pub mod incoming;
pub mod lifecycle;
pub mod listener;
mod missing;
pub mod pipeline;
pub mod places;
pub(crate) mod quota;
pub mod request;
pub(crate) mod request_lines;
pub mod route;
