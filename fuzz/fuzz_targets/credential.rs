//! See `tidings::git::fuzzing::credential`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidings::git::fuzzing::credential(bytes));
