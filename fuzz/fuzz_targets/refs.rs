//! See `tidings::fuzzing::refs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::fuzzing::refs(bytes));
