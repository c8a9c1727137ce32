//! In-memory versions of the ports, for tests, and the suite that every [`crate::ports::Store`]
//! must pass.

mod board;
mod clock;
pub mod git;
#[cfg(test)]
pub(crate) mod house;
mod memory;
mod meter;
mod objects;
pub mod store_contract;
pub mod transport;

pub use board::OpenBoard;
pub use clock::{ManualClock, SeededRandom};
pub use git::MemoryGit;
pub use memory::{Fault, LeaseTable, MemoryLeases, MemoryStore, SIGNALS};
pub use meter::{Measured, MemoryMeter, NoTracer};
pub use objects::MemoryObjects;
pub use transport::MemoryTransport;
