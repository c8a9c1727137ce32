//! How actors start, restart and find each other: the tree, supervisors, the directory, which actors have
//! work, and tasks beside mailboxes.

pub(crate) mod children_with_work;
pub mod directory;
pub(crate) mod hints;
pub(crate) mod start;
pub mod supervisor;
pub mod tasks;
pub mod tree;
