//! Input and output: storage, Git hosts, receivers, the HTTP API, settings and the command line. The
//! decisions are in `tidings-actors`; this crate implements its ports and starts its tree.

pub mod app;
pub mod backup;
pub mod cli;
pub mod doctor;
#[doc(hidden)]
pub mod fuzzing;
pub mod hook;
pub mod http;
pub mod identity;
pub mod machine;
pub mod objects;
pub mod settings;

pub use tidings_egress as egress;
pub use tidings_git as git;
pub use tidings_secrets as secrets;
pub use tidings_sinks as sinks;
pub use tidings_store as store;
pub use tidings_telemetry as telemetry;
