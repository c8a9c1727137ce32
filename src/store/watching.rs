//! What apps watch: repositories and their sources, watches, statuses of commits, and the hooks that report
//! pushes.

pub(crate) mod hooks;
pub(crate) mod sources;
pub(crate) mod statuses;
pub(crate) mod watches;
