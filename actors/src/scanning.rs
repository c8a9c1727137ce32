//! Looking at repositories: a watcher decides when, a worker scans.

pub mod repository_watcher;
pub mod scan_worker;
