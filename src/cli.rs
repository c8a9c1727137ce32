//! The command line: one verb a file.

pub mod listen;
pub mod verify;
