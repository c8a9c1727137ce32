//! See `tidings::fuzzing::commit`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::fuzzing::commit(bytes));
