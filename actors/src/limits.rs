//! Limits that apps and repositories share: attempts in flight, request rates, requests to one Git host,
//! scans, memory for rendered bodies, and turns where several apps wait.

pub mod budget;
pub mod hosts;
pub mod in_flight;
pub mod pace;
pub mod scan_slots;
pub mod shares;
pub mod turns;
