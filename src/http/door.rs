//! The door: connections, and the way of a request until a handler has it. Who calls, what one caller may
//! keep busy, which route it is, what is written down of it.

pub mod access;
pub mod admin_token;
pub mod auth;
pub mod edge;
pub(crate) mod elsewhere;
pub mod idempotency;
pub mod lifecycle;
pub mod listener;
pub mod pipeline;
pub mod places;
pub(crate) mod quota;
pub mod request;
pub(crate) mod request_lines;
pub mod route;
pub mod witness;
