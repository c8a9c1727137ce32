//! See `tidings::git::fuzzing::commit`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::git::fuzzing::commit(bytes));
