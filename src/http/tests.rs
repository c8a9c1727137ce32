//! The front door as clients meet it: through a real listener, on a real socket.

mod access;
mod apps;
mod audited;
mod bad_inputs;
mod contents;
mod dashboard;
mod dismissals;
mod docs;
mod files;
mod filters;
mod git;
mod guide;
mod histories;
mod hooks;
mod house;
mod idempotency;
mod identity;
mod keys;
mod ledger;
mod metrics;
mod permissions;
pub(crate) mod plain;
mod planting;
mod redrives_of_tasks;
mod repositories;
mod shared;
mod sights;
mod sign_ins;
mod sinks;
mod sqlite;

pub(crate) use house::{ADMIN, House, raw};
