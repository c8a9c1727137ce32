//! What a machine must have for the binary to run there.

use std::{collections::BTreeSet, fs};

use crate::support::server::Server;

/// Libraries that every program of the language's standard library is linked with.
const EXPECTED: [&str; 7] = ["ld-linux", "libc.", "libdl.", "libgcc_s.", "libm.", "libpthread.", "librt."];

#[cfg(target_os = "linux")]
#[test]
fn the_binary_needs_no_library_of_the_machine_but_that_of_c() {
    let server = Server::start();
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.process())).expect("its memory");
    let mapped: BTreeSet<&str> =
        maps.lines().filter_map(|line| line.rsplit('/').next()).filter(|name| name.contains(".so")).collect();
    assert!(mapped.iter().any(|name| name.starts_with("libc.")), "{mapped:?}");
    let others: Vec<_> =
        mapped.iter().filter(|name| !EXPECTED.iter().any(|known| name.starts_with(known))).collect();
    assert!(others.is_empty(), "{others:?}");
}
