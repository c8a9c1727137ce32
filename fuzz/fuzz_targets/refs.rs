//! See `tidings::git::fuzzing::refs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::git::fuzzing::refs(bytes));
