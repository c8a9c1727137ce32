//! The `tidings` binary: installs the TLS implementation, then runs the command line.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use mimalloc::MiMalloc;

/// Replaces the system's allocator, whose threads share few arenas: a busy server waited for an arena a
/// quarter of its time. C libraries keep the system's allocator: with the feature `override`, mimalloc would
/// free memory that the loader has allocated, and a process with a preloaded library would crash at its
/// start.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // A page of 2 MiB stays resident while a single object in it lives: a third of an idle server's memory.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        drop(writeln!(io::stderr(), "tidings: transparent huge pages stay on, which costs memory: {error}"));
    }
    let installed = rustls::crypto::ring::default_provider().install_default();
    assert!(installed.is_ok(), "nothing else can have installed one before main");
    tidings::cli::main()
}
