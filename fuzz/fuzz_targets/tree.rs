//! See `tidings::git::fuzzing::tree`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::git::fuzzing::tree(bytes));
