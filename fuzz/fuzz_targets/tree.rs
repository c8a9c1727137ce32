//! See `tidings::fuzzing::tree`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::fuzzing::tree(bytes));
