//! The `tidings` binary: installs the one TLS implementation, then does what the command line says.

use std::process::ExitCode;

fn main() -> ExitCode {
    let installed = rustls::crypto::ring::default_provider().install_default();
    assert!(installed.is_ok(), "nothing else can have installed one before main");
    tidings::cli::main()
}
