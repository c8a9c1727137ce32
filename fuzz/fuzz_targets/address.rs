//! See `tidings::git::fuzzing::address`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::git::fuzzing::address(bytes));
