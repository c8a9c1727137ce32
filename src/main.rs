//! The `tidings` binary: installs the one TLS implementation, then does what the command line says.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// The system's allocator shares few arenas between threads: a quarter of the time of a busy server
/// went into waiting for one. C libraries keep the system's: mimalloc under the name of `malloc` (its feature
/// `override`) frees what the loader has allocated, and a process with a preloaded library crashes at its
/// start.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let installed = rustls::crypto::ring::default_provider().install_default();
    assert!(installed.is_ok(), "nothing else can have installed one before main");
    tidings::cli::main()
}
