//! In-memory versions of the ports, for tests, and the suite that every [`crate::ports::Store`]
//! must pass.

mod clock;
mod memory;
pub mod store_contract;

pub use clock::{ManualClock, SeededRandom};
pub use memory::MemoryStore;
