//! The front door as clients meet it: through a real listener, on a real socket.

mod access;
mod apps;
mod bad_inputs;
mod contents;
mod double;
mod files;
mod histories;
mod hooks;
mod house;
mod idempotency;
mod repositories;
mod shared;
mod sqlite;

pub(crate) use house::{ADMIN, House, raw};
