//! How actors start, restart and find each other: supervisors, the directory, and which actors have work.

pub(crate) mod children_with_work;
pub mod directory;
pub(crate) mod hints;
pub(crate) mod start;
pub mod supervisor;
