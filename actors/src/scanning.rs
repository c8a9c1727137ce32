//! Looking at repositories: a watcher decides when, a worker scans, and a listing says which refs.

pub mod listing;
pub mod repository_watcher;
pub mod scan_worker;
